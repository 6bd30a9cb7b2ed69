"""Sorted pairs in a graph (GroupSort of groups of two), read as one operator.

    cat(max(a, b), min(a, b)),   a and b disjoint parts of one value v:   ‖out − out'‖_p ≤ ‖v − v'‖_p   for every p

At each point the map is a permutation of the entries of (a, b), it is continuous and piecewise linear, and a
permutation keeps every norm (Anil, Lucas, Grosse, ICML 2019, §4). Bounded operator by operator, max and min would
each get the constant of v, and their concatenation √2 times it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import Concat, LinearOp, Maximum, Minimum
from saddlepoint.graph.ops_base import CopyOp, NonlinearOp, Shape


@dataclass(frozen=True, eq=False)
class SortedPairs(NonlinearOp):
    """cat(max(first, second), min(first, second)) of two parts of x, or the smaller ones first."""

    first: CopyOp
    second: CopyOp
    axis: int
    smaller_first: bool = False

    def __call__(self, *xs: Tensor) -> Tensor:
        a, b = self.first(xs[0]), self.second(xs[0])
        pair = torch.maximum(a, b), torch.minimum(a, b)
        return torch.cat(pair[::-1] if self.smaller_first else pair, dim=self.axis)


def join_sorted_pairs(graph: Graph) -> Graph:
    """The same function with every such group of five nodes as one; `graph` itself where there is none."""
    nodes = {node.name: node for node in graph.nodes}
    shapes = {graph.input: graph.input_shape} | {name: node.shape for name, node in nodes.items()}
    joined = {name: found for name, node in nodes.items() if (found := _match(node, nodes, shapes)) is not None}
    if not joined:
        return graph
    needed, kept = {graph.output}, []
    for node in reversed(graph.nodes):
        if node.name in needed:
            new = joined.get(node.name, node)
            needed.update(new.inputs)
            kept.append(new)
    return replace(graph, nodes=tuple(reversed(kept)))


def _match(node: Node, nodes: dict[str, Node], shapes: dict[str, Shape]) -> Node | None:
    """The node that stands for this concatenation, if it is one of sorted pairs."""
    if not isinstance(node.op, Concat) or len(node.inputs) != 2:
        return None
    halves = [nodes.get(name) for name in node.inputs]
    if halves[0] is None or halves[1] is None or set(halves[0].inputs) != set(halves[1].inputs):
        return None
    kinds = [type(half.op) for half in halves if half is not None]
    if set(kinds) != {Maximum, Minimum}:
        return None
    parts = [nodes.get(name) for name in halves[0].inputs]
    ops = [part.op for part in parts if part is not None and isinstance(part.op, CopyOp) and len(part.inputs) == 1]
    sources = {part.inputs for part in parts if part is not None}
    if len(ops) != 2 or len(sources) != 1:
        return None
    (source,) = sources
    if not _disjoint([op for op in ops if isinstance(op, CopyOp)], shapes[source[0]]):
        return None
    first, second = ops
    op = SortedPairs(first, second, node.op.axis, kinds[0] is Minimum)  # type: ignore[arg-type]
    return Node(node.name, op, source, node.shape)


def _disjoint(ops: list[CopyOp], shape: Shape) -> bool:
    """Whether no entry is read twice, and every output is an entry (padding would give zeros)."""
    numbers = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64).view(1, *shape)
    read = torch.cat([LinearOp.__call__(op, numbers).flatten() for op in ops])
    return bool((read > 0).all()) and len(read.unique()) == len(read)
