"""Interval bounds.

    linear node     centre c, radius r:  W c + b ± |W| r          (Gowal et al. 2018, eq. 6)
    nonlinear node  its rule's interval (monotone operators: the two ends)
    last step       C and the linear tail of the graph are multiplied out first and bounded as one map
                    (Gowal et al. 2018, §3, "eliding the last layer"), so a linear graph is exact in every norm

Cost: about two forwards per batch, and one walk of m rows through the tail. Float32, round to nearest: claims
for a checker to confirm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.bound.backward import Lines, Region, Walker
from saddlepoint.bound.base import Bounds, Proof, never_certify, specification
from saddlepoint.bound.rows import Rows
from saddlepoint.bound.rules import rule_of
from saddlepoint.core.errors import NotAvailable
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.geometry.interval import IntervalSet
from saddlepoint.graph.decompose import decompose
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import LinearOp

Interval2 = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Interval:
    """Interval bound propagation. `upper` asks for upper bounds of C f too."""

    upper: bool = False

    @property
    def name(self) -> str:
        """The method's name in evidence."""
        return "interval"

    def __call__(
        self,
        graph: Graph,
        set: PerturbationSet,
        x: Float[Tensor, "b *shape"],
        C: Float[Tensor, "b m k"] | None = None,
    ) -> Bounds:
        """lower (b, m) ≤ C f(x') on S(x)."""
        with torch.no_grad():
            graph = decompose(graph)
            wanted = specification(graph, x, C)
            walker, region = Walker(graph), region_of(set, x)
            values = propagate(graph, region)
            lower = never_certify(tail(walker, region, values, wanted))
            upper = -never_certify(tail(walker, region, values, -wanted)) if self.upper else None
        return Bounds(lower, upper, Proof({}))


def region_of(set: PerturbationSet, x: Tensor) -> Region:
    """S(x) with its enclosing box. Raises NotAvailable for sets of parameters, whose points are renderings."""
    if set.parametric:
        raise NotAvailable(
            f"{type(set).__name__} is a set of parameters; linear bounds need a set of points.",
            "Attack it, enumerate its parameters, or search it completely (the plan `complete`).",
        )
    hull = set.hull(x)
    return Region(set, x, hull.lower.to(x), hull.upper.to(x), isinstance(set, IntervalSet))


def propagate(graph: Graph, region: Region) -> dict[str, Interval2]:
    """Bounds (lower, upper) of every value."""
    values = {graph.input: (region.lower, region.upper)}
    for node in graph.nodes:
        values[node.name] = step(node, graph, [values[name] for name in node.inputs])
    return values


def step(node: Node, graph: Graph, inputs: list[Interval2]) -> Interval2:
    """Bounds of one node from those of its inputs."""
    op = node.op
    if not isinstance(op, LinearOp):
        lower, upper = inputs[0]
        return rule_of(op, node.name).interval(op, lower, upper)
    centre = op(*((lower + upper) / 2 for lower, upper in inputs))
    radius = op.absolute_map(*((upper - lower) / 2 for lower, upper in inputs))
    return centre - radius, centre + radius


def tail(walker: Walker, region: Region, values: dict[str, Interval2], wanted: Tensor) -> Tensor:
    """Lower bounds (b, m) of ⟨wanted, output⟩: the linear tail folded into C, then intervals."""
    lines, owner = start_of(walker, wanted)
    return by_intervals(lines, owner, walker.graph.input, region, values).view(wanted.shape[:2])


def start_of(walker: Walker, wanted: Tensor) -> tuple[Lines, Tensor]:
    """The rows of wanted (b, m, k), pulled through the linear tail, and the sample (b m,) of each."""
    b, m, k = wanted.shape
    start = Rows(wanted.reshape(b * m, k), walker.graph.output_shape)
    lines = walker.shared(Lines({walker.graph.output: start}, wanted.new_zeros(b * m)))
    return lines, torch.arange(b, device=wanted.device).repeat_interleave(m)


def by_intervals(lines: Lines, owner: Tensor, source: str, region: Region, values: dict[str, Interval2]) -> Tensor:
    """Lower bounds (r,) of lines from the bounds of the values that they stand on."""
    lower = lines.constant
    for name, rows in lines.rows.items():
        if name == source:
            lower = lower + region.minimum(rows, owner)
            continue
        low, high = (rows.gather(t, owner) for t in values[name])
        lower = lower + (rows.a * torch.where(rows.a > 0, low, high)).flatten(1).sum(1)
    return lower
