"""What every operator of the graph is: a frozen value that holds its tensors and maps a batch to a batch.

    linear operator      y = W x + c      (all inputs together are x)
    |W|                  the same map with absolute coefficients, for intervals and rounding terms
    Wᵀ                   the vector–Jacobian product of `map` (see transpose.py)

Every value has shape (N, *shape) with any leading N; no operator mixes the rows of N. Bounds fold batch and
specification rows into N, so `map` and `absolute_map` must accept any N as well and be differentiable.
Rounding (Higham, Accuracy and Stability of Numerical Algorithms, 2002, §3.1): with n = `products`,
|fl(W x) − W x| ≤ γ_n |W| |x|, γ_n = n u / (1 − n u), for sums evaluated in any order.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

Shape = tuple[int, ...]


def _plain(value: Any) -> Any:
    """A field as JSON: floats in hexadecimal, so that infinities and every bit survive."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value


class Op(ABC):
    """One operator: `op(*xs)` maps tensors (N, *shape) to one tensor (N, *out)."""

    @property
    def kind(self) -> str:
        """The operator's name in messages and digests."""
        return type(self).__name__

    @abstractmethod
    def __call__(self, *xs: Tensor) -> Tensor:
        """The operator as the deployed model computes it."""

    def tensors(self) -> dict[str, Tensor]:
        """Weights and other tensors by field name."""
        return {name: v for name, v in self._fields() if isinstance(v, Tensor)}

    def config(self) -> dict[str, Any]:
        """The remaining fields as JSON values (for the graph's digest)."""
        return {name: _plain(v) for name, v in self._fields() if not isinstance(v, Tensor)}

    def to(self, target: torch.dtype | torch.device | str) -> Self:
        """The same operator with floating tensors in another dtype, or all tensors on another device."""
        changed = {}
        for name, tensor in self.tensors().items():
            if not isinstance(target, torch.dtype):
                changed[name] = tensor.to(device=target)
            elif tensor.is_floating_point():
                changed[name] = tensor.to(dtype=target)
        return dataclasses.replace(self, **changed) if changed else self  # type: ignore[type-var]

    def _fields(self) -> list[tuple[str, Any]]:
        return [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self)]  # type: ignore[arg-type]


class LinearOp(Op):
    """y = W x + c. `map` is W, `absolute_map` is |W|, `constant` is c."""

    @abstractmethod
    def map(self, *xs: Tensor) -> Tensor:
        """W x, without the constant."""

    @abstractmethod
    def absolute(self) -> LinearOp:
        """The operator whose `map` is |W|. Its constant has no meaning."""

    def absolute_map(self, *xs: Tensor) -> Tensor:
        """|W| x."""
        return self.absolute().map(*xs)

    def constant(self, in_shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        """c as (1, *out), in `like`'s dtype and on its device; None where c = 0."""
        return None

    @property
    @abstractmethod
    def products(self) -> int:
        """n with |fl(W x) − W x| ≤ γ_n |W| |x|; 0 where the map only copies. Adding c is one rounding more."""

    @property
    @abstractmethod
    def products_transposed(self) -> int:
        """n with |fl(Wᵀ a) − Wᵀ a| ≤ γ_n |W|ᵀ |a|."""

    def __call__(self, *xs: Tensor) -> Tensor:
        y = self.map(*xs)
        c = self.constant([tuple(x.shape[1:]) for x in xs], xs[0])
        return y if c is None else y + c


class CopyOp(LinearOp):
    """A linear operator whose coefficients are 0 and 1, one input at most per output: it never rounds."""

    def absolute(self) -> LinearOp:
        return self

    @property
    def products(self) -> int:
        return 0

    @property
    def products_transposed(self) -> int:
        return 0


class NonlinearOp(Op):
    """Any other operator. bound/rules has one file for each that can be bounded; the rest only run."""
