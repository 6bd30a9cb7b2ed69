"""Linear operators with weights: Linear, Conv2d, ConvTranspose2d, BatchNorm, MatMulConstant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.graph.ops_base import LinearOp, Shape

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Linear(LinearOp):
    """y = x Wᵀ + b over the last axis. weight (out, in), bias (out,) or None."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, *xs: Tensor) -> Tensor:
        return F.linear(xs[0], self.weight, self.bias)

    def map(self, *xs: Tensor) -> Tensor:
        return F.linear(xs[0], self.weight)

    def absolute(self) -> Linear:
        return Linear(self.weight.abs())

    def constant(self, in_shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        if self.bias is None:
            return None
        return self.bias.to(like).expand(1, *in_shapes[0][:-1], -1)

    @property
    def products(self) -> int:
        return self.weight.shape[1]

    @property
    def products_transposed(self) -> int:
        return self.weight.shape[0]


@dataclass(frozen=True, eq=False)
class Conv2d(LinearOp):
    """Cross-correlation of (N, C, H, W) with weight (out, C/groups, kh, kw); zero padding equal on both sides."""

    weight: Tensor
    bias: Tensor | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def __call__(self, *xs: Tensor) -> Tensor:
        return F.conv2d(xs[0], self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def map(self, *xs: Tensor) -> Tensor:
        return F.conv2d(xs[0], self.weight, None, self.stride, self.padding, self.dilation, self.groups)

    def absolute(self) -> Conv2d:
        return replace(self, weight=self.weight.abs(), bias=None)

    def out_size(self, size: Sequence[int]) -> Pair:
        """Height and width of the output for an input of that height and width."""
        h, w = (
            (size[i] + 2 * self.padding[i] - self.dilation[i] * (self.weight.shape[2 + i] - 1) - 1) // self.stride[i]
            + 1
            for i in range(2)
        )
        return h, w

    def constant(self, in_shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        if self.bias is None:
            return None
        return self.bias.to(like).view(1, -1, 1, 1).expand(1, -1, *self.out_size(in_shapes[0][1:]))

    @property
    def products(self) -> int:
        return math.prod(self.weight.shape[1:])

    @property
    def products_transposed(self) -> int:
        return self.weight.shape[0] // self.groups * self.weight.shape[2] * self.weight.shape[3]


@dataclass(frozen=True, eq=False)
class ConvTranspose2d(LinearOp):
    """The transposed convolution of (N, C, H, W), weight (C, out/groups, kh, kw)."""

    weight: Tensor
    bias: Tensor | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    output_padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def __call__(self, *xs: Tensor) -> Tensor:
        return self._run(xs[0], self.bias)

    def map(self, *xs: Tensor) -> Tensor:
        return self._run(xs[0], None)

    def absolute(self) -> ConvTranspose2d:
        return replace(self, weight=self.weight.abs(), bias=None)

    def out_size(self, size: Sequence[int]) -> Pair:
        """Height and width of the output for an input of that height and width."""
        h, w = (
            (size[i] - 1) * self.stride[i]
            - 2 * self.padding[i]
            + self.dilation[i] * (self.weight.shape[2 + i] - 1)
            + self.output_padding[i]
            + 1
            for i in range(2)
        )
        return h, w

    def constant(self, in_shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        if self.bias is None:
            return None
        return self.bias.to(like).view(1, -1, 1, 1).expand(1, -1, *self.out_size(in_shapes[0][1:]))

    @property
    def products(self) -> int:
        return self.weight.shape[0] // self.groups * self.weight.shape[2] * self.weight.shape[3]

    @property
    def products_transposed(self) -> int:
        return math.prod(self.weight.shape[1:])

    def _run(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv_transpose2d(
            x, self.weight, bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )


@dataclass(frozen=True, eq=False)
class BatchNorm(LinearOp):
    """Batch normalisation in evaluation: y = w (x − μ) / √(σ² + ε) + b, per channel (axis 1).

    mean, variance, weight, bias (C,). The scale s = w / √(σ² + ε) and the constant b − μ s are computed in the
    operator's dtype; `products` covers the roundings inside s.
    """

    mean: Tensor
    variance: Tensor
    weight: Tensor
    bias: Tensor
    epsilon: float = 1e-5

    def __call__(self, *xs: Tensor) -> Tensor:
        if self.mean.requires_grad:  # statistics of a batch in training, which torch's kernel takes as constants
            return super().__call__(*xs)
        return F.batch_norm(xs[0], self.mean, self.variance, self.weight, self.bias, False, 0.0, self.epsilon)

    @property
    def scale(self) -> Tensor:
        """s = w / √(σ² + ε), (C,)."""
        return self.weight / torch.sqrt(self.variance + self.epsilon)

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0] * _along_channels(self.scale, xs[0].dim())

    def absolute(self) -> BatchNorm:
        zero = torch.zeros_like(self.bias)
        return replace(self, mean=zero, bias=zero, weight=self.weight.abs())

    def constant(self, in_shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        c = (self.bias - self.mean * self.scale).to(like)
        return _along_channels(c, 1 + len(in_shapes[0])).expand(1, *in_shapes[0])

    @property
    def products(self) -> int:
        return 5  # σ² + ε, the root, the division, the product with x, and one for the root's half ulp

    @property
    def products_transposed(self) -> int:
        return 5


@dataclass(frozen=True, eq=False)
class MatMulConstant(LinearOp):
    """x M (`left` False) or M x (`left` True) over the last two axes; a matrix of more axes starts with 1 (batch)."""

    matrix: Tensor
    left: bool = False

    def map(self, *xs: Tensor) -> Tensor:
        return torch.matmul(self.matrix, xs[0]) if self.left else torch.matmul(xs[0], self.matrix)

    def absolute(self) -> MatMulConstant:
        return replace(self, matrix=self.matrix.abs())

    @property
    def products(self) -> int:
        return self.matrix.shape[-1] if self.left else self.matrix.shape[-2]

    @property
    def products_transposed(self) -> int:
        # where a stack of matrices meets one broadcast x, the transpose also sums over the stack
        stack = math.prod(self.matrix.shape[:-2])
        return stack * (self.matrix.shape[-2] if self.left else self.matrix.shape[-1])


def _along_channels(v: Tensor, dims: int) -> Tensor:
    """(C,) as (1, C, 1, …) with `dims` axes."""
    return v.view(1, -1, *(1,) * (dims - 2))
