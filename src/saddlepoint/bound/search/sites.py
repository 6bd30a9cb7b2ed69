"""Where a graph bends: its elementwise nonlinear nodes, and the few entries of each that are not yet one line.

Under the root's bounds most entries of a ReLU layer are stable: one line, the same in every domain below. What differs
between domains lives on the other, *free* entries, so a batch of domains is a handful of (domain, free entry) arrays,
the sites one after another.

    exact entry   y = slope v + constant            free entry   l ≤ v ≤ u, lines from the node's rule
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.bound.interval import Interval2
from saddlepoint.bound.rules import Elementwise, rule_of
from saddlepoint.bound.rules.ramp import ramp
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import LeakyRelu, LinearOp, NonlinearOp, Relu


@dataclass(frozen=True)
class Site:
    """One nonlinear node. index, source_index: numbers of its value and of what it reads (spec/certificate.py).

    free int64 (f,): its free entries, at columns start … start + f of the batch arrays. slope, constant (n,) of the
    exact entries, 0 at free ones.
    """

    node: Node
    index: int
    source_index: int
    free: Tensor
    start: int
    slope: Tensor
    constant: Tensor | None

    @property
    def columns(self) -> slice:
        """Its part of the batch arrays."""
        return slice(self.start, self.start + len(self.free))

    @property
    def op(self) -> NonlinearOp:
        """The node's function."""
        op: NonlinearOp = self.node.op  # type: ignore[assignment]
        return op

    @property
    def bent(self) -> float | None:
        """s of max(v, s v), None for other functions."""
        return self.op.slope if isinstance(self.op, LeakyRelu) else 0.0 if isinstance(self.op, Relu) else None

    def lines(self, lower: Tensor, upper: Tensor, choice: Tensor) -> Elementwise:
        """Lines of the free entries for bounds and choices (r, f)."""
        relaxed = rule_of(self.op, self.node.name).relax(self.op, lower, upper, choice)
        if not isinstance(relaxed, Elementwise):
            raise TypeError(f"{type(relaxed).__name__} is not elementwise")  # sites_of admits no such rule
        return relaxed


@dataclass(frozen=True)
class Sites:
    """All sites in the graph's order, with the root's bounds of the free entries, (F,) each."""

    graph: Graph
    sites: tuple[Site, ...]
    lower: Tensor
    upper: Tensor

    @property
    def by_node(self) -> dict[str, Site]:
        """Sites by the name of their node."""
        return {site.node.name: site for site in self.sites}

    @property
    def default(self) -> Tensor:
        """The ramp under the root's bounds, (F,)."""
        return self.ramp(self.lower, self.upper)

    def ramp(self, lower: Tensor, upper: Tensor) -> Tensor:
        """The default choices for bounds (…, F)."""
        parts = [ramp(s.op, lower[..., s.columns], upper[..., s.columns]) for s in self.sites]
        return torch.cat(parts, -1) if parts else lower

    def before(self, value: int) -> tuple[Site, ...]:
        """Sites whose node comes before a value."""
        return tuple(site for site in self.sites if site.index < value)


def sites_of(graph: Graph, values: Mapping[str, Interval2]) -> Sites | None:
    """Sites under bounds (1, *shape) of every value; None if a nonlinear node is not elementwise."""
    found, lowers, uppers, start = [], [], [], 0
    number = {graph.input: 0} | {node.name: i for i, node in enumerate(graph.nodes, start=1)}
    for node in graph.nodes:
        if isinstance(node.op, LinearOp):
            continue
        (source, *more) = node.inputs
        if more:
            return None
        rule, (low, high) = rule_of(node.op, node.name), values[source]
        choice = rule.choose(node.op, low, high)
        lines = rule.relax(node.op, low, high, choice)
        if not isinstance(lines, Elementwise):
            return None
        open_ = rule.loose(node.op, low, high) | (lines.lower_slope != lines.upper_slope)
        floor = 0.0 if lines.lower_constant is None else lines.lower_constant
        free = (open_ | (lines.upper_constant != floor)).flatten().nonzero().flatten()
        slope, constant = lines.upper_slope.flatten().clone(), lines.upper_constant.flatten().clone()
        slope[free], constant[free] = 0.0, 0.0
        some = constant if bool((constant != 0).any()) else None
        found.append(Site(node, number[node.name], number[source], free, start, slope, some))
        lowers.append(low.flatten()[free])
        uppers.append(high.flatten()[free])
        start += len(free)
    empty = torch.zeros(0, dtype=graph.dtype)
    return Sites(graph, tuple(found), torch.cat([empty, *lowers]), torch.cat([empty, *uppers]))
