"""Leaving out a last layer that moves no margin.

    log softmax(z)_k = z_k − log Σ_j e^{z_j}      the same number is taken from every class of a row,
    log σ(z) − log σ(−z) = z                      so z_y − max_{j≠y} z_j is the margin of log p as well.

Bounds need the network without that layer (softmax has no linear relaxation worth its name), and its
gradients do not saturate.
"""

from __future__ import annotations

from dataclasses import replace

from saddlepoint.adapters.outputs import Outputs
from saddlepoint.graph.ir import Graph
from saddlepoint.graph.ops_nonlinear import LogSoftmax, Sigmoid, Softmax


def without_tail(graph: Graph, outputs: Outputs) -> tuple[Graph, Outputs] | None:
    """The graph before its final softmax, log-softmax or sigmoid, and what it gives; None if it ends otherwise."""
    if graph.output == graph.input:
        return None
    last = graph.node(graph.output)
    over_classes = isinstance(last.op, (Softmax, LogSoftmax)) and last.op.axis in (-1, 1) and len(last.shape) == 1
    shift_free = {Outputs.PROBABILITIES: Softmax, Outputs.LOGITS: LogSoftmax}.get(outputs)
    if over_classes and shift_free is not None and isinstance(last.op, shift_free):
        left = Outputs.LOGITS
    elif isinstance(last.op, Sigmoid) and outputs is Outputs.ONE_PROBABILITY:
        left = Outputs.ONE_LOGIT
    else:
        return None
    before = last.inputs[0]
    if before == graph.input or any(last.name in n.inputs for n in graph.nodes):
        return None
    nodes = tuple(n for n in graph.nodes if n.name != last.name)
    return replace(graph, nodes=nodes, output=before), left
