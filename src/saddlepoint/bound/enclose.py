"""Bounds of every value of a graph and lines of every nonlinear node, for a batch of regions.

Intervals first; with `refine`, node by node, the neurons whose enclosure is loose under the bounds so far get their own
two rows (neuron and its negative), pulled back to the input; the better of both bounds stays. (crown.py says why.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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

TOGETHER = 512  # loose neurons up to which both their bounds are walked at once: fewer, larger steps

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
        first = torch.where(values[source][1] >= -values[source][0], 1.0, -1.0).to(values[source][0]).flatten(1)

        def loose() -> Tensor:
            return rule.loose(node.op, *values[source]).flatten(1)

        def minimum(pairs: Tensor, sign: Tensor) -> Tensor:
            samples, neurons = pairs.nonzero(as_tuple=True)
            return self._minimum(source, (samples, neurons), sign[pairs], (relaxations, region))

        def improve(pairs: Tensor, sign: Tensor, found: Tensor) -> None:
            # neuron ≥ min of itself, neuron ≤ −min of its negative; a comparison with NaN is false
            low, high = (t.flatten(1).clone() for t in values[source])
            rise, old_low, old_high = sign[pairs] > 0, low[pairs], high[pairs]
            low[pairs] = torch.where(rise & (found > old_low), found, old_low)
            high[pairs] = torch.where(~rise & (-found < old_high), -found, old_high)
            values[source] = (low.view(-1, *shape), high.view(-1, *shape))

        pairs = loose()
        count = int(pairs.sum())
        if count == 0:
            return
        if count > TOGETHER:
            improve(pairs, first, minimum(pairs, first))
            still = loose()
            improve(still, -first, minimum(still, -first))
            return
        sample, neuron = pairs.nonzero(as_tuple=True)
        signs = torch.cat([first[pairs], -first[pairs]])
        both = self._minimum(source, (sample.repeat(2), neuron.repeat(2)), signs, (relaxations, region))
        improve(pairs, first, both[:count])
        still = loose() & pairs
        improve(still, -first, both[count:][still[pairs]])

    def _minimum(
        self,
        source: str,
        pairs: tuple[Tensor, Tensor],
        sign: Tensor,
        known: tuple[dict[str, Relaxation], Region],
    ) -> Tensor:
        """Lower bounds (r,) of sign · neuron for pairs (sample, neuron) of one value."""
        samples, neurons = pairs
        distinct, place = torch.unique(neurons, return_inverse=True)
        hot = one_hot(distinct, self.walker.graph.shape(source), sign)
        lines = self.walker.shared(Lines({source: hot}, sign.new_zeros(len(distinct))))
        return self.walker.minimum(lines, place, samples, *known, sign)
