"""Bounds of every value of a graph and lines of every nonlinear node, for a batch of regions.

Intervals first; with `refine`, node by node, the neurons whose enclosure is loose under the bounds so far get their own
two rows (neuron and its negative), pulled back to the input; the better of both bounds stays. (crown.py says why.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from saddlepoint.bound.backward import Lines, Region, Walker
from saddlepoint.bound.interval import Interval2, step
from saddlepoint.bound.rows import one_hot
from saddlepoint.bound.rules import Relaxation, Rule, rule_of
from saddlepoint.bound.rules.ramp import ramp
from saddlepoint.graph.ir import Node
from saddlepoint.graph.ops import LinearOp

TILES = 8  # a node of H × W places is cut into at most TILES² tiles, whose rows share one window
WORTH = 64  # rows that make a tile worth its own walk

Choose = Callable[[Rule, Any, Tensor, Tensor], Tensor | None]


def by_rule(rule: Rule, op: Any, lower: Tensor, upper: Tensor) -> Tensor | None:
    """The rule's own choice."""
    return rule.choose(op, lower, upper)


def by_ramp(rule: Rule, op: Any, lower: Tensor, upper: Tensor) -> Tensor | None:
    """The continuous default of certificates, where the rule has a choice at all."""
    chosen = rule.choose(op, lower, upper)
    if chosen is None or chosen.shape != lower.shape:
        return chosen  # products: one number per output
    return ramp(op, lower, upper)


@dataclass(frozen=True)
class Encloser:
    """Encloses one graph; `choose` places the lower lines."""

    walker: Walker
    choose: Choose = by_rule

    def enclose(
        self, region: Region, *, refine: bool
    ) -> tuple[dict[str, Interval2], dict[str, Relaxation], dict[str, Tensor]]:
        """Bounds of every value, lines of every nonlinear node, and the choices of their lower slopes."""
        graph = self.walker.graph
        values: dict[str, Interval2] = {graph.input: (region.lower, region.upper)}
        relaxations: dict[str, Relaxation] = {}
        choices: dict[str, Tensor] = {}
        done: set[str] = set()  # two nodes may read one value
        for node in graph.nodes:
            if not isinstance(node.op, LinearOp):
                rule, source = rule_of(node.op, node.name), node.inputs[0]
                if refine and source not in done and self._improvable(source, region):
                    done.add(source)
                    self._refine(node, rule, values, relaxations, region)
                choice = self.choose(rule, node.op, *values[source])
                if choice is not None:
                    choices[f"lower/{node.name}"] = choice
                relaxations[node.name] = rule.relax(node.op, *values[source], choice)
            values[node.name] = step(node, graph, [values[name] for name in node.inputs])
        return values, relaxations, choices

    def _improvable(self, source: str, region: Region) -> bool:
        """Whether a backward pass can beat the interval: not on the input, nor one linear map from a box."""
        graph = self.walker.graph
        if source == graph.input:
            return False
        node = graph.node(source)
        return not (region.boxed and isinstance(node.op, LinearOp) and node.inputs == (graph.input,))

    def _refine(
        self,
        node: Node,
        rule: Rule,
        values: dict[str, Interval2],
        relaxations: dict[str, Relaxation],
        region: Region,
    ) -> None:
        """Tighten the input of `node` where its enclosure is loose: first the bound nearer to 0, as that may settle
        a ReLU; then, where it did not, the other one. The better of old and new stays."""
        source = node.inputs[0]
        shape = self.walker.graph.shape(source)
        lower, upper = (t.flatten(1).clone() for t in values[source])
        raise_lower = upper >= -lower
        for turn in (raise_lower, ~raise_lower):
            loose = rule.loose(node.op, *values[source])
            for samples, neurons in _tiles(loose, shape):
                distinct, place = torch.unique(neurons, return_inverse=True)
                hot = one_hot(distinct, shape, lower)
                both = replace(hot, a=torch.cat([hot.a, -hot.a]))
                raising = turn[samples, neurons]
                lines = self.walker.shared(Lines({source: both}, lower.new_zeros(2 * len(distinct))))
                place = torch.where(raising, place, place + len(distinct))
                found = self.walker.minimum(lines, place, samples, relaxations, region)
                # neuron ≥ min of itself, neuron ≤ −min of its negative; a comparison with NaN is false
                low, high = lower[samples, neurons], upper[samples, neurons]
                lower[samples, neurons] = torch.where(raising & (found > low), found, low)
                upper[samples, neurons] = torch.where(~raising & (-found < high), -found, high)
            values[source] = (lower.view(-1, *shape), upper.view(-1, *shape))


def _tiles(loose: Tensor, shape: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """(sample, neuron) pairs of the loose neurons, grouped by the tile of H × W that they lie in."""
    samples, neurons = loose.flatten(1).nonzero(as_tuple=True)
    if len(shape) != 3:
        return [(samples, neurons)] if len(samples) else []
    height, width = shape[1:]
    per_side = min(TILES, max(1, math.isqrt(len(samples) // WORTH)))
    place = neurons % (height * width)
    row, column = (place // width) * per_side // height, (place % width) * per_side // width
    tile = row * per_side + column
    order = torch.argsort(tile, stable=True)
    sizes = torch.bincount(tile).tolist()
    groups = zip(samples[order].split(sizes), neurons[order].split(sizes), strict=True)
    return [(s, n) for s, n in groups if len(s)]
