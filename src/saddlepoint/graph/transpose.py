"""Wᵀ a for a linear operator y = W x + c: the backward half of every linear bound.

In general the vector–Jacobian product of `map` (exact: a linear map is its own derivative). Linear and Conv2d, where
nearly all the time goes, and the cheap ones have direct forms. Everything is batched over the leading axis and
differentiable in a (and in the weights), so that bounds can be optimised through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.graph.ops_arithmetic import Add, AddConstant, DivConstant, MulConstant, Negate, Sub
from saddlepoint.graph.ops_base import LinearOp, Shape
from saddlepoint.graph.ops_dense import BatchNorm, Conv2d, Linear
from saddlepoint.graph.ops_shape import Concat, Permute, Reshape


@singledispatch
def transpose(op: LinearOp, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    """Wᵀ a, one tensor (N, *in_shape) per input of `op`, for a = `cotangent` (N, *out).

    `transpose(op.absolute(), a, in_shapes)` is |W|ᵀ a.
    """
    zeros = tuple(cotangent.new_zeros((cotangent.shape[0], *shape)) for shape in in_shapes)
    pull = torch.func.vjp(op.map, *zeros)[1]
    return pull(cotangent)


@transpose.register
def _(op: Linear, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    return (torch.matmul(cotangent, op.weight),)


@transpose.register
def _(op: Conv2d, cotangent: Tensor, in_shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    # rows and columns of the input that the last stride did not reach
    extra = [
        in_shapes[0][1 + i]
        - (
            (cotangent.shape[2 + i] - 1) * op.stride[i]
            - 2 * op.padding[i]
            + op.dilation[i] * (op.weight.shape[2 + i] - 1)
            + 1
        )
        for i in range(2)
    ]
    a = F.conv_transpose2d(cotangent, op.weight, None, op.stride, op.padding, extra, op.groups, op.dilation)
    return (a,)


@transpose.register(BatchNorm)
@transpose.register(MulConstant)
@transpose.register(DivConstant)
@transpose.register(Negate)
@transpose.register(AddConstant)
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
