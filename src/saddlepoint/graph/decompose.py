"""A graph in primitives that can be bounded: the same function of real numbers, in more nodes.

    a ⊙ b, a b       Product, MatrixProduct of the joined (a, b);   x ⊙ x = x²
    a / b            a ⊙ (1 / b)
    softmax xᵢ       1 / Σⱼ e^(xⱼ − xᵢ)         each xᵢ occurs where it cancels: Σ has the exact term e⁰ = 1
    log softmax xᵢ   −log Σⱼ e^(xⱼ − xᵢ)
    layer norm       w ⊙ c ⊙ (mean c² + ε)^(−1/2) + b,   c = x − mean x
    |x|              relu x + relu (−x)
    max(a, b)        b + relu(a − b)            min(a, b) = a − relu(a − b)
    hard swish       x ⊙ clip(x + 3, 0, 6) / 6          hard sigmoid  clip(x + 3, 0, 6) / 6

Bounds, and the checker of their proofs, decompose a graph before they begin. It is deterministic, so the names of the
nodes in a proof are those of the decomposed graph; the last node of each rewrite keeps the old name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from saddlepoint.core.errors import UnsupportedOperator
from saddlepoint.graph import ops
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops_base import Op, Shape

LONGEST = 2048
"""Entries of a softmax: what `Differences` states its rounding for."""


def decompose(graph: Graph) -> Graph:
    """`graph` itself where every node is primitive already."""
    if not any(_rewrite(node) for node in graph.nodes):
        return graph
    writer = _Writer(graph)
    for node in graph.nodes:
        rewrite = _rewrite(node)
        if rewrite is None:
            writer.nodes.append(node)
        else:
            rewrite(_Site(writer, node))
    return Graph(tuple(writer.nodes), graph.input, graph.output, graph.input_shape)


@dataclass
class _Writer:
    """The nodes so far."""

    graph: Graph
    nodes: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shapes: dict[str, Shape] = {n.name: n.shape for n in self.graph.nodes}
        self.shapes[self.graph.input] = self.graph.input_shape


@dataclass(frozen=True)
class _Site:
    """One node being rewritten: `add` writes helpers, `close` the node that keeps its name."""

    writer: _Writer
    node: Node

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.node.inputs

    def shape(self, name: str) -> Shape:
        return self.writer.shapes[name]

    def add(self, op: Op, *inputs: str) -> str:
        name = f"{self.node.name}/{op.kind.lower()}"
        while name in self.writer.shapes:
            name += "'"
        return self._write(op, inputs, name)

    def close(self, op: Op, *inputs: str) -> str:
        return self._write(op, inputs, self.node.name)

    def _write(self, op: Op, inputs: tuple[str, ...], name: str) -> str:
        graph = self.writer.graph
        like = [torch.zeros((1, *self.shape(i)), dtype=graph.dtype, device=graph.device) for i in inputs]
        with torch.no_grad():
            shape = tuple(op(*like).shape[1:])
        self.writer.nodes.append(Node(name, op, inputs, shape))
        self.writer.shapes[name] = shape
        return name


def _rewrite(node: Node) -> Callable[[_Site], Any] | None:
    if isinstance(node.op, ops.Elementwise):
        return FUNCTIONS.get(node.op.function)
    return REWRITES.get(type(node.op))


def _multiply(s: _Site, a: str, b: str, finish: Callable[..., str]) -> str:
    if a == b:
        return finish(ops.Power(2.0), a)
    return finish(ops.Product(s.shape(a)), s.add(ops.Join(), a, b))


def _mul(s: _Site) -> None:
    a, b = s.inputs
    _multiply(s, a, b, s.close)


def _matmul(s: _Site) -> None:
    shapes = [s.shape(name) for name in s.inputs]
    stack = tuple(max(pair) for pair in zip(shapes[0][:-2], shapes[1][:-2], strict=True))
    wide = [(*stack, *shape[-2:]) for shape in shapes]
    a, b = (
        name if shape == whole else s.add(ops.Expand(shape, whole), name)
        for name, shape, whole in zip(s.inputs, shapes, wide, strict=True)
    )
    s.close(ops.MatrixProduct(wide[0], wide[1]), s.add(ops.Join(), a, b))


def _div(s: _Site) -> None:
    _multiply(s, s.inputs[0], s.add(ops.Elementwise("Reciprocal"), s.inputs[1]), s.close)


def _softmax(s: _Site) -> None:
    """Softmax and LogSoftmax, along the last axis; another axis is moved there and back."""
    op: Any = s.node.op
    rank, size = len(s.shape(s.inputs[0])) + 1, s.shape(s.inputs[0])[op.axis - 1]
    if size > LONGEST:
        raise UnsupportedOperator(
            f"{op.kind} over {size} entries (node {s.node.name!r}) would need {size}² differences.",
            f"Up to {LONGEST} entries are bounded.",
        )
    order = (*(i for i in range(rank) if i != op.axis), op.axis)
    last = op.axis == rank - 1
    x = s.inputs[0] if last else s.add(ops.Permute(order), s.inputs[0])
    terms = s.add(ops.Exp(), s.add(ops.Differences(), x))
    total = s.add(ops.Sum((rank,), False, s.shape(terms)), terms)
    finish = s.close if last else s.add
    if isinstance(op, ops.LogSoftmax):
        y = finish(ops.Negate(), s.add(ops.Elementwise("Log"), total))
    else:
        y = finish(ops.Elementwise("Reciprocal"), total)
    if not last:
        s.close(ops.Permute(tuple(sorted(range(rank), key=order.__getitem__))), y)


def _layer_norm(s: _Site) -> None:
    op: Any = s.node.op
    x, shape = s.inputs[0], s.shape(s.inputs[0])
    axes = tuple(range(len(shape) - op.weight.dim() + 1, len(shape) + 1))
    mean = s.add(ops.Mean(axes, True, shape), x)
    centred = s.add(ops.Sub(), x, s.add(ops.Expand(s.shape(mean), shape), mean))
    variance = s.add(ops.Mean(axes, True, shape), s.add(ops.Power(2.0), centred))
    epsilon = torch.full((1, *s.shape(variance)), op.epsilon, dtype=op.weight.dtype, device=op.weight.device)
    inverse = s.add(ops.Elementwise("Rsqrt"), s.add(ops.AddConstant(epsilon), variance))
    scaled = _multiply(s, centred, s.add(ops.Expand(s.shape(inverse), shape), inverse), s.add)
    weighted = s.add(ops.MulConstant(op.weight.unsqueeze(0)), scaled)
    s.close(ops.AddConstant(op.bias.unsqueeze(0)), weighted)


def _abs(s: _Site) -> None:
    (x,) = s.inputs
    s.close(ops.Add(), s.add(ops.Relu(), x), s.add(ops.Relu(), s.add(ops.Negate(), x)))


def _maximum(s: _Site) -> None:
    a, b = s.inputs
    s.close(ops.Add(), b, s.add(ops.Relu(), s.add(ops.Sub(), a, b)))


def _minimum(s: _Site) -> None:
    a, b = s.inputs
    s.close(ops.Sub(), a, s.add(ops.Relu(), s.add(ops.Sub(), a, b)))


def _six(s: _Site) -> str:
    (x,) = s.inputs
    three = torch.full((1, *s.shape(x)), 3.0, dtype=s.writer.graph.dtype, device=s.writer.graph.device)
    return s.add(ops.Clip(0.0, 6.0), s.add(ops.AddConstant(three), x))


def _hard_sigmoid(s: _Site) -> None:
    gate = _six(s)
    s.close(ops.DivConstant(torch.full((1,) * (len(s.shape(gate)) + 1), 6.0, dtype=s.writer.graph.dtype)), gate)


def _hard_swish(s: _Site) -> None:
    product = _multiply(s, s.inputs[0], _six(s), s.add)
    s.close(ops.DivConstant(torch.full((1,) * (len(s.shape(product)) + 1), 6.0, dtype=s.writer.graph.dtype)), product)


REWRITES: dict[type[Any], Callable[[_Site], Any]] = {
    ops.Abs: _abs,
    ops.Div: _div,
    ops.LayerNorm: _layer_norm,
    ops.LogSoftmax: _softmax,
    ops.MatMul: _matmul,
    ops.Maximum: _maximum,
    ops.Minimum: _minimum,
    ops.Mul: _mul,
    ops.Softmax: _softmax,
}
FUNCTIONS: dict[str, Callable[[_Site], Any]] = {"HardSigmoid": _hard_sigmoid, "HardSwish": _hard_swish}
