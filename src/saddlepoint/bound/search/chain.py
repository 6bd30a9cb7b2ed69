"""A graph as a chain of affine maps and elementwise functions, on the inputs that a box leaves free.

    h_0 = x[free],   v_k = W_k h_{k−1} + c_k,   h_k = σ_k(v_k),   output = v_L

Linear stretches are multiplied out to one matrix (in float64), and inputs that the box fixes go into c_1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import Abs, Clip, Elementwise, Exp, LeakyRelu, LinearOp, NonlinearOp, Relu, Sigmoid, Tanh

LARGEST = 1 << 23  # entries of the largest matrix that a stretch is multiplied out to
ONE_TO_ONE = (Abs, Clip, Elementwise, Exp, LeakyRelu, Relu, Sigmoid, Tanh)


@dataclass(frozen=True)
class Layer:
    """v = W h + c, then `op` (None for the output). `node` names the nonlinear node.

    spread is the product of the |W| of the linear nodes, entrywise ≥ |W|: the interval that a checker gets, who goes
    through them one by one.
    """

    weight: Tensor
    spread: Tensor
    constant: Tensor
    op: NonlinearOp | None
    node: str


@dataclass(frozen=True)
class Chain:
    """Layers first to last, on the inputs `free` of the box (int64), which are all that vary."""

    layers: tuple[Layer, ...]
    free: Tensor

    @property
    def work(self) -> int:
        """Products of the backward passes of every neuron: what a box costs at most."""
        total, below = 0, 0
        for layer in self.layers:
            total += 2 * layer.weight.shape[0] * below
            below += layer.weight.numel()
        return total

    def __call__(self, x: Tensor) -> Tensor:
        """The output for x (n, free)."""
        for layer in self.layers:
            x = torch.nn.functional.linear(x, layer.weight, layer.constant)
            x = x if layer.op is None else layer.op(x)
        return x


def chain_of(graph: Graph, lower: Tensor, upper: Tensor, dtype: torch.dtype) -> Chain | None:
    """The graph as a chain on the box [lower, upper] (flat float64); None if it branches or a matrix is too large."""
    free = (upper > lower).nonzero().flatten()
    groups = _stretches(graph)
    if groups is None:
        return None
    exact, layers = graph.to(torch.float64), []
    shape, width = graph.input_shape, len(free)
    for stretch, last in groups:
        rows = max([width, *(math.prod(n.shape) for n in stretch)])
        if rows * width > LARGEST:
            return None
        base = torch.where(upper > lower, 0.0, lower) if not layers else lower.new_zeros(width)
        columns = free if not layers else torch.arange(width)
        weight, spread, constant = _affine([exact.node(n.name) for n in stretch], base, columns, shape)
        op = last.op if last is not None and isinstance(last.op, NonlinearOp) else None
        layers.append(
            Layer(weight.to(dtype), spread.to(dtype), constant.to(dtype), op, last.name if last is not None else "")
        )
        width, shape = len(constant), last.shape if last is not None else shape
    return Chain(tuple(layers), free)


def _stretches(graph: Graph) -> list[tuple[list[Node], Node | None]] | None:
    """Linear nodes up to each nonlinear one; the last group ends in None. None: not such a chain."""
    groups: list[tuple[list[Node], Node | None]] = []
    stretch: list[Node] = []
    at = graph.input
    for node in graph.nodes:
        if node.inputs != (at,):
            return None
        at = node.name
        if isinstance(node.op, LinearOp):
            stretch.append(node)
        elif isinstance(node.op, ONE_TO_ONE):
            groups.append((stretch, node))
            stretch = []
        else:
            return None
    return [*groups, (stretch, None)] if at == graph.output else None


def _affine(
    stretch: list[Node], base: Tensor, columns: Tensor, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """W and the product of |W|, both restricted to `columns`, and the value at `base`."""
    value = base.view(1, *shape)
    basis = base.new_zeros((len(columns), len(base)))
    basis[torch.arange(len(columns)), columns] = 1.0
    moved = spread = basis.view(len(columns), *shape)
    for node in stretch:
        if isinstance(node.op, LinearOp):
            value, moved, spread = node.op(value), node.op.map(moved), node.op.absolute_map(spread)
    return moved.flatten(1).T.contiguous(), spread.flatten(1).T.contiguous(), value.flatten()
