"""One backward walk for a batch of domains, and the forward walk that is its gradient.

    down   a (r, …) from a value to the input through the lines of r domains; at a site, on free entries
           a ↦ a⁺ a_L + a⁻ a_U,  c ↦ c + a⁺ b_L + a⁻ b_U,  then + σ β (v − t) for its splits (σ = ±1: v ≤ t, v ≥ t)
    up     from the minimiser x* of ⟨a₀, x⟩ on the box, forward through the lines that were used: v̂ at every site

The bound g = ⟨a₀, x*⟩ + c is concave in β, and by the chain rule along the walk (x* held, Danskin)

    ∂g/∂a_L = a⁺ v̂,   ∂g/∂b_L = a⁺,   ∂g/∂a_U = a⁻ v̂,   ∂g/∂b_U = a⁻,   ∂g/∂β = σ (v̂ − t)

so a gradient costs one forward pass and no tape. (Wang et al. 2021, beta-CROWN, arXiv 2103.06624, Theorem 3.1 for β.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.bound.rules import Elementwise
from saddlepoint.bound.search.sites import Site, Sites
from saddlepoint.graph.ir import Graph
from saddlepoint.graph.ops import LinearOp
from saddlepoint.graph.transpose import transpose


@dataclass(frozen=True)
class Start:
    """Rows to bound: coefficients (r, n) by value name (flat), and a constant (r,)."""

    rows: Mapping[str, Tensor]
    constant: Tensor


@dataclass(frozen=True)
class Splits:
    """Multipliers of a batch: signed β (r, F), > 0 for v ≤ t, and thresholds t (r, F) or None where all are 0."""

    signed: Tensor
    threshold: Tensor | None


@dataclass(frozen=True)
class Walked:
    """⟨a, x⟩ + c on the input, a (r, d), and per site the coefficients (r, f) on its free entries and rows' signs."""

    a: Tensor
    c: Tensor
    at: dict[str, Tensor]

    def corner(self, lower: Tensor, upper: Tensor) -> Tensor:
        """x* (r, d) on boxes (1 or r, d)."""
        return torch.where(self.a > 0, lower, upper)

    def minimum(self, lower: Tensor, upper: Tensor) -> Tensor:
        """(r,)."""
        middle, radius = (lower + upper) / 2, (upper - lower) / 2
        if middle.shape[0] == 1:
            return self.a @ middle[0] - self.a.abs() @ radius[0] + self.c
        return (self.a * middle - self.a.abs() * radius).sum(1) + self.c


def constants(graph: Graph) -> dict[str, Tensor | None]:
    """Constants of the linear nodes, (1, *shape)."""
    like = torch.empty(0, dtype=graph.dtype)
    linear = [(node, node.op) for node in graph.nodes if isinstance(node.op, LinearOp)]
    return {node.name: op.constant(graph.in_shapes(node), like) for node, op in linear}


@dataclass(frozen=True)
class Walk:
    """Walks on one graph with sites; `fixed` are the linear nodes' constants."""

    sites: Sites
    fixed: Mapping[str, Tensor | None]

    def lines(self, lower: Tensor, upper: Tensor, choice: Tensor) -> dict[str, Elementwise]:
        """Lines of every site's free entries for batch arrays (r, F)."""
        return {
            s.node.name: s.lines(lower[:, s.columns], upper[:, s.columns], choice[:, s.columns])
            for s in self.sites.sites
        }

    def down(self, start: Start, lines: Mapping[str, Elementwise], splits: Splits | None = None) -> Walked:
        """To the input."""
        graph, by_node = self.sites.graph, self.sites.by_node
        count = len(start.constant)
        pending = {name: a.view(count, *graph.shape(name)) for name, a in start.rows.items()}
        constant, at = start.constant, {}
        for node in reversed(graph.nodes):
            if node.name not in pending:
                continue
            a = pending.pop(node.name)
            if isinstance(node.op, LinearOp):
                c = self.fixed[node.name]
                if c is not None:
                    constant = constant + a.flatten(1) @ c.flatten()
                pulled = transpose(node.op, a, graph.in_shapes(node))
            else:
                site = by_node[node.name]
                flat, gained, free = _pull(site, a.flatten(1), lines[node.name])
                constant, at[node.name] = constant + gained, free
                if splits is not None:
                    signed = splits.signed[:, site.columns]
                    flat[:, site.free] += signed
                    if splits.threshold is not None:
                        constant = constant - (signed * splits.threshold[:, site.columns]).sum(1)
                pulled = (flat.view(count, *graph.in_shapes(node)[0]),)
            for name, part in zip(node.inputs, pulled, strict=True):
                pending[name] = pending[name] + part if name in pending else part
        return Walked(pending[graph.input].flatten(1), constant, at)

    def up(self, walked: Walked, x: Tensor, lines: Mapping[str, Elementwise], last: str) -> Tensor:
        """v̂ (r, F) on the free entries of every site up to value `last`; 0 at sites the walk did not meet."""
        graph, by_node = self.sites.graph, self.sites.by_node
        values = {graph.input: x.view(len(x), *graph.input_shape)}
        found = x.new_zeros((len(x), len(self.sites.lower)))
        if last == graph.input:
            return found
        for node in graph.nodes:
            if any(name not in values for name in node.inputs):
                continue
            inputs = [values[name] for name in node.inputs]
            if isinstance(node.op, LinearOp):
                c = self.fixed[node.name]
                y = node.op.map(*inputs)
                values[node.name] = y if c is None else y + c
            elif node.name in walked.at:
                site = by_node[node.name]
                v = inputs[0].flatten(1)
                free = v[:, site.free]
                found[:, site.columns] = free
                values[node.name] = _forward(site, v, free, walked.at[node.name], lines[node.name]).view(
                    inputs[0].shape
                )
            if node.name == last:
                break
        return found


def _pull(site: Site, a: Tensor, lines: Elementwise) -> tuple[Tensor, Tensor, Tensor]:
    """Through one site: rows on its source (r, n), what the constant gains, and the rows' free entries."""
    free = a[:, site.free]
    negative = free.clamp_max(0)
    gained = (negative * lines.upper_constant).sum(1)
    if lines.lower_constant is not None:
        gained = gained + ((free - negative) * lines.lower_constant).sum(1)
    if site.constant is not None:
        gained = gained + a @ site.constant
    out = a * site.slope
    out[:, site.free] = torch.where(free > 0, lines.lower_slope, lines.upper_slope) * free
    return out, gained, free


def _forward(site: Site, v: Tensor, free: Tensor, a: Tensor, lines: Elementwise) -> Tensor:
    """The lines that the walk used, evaluated at v."""
    out = v * site.slope
    if site.constant is not None:
        out = out + site.constant
    up = a > 0
    slope = torch.where(up, lines.lower_slope, lines.upper_slope)
    floor = torch.zeros((), dtype=v.dtype) if lines.lower_constant is None else lines.lower_constant
    out[:, site.free] = slope * free + torch.where(up, floor, lines.upper_constant)
    return out
