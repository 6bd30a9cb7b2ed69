"""One node of an ONNX file as the rules see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saddlepoint.graph.builder import Builder, Ref, Value
from saddlepoint.graph.ops_base import Op

BATCH = 1_000_003
"""Stands for the batch axis in the shape arithmetic of exporters; a prime, so that no honest size is a multiple."""

FLOATS: dict[int, torch.dtype] = {1: torch.float32, 11: torch.float64}
"""ONNX's numbers of the two types that a graph computes in."""

Held = Ref | np.ndarray


@dataclass(frozen=True)
class Call:
    """A node: attributes, inputs (missing ones None), name of its output, operator set; the file's own batch size."""

    b: Builder
    a: dict[str, Any]
    inputs: tuple[Held | None, ...]
    outputs: tuple[str, ...]
    opset: int
    batch: int | None

    @property
    def name(self) -> str:
        """Name of the first output."""
        return self.outputs[0]

    def given(self, i: int) -> bool:
        """Is there an i-th input?"""
        return i < len(self.inputs) and self.inputs[i] is not None

    def variable(self, i: int = 0) -> Ref:
        """An input that must be a variable."""
        value = self.inputs[i] if i < len(self.inputs) else None
        if not isinstance(value, Ref):
            raise self.b.unsupported(f"input {i} is a constant where a variable is expected")
        return value

    def array(self, i: int) -> np.ndarray:
        """An input that must be constant."""
        value = self.inputs[i] if i < len(self.inputs) else None
        if not isinstance(value, np.ndarray):
            raise self.b.unsupported(f"input {i} is computed from the model's input where a constant is expected")
        return value

    def constant(self, i: int) -> Tensor:
        """A constant input in the graph's type."""
        return self.b.constant(torch.from_numpy(np.ascontiguousarray(self.array(i))))

    def value(self, i: int) -> Value:
        """A variable, or a constant as a tensor."""
        value = self.inputs[i] if i < len(self.inputs) else None
        return value if isinstance(value, Ref) else self.constant(i)

    def ints(self, key: str, i: int) -> list[int] | None:
        """Numbers that older operator sets keep in the attribute `key` and newer ones in input i."""
        if key in self.a:
            return [int(v) for v in self.a[key]]
        return [int(v) for v in self.array(i).reshape(-1)] if self.given(i) else None

    def number(self, key: str, i: int) -> float | None:
        """One number, as in `ints`."""
        if key in self.a:
            return float(self.a[key])
        return float(self.array(i).reshape(-1)[0]) if self.given(i) else None

    def node(self, op: Op, i: int = 0) -> Ref:
        """One operator on one variable."""
        return self.b.add(op, self.variable(i), name=self.name)


Rule = Callable[[Call], Any]


def pair(values: Sequence[int]) -> tuple[int, int]:
    """Two integers."""
    return int(values[0]), int(values[1])
