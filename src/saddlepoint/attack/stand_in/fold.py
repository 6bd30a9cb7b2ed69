"""The same function in fewer operations: a graph rewritten for being called and differentiated many times.

    W x + b, then s ⊙ · + t      =  (s ⊙ W) x + (s ⊙ b + t)           batch norm, affine form, after conv or linear
    s ⊙ x + t, then W x + b      =  (W ⊙ s) x + (W t + b)             before a conv: t ≠ 0 only without zero padding
    maxpool(relu(x))             =  relu(maxpool(x))                  a quarter of the work for a 2 × 2 pool

Equal in exact arithmetic; in floating point the rounding differs, so margins from a folded graph are provisional and
a verdict is read from the deployed model. Weights are combined in float64 and rounded once. The given graph is left
as it is: every operator that changes is a new value.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import (
    AddConstant,
    BatchNorm,
    Conv2d,
    DivConstant,
    Linear,
    MaxPool2d,
    MulConstant,
    Op,
    Relu,
    Shape,
)


def fold(graph: Graph) -> Graph:
    """The graph with every rewriting above applied until none applies any more."""
    rewritten: Graph | None = graph
    while rewritten is not None:
        graph, rewritten = rewritten, _rewrite_once(rewritten)
    return graph


def _rewrite_once(graph: Graph) -> Graph | None:
    """The first pair of neighbours that can be joined or swapped, done; None where there is none."""
    readers: dict[str, int] = {graph.output: 1}
    for node in graph.nodes:
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
    known = {node.name: node for node in graph.nodes}
    for second in graph.nodes:
        first = known.get(second.inputs[0]) if len(second.inputs) == 1 else None
        if first is None or len(first.inputs) != 1 or readers[first.name] != 1:
            continue
        if isinstance(first.op, Relu) and isinstance(second.op, MaxPool2d):
            return _replaced(graph, first, second, None)
        joined = _joined(first, second, graph.shape(first.inputs[0]))
        if joined is not None:
            return _replaced(graph, first, second, joined)
    return None


def _replaced(graph: Graph, first: Node, second: Node, by: Op | None) -> Graph:
    """One node in place of the two; without one, the two in the other order."""
    if by is None:
        pair = (replace(first, op=second.op, shape=second.shape), replace(second, op=first.op))
    else:
        pair = (replace(second, op=by, inputs=first.inputs),)
    nodes = []
    for node in graph.nodes:
        if node is second:
            nodes.extend(pair)
        elif node is not first:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _joined(first: Node, second: Node, shape: Shape) -> Op | None:
    """One operator for `second` after `first`, or None."""
    if isinstance(first.op, Conv2d | Linear):
        affine = _affine(second.op, first.shape)
        return None if affine is None else _after(first.op, first.shape, *affine)
    if isinstance(second.op, Conv2d):
        affine = _affine(first.op, shape)
        return None if affine is None else _before(second.op, *affine)
    return None


def _affine(op: Op, shape: Shape) -> tuple[Tensor, Tensor] | None:
    """(s, t), float64, with op(x) = s ⊙ x + t per channel (the first axis of `shape`); None for another operator."""
    if isinstance(op, BatchNorm):
        scale = op.weight.double() / torch.sqrt(op.variance.double() + op.epsilon)
        return scale, op.bias.double() - op.mean.double() * scale
    if not isinstance(op, AddConstant | MulConstant | DivConstant):
        return None
    per_channel = (1, shape[0], *[1] * (len(shape) - 1))
    if op.value.dim() > len(per_channel) or not op.value.is_floating_point():
        return None
    value = op.value.reshape([1] * (len(per_channel) - op.value.dim()) + list(op.value.shape))
    if any(have not in (1, want) for have, want in zip(value.shape, per_channel, strict=True)):
        return None
    value = value.double().expand(per_channel).reshape(-1)
    if isinstance(op, AddConstant):
        return torch.ones_like(value), value
    return (value if isinstance(op, MulConstant) else 1 / value), torch.zeros_like(value)


def _after(op: Conv2d | Linear, shape: Shape, scale: Tensor, shift: Tensor) -> Op | None:
    """scale ⊙ op + shift. A linear layer's channels are its last axis: only vectors (N, C) have them first."""
    if isinstance(op, Linear) and len(shape) != 1:
        return None
    weight = op.weight.double() * scale.reshape(-1, *[1] * (op.weight.dim() - 1))
    bias = shift if op.bias is None else op.bias.double() * scale + shift
    return replace(op, weight=weight.to(op.weight), bias=bias.to(op.weight))


def _before(op: Conv2d, scale: Tensor, shift: Tensor) -> Op | None:
    """op(scale ⊙ x + shift); a shift would also move the zeros of the padding, so it stays where there are some."""
    if op.groups != 1 or (bool((shift != 0).any()) and op.padding != (0, 0)):
        return None
    wide = op.weight.double()
    bias = (wide * shift.reshape(1, -1, 1, 1)).sum(dim=(1, 2, 3))
    if op.bias is not None:
        bias = bias + op.bias.double()
    weight = wide * scale.reshape(1, -1, 1, 1)
    return replace(op, weight=weight.to(op.weight), bias=bias.to(op.weight))
