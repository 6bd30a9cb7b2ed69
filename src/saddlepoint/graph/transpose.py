"""Wᵀ a for a linear operator y = W x + c: the backward half of every linear bound.

In general the vector–Jacobian product of `map` (exact: a linear map is its own derivative). Nearly all operators have
direct forms, which are faster. Everything is batched over the leading axis and
differentiable in a (and in the weights), so that bounds can be optimised through it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.graph.ops_arithmetic import Add, AddConstant, Constant, DivConstant, Identity, MulConstant, Negate, Sub
from saddlepoint.graph.ops_base import LinearOp, Shape
from saddlepoint.graph.ops_dense import BatchNorm, Conv2d, ConvTranspose2d, Linear, MatMulConstant
from saddlepoint.graph.ops_pairs import Differences, Join
from saddlepoint.graph.ops_pool import Mean, Sum
from saddlepoint.graph.ops_shape import Concat, Expand, Index, Permute, Reshape, Slice, UpsampleNearest

FEW = 4  # channels, as an image has them


@singledispatch
def transpose(op: LinearOp, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    """Wᵀ a, one tensor (N, *in_shape) per input of `op`, for a = `cotangent` (N, *out).

    `transpose(op.absolute(), a, in_shapes)` is |W|ᵀ a.
    """
    # autograd.grad, not torch.func.vjp: the same numbers, and its first call does not import a second's worth
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        zeros = tuple(cotangent.new_zeros((cotangent.shape[0], *shape)).requires_grad_() for shape in in_shapes)
        y = op.map(*zeros)
        if not y.requires_grad:
            return tuple(z.detach() for z in zeros)  # W = 0
        return torch.autograd.grad(y, zeros, cotangent, create_graph=differentiable)


@transpose.register
def _(op: Linear, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    return (torch.matmul(cotangent, op.weight),)


@transpose.register
def _(op: Conv2d, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    # rows and columns of the input that the last stride did not reach
    extra = [in_shapes[0][1 + i] + 2 * op.padding[i] - n for i, n in enumerate(_reach(op, tuple(cotangent.shape[2:])))]
    if not _grids_pay(op, cotangent):
        a = F.conv_transpose2d(cotangent, op.weight, None, op.stride, op.padding, extra, op.groups, op.dilation)
        return (a,)
    (top, left), (height, width) = op.padding, in_shapes[0][1:]
    a = _by_grids(op, cotangent, (max(extra[0], 0), max(extra[1], 0)))
    return (a[:, :, top : top + height, left : left + width].contiguous(),)


def spread(op: Conv2d, a: Tensor) -> Tensor:
    """The transposed convolution of a (N, C, h, w) without padding: all that its outputs read, borders or not."""
    if _grids_pay(op, a):
        return _by_grids(op, a, (0, 0))
    return F.conv_transpose2d(a, op.weight, None, op.stride, 0, 0, op.groups, op.dilation)


def _reach(op: Conv2d, places: tuple[int, ...]) -> tuple[int, int]:
    """How many rows and columns `places` outputs read."""
    tall, wide = (
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip(places, op.stride, op.dilation, op.weight.shape[2:], strict=True)
    )
    return tall, wide


def _grids_pay(op: Conv2d, a: Tensor) -> bool:
    """Few input channels and a stride: there the library's float32 routine is up to five times slower."""
    few = op.groups == 1 and op.weight.shape[1] <= FEW and max(op.stride) > 1 and len(a) > FEW
    return few and a.dtype == torch.float32 and a.device.type == "cpu" and not torch.is_grad_enabled()


def _by_grids(op: Conv2d, a: Tensor, extra: tuple[int, int]) -> Tensor:
    """Every entry (i, j) of the kernel adds one product of matrices onto its own grid of places."""
    (n, _, h, w), (channels, k, m) = a.shape, op.weight.shape[1:]
    tall, wide = _reach(op, (h, w))
    products = torch.matmul(op.weight.flatten(1).T, a.flatten(2)).view(n, channels, k, m, h, w)
    canvas = a.new_zeros((n, channels, tall + extra[0], wide + extra[1]))
    for i in range(k):
        for j in range(m):
            top, left = i * op.dilation[0], j * op.dilation[1]
            bottom, right = top + (h - 1) * op.stride[0] + 1, left + (w - 1) * op.stride[1] + 1
            canvas[:, :, top : bottom : op.stride[0], left : right : op.stride[1]] += products[:, :, i, j]
    return canvas


@transpose.register(BatchNorm)
@transpose.register(MulConstant)
@transpose.register(DivConstant)
@transpose.register(Negate)
@transpose.register(AddConstant)
@transpose.register(Identity)
def _diagonal(op: LinearOp, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    return (op.map(cotangent),)  # a diagonal W is its own transpose


@transpose.register
def _(op: Add, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    return cotangent, cotangent


@transpose.register
def _(op: Sub, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    return cotangent, -cotangent


@transpose.register
def _(op: Reshape, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    return (cotangent.reshape(cotangent.shape[0], *in_shapes[0]),)


@transpose.register
def _(op: Permute, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    back = sorted(range(len(op.axes)), key=op.axes.__getitem__)
    return (cotangent.permute(back),)


@transpose.register
def _(op: Concat, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    return torch.split(cotangent, [shape[op.axis - 1] for shape in in_shapes], dim=op.axis)


@transpose.register
def _(op: Constant, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    return (cotangent.new_zeros((cotangent.shape[0], *in_shapes[0])),)


@transpose.register
def _(op: ConvTranspose2d, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    a = F.conv2d(cotangent, op.weight, None, op.stride, op.padding, op.dilation, op.groups)
    h, w = in_shapes[0][1:]
    return (a[:, :, :h, :w],)  # output padding may make room for one place more, which no input reaches


@transpose.register
def _(op: MatMulConstant, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    back = op.matrix.transpose(-1, -2)
    a = torch.matmul(back, cotangent) if op.left else torch.matmul(cotangent, back)
    return (a.sum_to_size((cotangent.shape[0], *in_shapes[0])),)  # one x may have met a stack of matrices


@transpose.register
def _(op: Slice, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    a = cotangent.new_zeros((cotangent.shape[0], *in_shapes[0]))
    return (torch.slice_scatter(a, cotangent, op.axis, op.start, min(op.stop, a.shape[op.axis]), op.step),)


@transpose.register
def _(op: Index, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    a = cotangent.new_zeros((cotangent.shape[0], *in_shapes[0]))
    return (a.index_add(op.axis, op.index, cotangent),)


@transpose.register
def _(op: Expand, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    return (cotangent.sum_to_size((cotangent.shape[0], *in_shapes[0])),)


@transpose.register
def _(op: UpsampleNearest, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    channels, h, w = in_shapes[0]
    blocks = cotangent.reshape(-1, channels, h, op.factors[0], w, op.factors[1])
    return (blocks.sum((3, 5)),)


@transpose.register(Mean)
@transpose.register(Sum)
def _reduction(op: Mean | Sum, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    kept = [1 if i in op.axes else size for i, size in enumerate(in_shapes[0], start=1)]
    a = cotangent.reshape(cotangent.shape[0], *kept)
    if isinstance(op, Mean):
        a = a / math.prod(op.source[i - 1] for i in op.axes)
    return (a.expand(cotangent.shape[0], *in_shapes[0]),)


@transpose.register
def _(op: Join, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    parts = torch.split(cotangent, [math.prod(shape) for shape in in_shapes], dim=1)
    return tuple(a.reshape(-1, *shape) for a, shape in zip(parts, in_shapes, strict=True))


@transpose.register
def _(op: Differences, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    return (cotangent.sum(-2) - cotangent.sum(-1),)  # the diagonal cancels in exact arithmetic
