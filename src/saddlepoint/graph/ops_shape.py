"""Linear operators that move entries: Reshape, Permute, Slice, Index, Pad, Concat, Expand, UpsampleNearest.

Axes count the batch axis as 0, so they are ≥ 1; shapes leave the batch axis out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.graph.ops_base import CopyOp, LinearOp, Shape


@dataclass(frozen=True, eq=False)
class Reshape(CopyOp):
    """(N, *any) -> (N, *shape), row-major. Flatten, squeeze and unsqueeze are reshapes too."""

    shape: Shape

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0].reshape(xs[0].shape[0], *self.shape)


@dataclass(frozen=True, eq=False)
class Permute(CopyOp):
    """Axis i of the output is axis `axes[i]` of the input; axes[0] = 0."""

    axes: tuple[int, ...]

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0].permute(self.axes)


@dataclass(frozen=True, eq=False)
class Slice(CopyOp):
    """x[start:stop:step] along one axis, 0 ≤ start ≤ stop, step ≥ 1."""

    axis: int
    start: int
    stop: int
    step: int = 1

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0][(slice(None),) * self.axis + (slice(self.start, self.stop, self.step),)]


@dataclass(frozen=True, eq=False)
class Index(CopyOp):
    """x[index] along one axis with constant indices (m,) int64, repetitions allowed."""

    axis: int
    index: Tensor

    def map(self, *xs: Tensor) -> Tensor:
        return torch.index_select(xs[0], self.axis, self.index)

    @property
    def products_transposed(self) -> int:
        return max(int(torch.bincount(self.index).max()) - 1, 0) if self.index.numel() else 0


@dataclass(frozen=True, eq=False)
class Pad(CopyOp):
    """Constant padding in torch's order: last axis first, (before, after) each; negative numbers crop."""

    pads: tuple[int, ...]
    value: float = 0.0

    def __call__(self, *xs: Tensor) -> Tensor:
        return F.pad(xs[0], self.pads, value=self.value)

    def map(self, *xs: Tensor) -> Tensor:
        return F.pad(xs[0], self.pads)

    def constant(self, in_shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        if self.value == 0:
            return None
        return F.pad(like.new_zeros((1, *in_shapes[0])), self.pads, value=self.value)


@dataclass(frozen=True, eq=False)
class Concat(CopyOp):
    """Inputs one after the other along one axis."""

    axis: int

    def map(self, *xs: Tensor) -> Tensor:
        return torch.cat(xs, dim=self.axis)


@dataclass(frozen=True, eq=False)
class Expand(CopyOp):
    """Broadcasts (N, *source) to (N, *shape), equal ranks."""

    source: Shape
    shape: Shape

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0].expand(-1, *self.shape)

    @property
    def products_transposed(self) -> int:
        return max(math.prod(self.shape) // max(math.prod(self.source), 1) - 1, 0)


@dataclass(frozen=True, eq=False)
class UpsampleNearest(LinearOp):
    """(N, C, H, W) -> (N, C, a H, b W), every entry repeated (whole factors)."""

    factors: tuple[int, int]

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0].repeat_interleave(self.factors[0], 2).repeat_interleave(self.factors[1], 3)

    def absolute(self) -> UpsampleNearest:
        return self

    @property
    def products(self) -> int:
        return 0

    @property
    def products_transposed(self) -> int:
        return self.factors[0] * self.factors[1] - 1
