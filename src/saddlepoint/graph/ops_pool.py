"""Linear operators that average or sum: AvgPool2d, AdaptiveAvgPool2d, Mean, Sum. Axes count the batch as 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from saddlepoint.graph.ops_base import LinearOp, Shape

Pair = tuple[int, int]


class _Averaging(LinearOp):
    """Coefficients are positive: |W| = W."""

    def absolute(self) -> LinearOp:
        return self


@dataclass(frozen=True, eq=False)
class AvgPool2d(_Averaging):
    """Mean over windows of (N, C, H, W); `divisor` replaces the count if given."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor: int | None = None

    def map(self, *xs: Tensor) -> Tensor:
        return F.avg_pool2d(
            xs[0],
            self.kernel,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor,
        )

    @property
    def products(self) -> int:
        return math.prod(self.kernel) + 1

    @property
    def products_transposed(self) -> int:
        # an input lies in at most ⌈k/s⌉ windows along each axis
        return math.prod(-(-k // s) for k, s in zip(self.kernel, self.stride, strict=True)) + 1


@dataclass(frozen=True, eq=False)
class AdaptiveAvgPool2d(_Averaging):
    """Mean over the windows [⌊iH/h⌋, ⌈(i+1)H/h⌉) of (N, C, H, W), H × W = `source`, h × w = `size`."""

    size: Pair
    source: Pair

    def map(self, *xs: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(xs[0], self.size)

    @property
    def products(self) -> int:
        # the widest window has at most ⌈H/h⌉ + 1 rows
        return math.prod(-(-n // m) + 1 for n, m in zip(self.source, self.size, strict=True)) + 1

    @property
    def products_transposed(self) -> int:
        # windows overlap by less than one entry on each side; where h > H an input serves ⌈h/H⌉ + 1 windows
        return math.prod(-(-m // n) + 1 for n, m in zip(self.source, self.size, strict=True)) + 1


@dataclass(frozen=True, eq=False)
class Mean(_Averaging):
    """Mean over `axes` of (N, *source)."""

    axes: tuple[int, ...]
    keepdim: bool
    source: Shape

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0].mean(self.axes, self.keepdim)

    @property
    def products(self) -> int:
        return math.prod(self.source[a - 1] for a in self.axes) + 1

    @property
    def products_transposed(self) -> int:
        return 2


@dataclass(frozen=True, eq=False)
class Sum(_Averaging):
    """Sum over `axes` of (N, *source)."""

    axes: tuple[int, ...]
    keepdim: bool
    source: Shape

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0].sum(self.axes, self.keepdim)

    @property
    def products(self) -> int:
        return math.prod(self.source[a - 1] for a in self.axes)

    @property
    def products_transposed(self) -> int:
        return 0
