"""One call of an ATen operator as the rules see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from saddlepoint.graph.builder import Builder, Ref, Value
from saddlepoint.graph.ops_base import Op


@dataclass(frozen=True)
class Call:
    """One call: its arguments by ATen's names, the result's shape without the batch axis, its name."""

    b: Builder
    a: dict[str, Any]
    shape: Any
    name: str

    def variable(self, key: str = "self") -> Ref:
        """An argument that must be a variable."""
        value = self.a[key]
        if not isinstance(value, Ref):
            raise self.b.unsupported(f"its argument {key} is a constant where a variable is expected")
        return value

    def constant(self, key: str) -> Tensor:
        """An argument that must be a constant tensor."""
        value = self.a[key]
        if not isinstance(value, Tensor):
            raise self.b.unsupported(f"its argument {key} is computed from the input")
        return self.b.constant(value)

    def optional(self, key: str) -> Tensor | None:
        """An argument that may be missing."""
        return None if self.a.get(key) is None else self.constant(key)

    def value(self, key: str) -> Value:
        """A variable, or a constant from a tensor or a number."""
        value = self.a[key]
        return value if isinstance(value, Ref) else self.b.constant(value)

    def node(self, op: Op, key: str = "self") -> Ref:
        """One operator on one variable."""
        return self.b.add(op, self.variable(key), name=self.name)


Rule = Callable[[Call], Any]


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    v = list(value)
    return (v[0], v[0]) if len(v) == 1 else (v[0], v[1])
