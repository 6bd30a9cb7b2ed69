"""The way back through a first convolution: a matrix product, then the overlapping windows added up.

    y = W * x,   ∂/∂x <g, y> = fold(Wᵀ g),   Wᵀ: (C_in k k, C_out), applied at every output position

An image has one or three channels, for which the general transposed convolution is poorly shaped; the smaller the
network, the more of its time goes there. In bfloat16 this way is slower than the general one and is not used.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from saddlepoint.graph.ir import Graph
from saddlepoint.graph.ops import Conv2d

_FEW = 4  # input channels


class _Convolve(torch.autograd.Function):
    """A convolution whose only gradient is the input's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, op: Conv2d) -> Tensor:
        ctx.op, ctx.size = op, x.shape
        return Conv2d.__call__(op, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (g,), op = grads, ctx.op
        back = op.weight.flatten(1).t()
        columns = torch.matmul(back, g.reshape(*g.shape[:2], -1))
        way = {"dilation": op.dilation, "padding": op.padding, "stride": op.stride}
        return torch.nn.functional.fold(columns, ctx.size[-2:], op.weight.shape[-2:], **way), None


@dataclass(frozen=True, eq=False)
class FirstConv2d(Conv2d):
    """Conv2d with the way back above."""

    def __call__(self, *xs: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        return _Convolve.apply(xs[0], self)  # pyright: ignore[reportReturnType]


def with_first_layer(graph: Graph) -> Graph:
    """The graph with those convolutions replaced that are float32 and have few input channels."""
    nodes = [
        replace(n, op=FirstConv2d(**{f.name: getattr(n.op, f.name) for f in fields(n.op)}))
        if isinstance(n.op, Conv2d) and _fits(n.op)
        else n
        for n in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes))


def _fits(op: Conv2d) -> bool:
    return op.weight.dtype == torch.float32 and op.groups == 1 and op.weight.shape[1] <= _FEW
