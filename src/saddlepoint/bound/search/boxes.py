"""CROWN for many boxes at once on a chain (chain.py).

Rows of a layer start as one matrix for every box, so the first pull is one product for the whole batch; after it a
batch is (box, row, neuron) and needs no gathering. Only neurons that are loose in some box get rows, one for each
side. Bounds are intervals cut with those backward passes (Zhang et al. 2018, Theorem 3.2), in a box only where it needs
them: lines from tighter bounds may be looser, so a certificate's checker must know what was used (spec/certificate.py).

Cost per box: Σ_k 2 · (loose neurons of layer k) · Σ_{j<k} n_j n_{j−1} products.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.bound.rules import Elementwise, Rule, rule_of
from saddlepoint.bound.rules.ramp import ramp
from saddlepoint.bound.search.chain import Chain, Layer
from saddlepoint.core.errors import UnsupportedOperator
from saddlepoint.graph.ops import NonlinearOp


@dataclass(frozen=True)
class Line:
    """⟨a, x⟩ + c, a (b, r, d) on the free inputs, c (b, r): a lower bound of each row on each box.

    strain (b, d) or None: which inputs the relaxation's error comes from.
    """

    a: Tensor
    c: Tensor
    strain: Tensor | None = None

    def minimum(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Over boxes (b, d): (b, r)."""
        centre, radius = (lower + upper) / 2, (upper - lower) / 2
        return _dots(self.a, centre) + self.c - _dots(self.a.abs(), radius)


def bound_boxes(chain: Chain, lower: Tensor, upper: Tensor, rows: Tensor) -> Line:
    """Lines below ⟨rows_r, output⟩ for rows (r, k), on each of the boxes (b, d)."""
    below: list[Elementwise] = []
    widths: list[Tensor] = []
    ends = (lower, upper)
    for k, layer in enumerate(chain.layers[:-1]):
        low, high = _interval(layer, *ends)
        rule = rule_of(_op(layer), layer.node)
        if k > 0:
            loose = rule.loose(layer.op, low, high).any(0).nonzero().flatten()
            if len(loose):
                w, c = layer.weight.index_select(0, loose), layer.constant.index_select(0, loose)
                found = _walk(chain, k, torch.cat([w, -w]), torch.cat([c, -c]), below).minimum(lower, upper)
                better = found[:, : len(loose)], -found[:, len(loose) :]
                mine = _cut(rule, _op(layer), (low.index_select(1, loose), high.index_select(1, loose)), better)
                low, high = low.index_copy(1, loose, mine[0]), high.index_copy(1, loose, mine[1])
        below.append(_relax(layer, low, high))
        widths.append(_width(below[-1], low, high))
        ends = rule.interval(layer.op, low, high)
    last = chain.layers[-1]
    met: list[Tensor] = []
    line = _walk(chain, len(chain.layers) - 1, rows @ last.weight, rows @ last.constant, below, met)
    # without a nonlinear layer the line is one for all boxes
    a, c = line.a.expand(len(lower), -1, -1), line.c.expand(len(lower), -1)
    return Line(a, c, _strain(chain, met[::-1], widths))


def _width(lines: Elementwise, low: Tensor, high: Tensor) -> Tensor:
    """The largest distance of the two lines, which is at an end of the interval."""
    slope, constant = lines.upper_slope - lines.lower_slope, lines.upper_constant
    if lines.lower_constant is not None:
        constant = constant - lines.lower_constant
    return torch.maximum((slope * low + constant).abs(), (slope * high + constant).abs())


def _strain(chain: Chain, met: list[Tensor], widths: list[Tensor]) -> Tensor | None:
    """Every neuron's error |a| · width, handed down to what it reads in proportion to |W|: (b, d) on the inputs."""
    carried: Tensor | None = None
    for layer, a, width in reversed(list(zip(chain.layers, met, widths, strict=False))):
        error = a.abs().amax(1) * width
        error = error if carried is None else error + carried
        share = layer.weight.abs()
        carried = error @ (share / share.sum(1, keepdim=True).clamp_min(torch.finfo(share.dtype).tiny))
    return carried


def _cut(
    rule: Rule, op: NonlinearOp, old: tuple[Tensor, Tensor], better: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Loose entries get their side nearer to 0, then, where they stay loose, the other."""
    upper_first = old[1] < -old[0]
    low, high = old
    for upper in (upper_first, ~upper_first):
        loose = rule.loose(op, low, high)
        # torch.fmax keeps the old bound where a backward pass gave NaN
        low = torch.where(loose & ~upper, torch.fmax(low, better[0]), low)
        high = torch.where(loose & upper, torch.fmin(high, better[1]), high)
    return low, high


def _op(layer: Layer) -> NonlinearOp:
    if layer.op is None:
        raise UnsupportedOperator("an inner layer of the chain has no function.", "Build chains with chain_of.")
    return layer.op


def _relax(layer: Layer, low: Tensor, high: Tensor) -> Elementwise:
    op = _op(layer)
    relaxed = rule_of(op, layer.node).relax(op, low, high, ramp(op, low, high))
    if not isinstance(relaxed, Elementwise):
        raise UnsupportedOperator(f"the lines of {op.kind} (node {layer.node!r}) are not elementwise.")
    return relaxed


def _interval(layer: Layer, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and radius: W c + b ± spread · r."""
    middle = torch.nn.functional.linear((lower + upper) / 2, layer.weight, layer.constant)
    radius = torch.nn.functional.linear((upper - lower) / 2, layer.spread)
    return middle - radius, middle + radius


def _walk(
    chain: Chain, k: int, start: Tensor, constant: Tensor, below: list[Elementwise], met: list[Tensor] | None = None
) -> Line:
    """Rows `start` (r, n) on h_{k−1}, the same for every box, down to the input. `met` collects them per layer."""
    a, c = start.unsqueeze(0), constant.unsqueeze(0)
    for layer, lines in zip(reversed(chain.layers[:k]), reversed(below[:k]), strict=True):
        if met is not None:
            met.append(a)
        negative = a.clamp_max(0)
        # ⟨a⁻, h⟩ ≥ ⟨a⁻, a_U v + b_U⟩,   ⟨a⁺, h⟩ ≥ ⟨a⁺, a_L v + b_L⟩
        c = c + _dots(negative, lines.upper_constant)
        if lines.lower_constant is not None:
            c = c + _dots(a - negative, lines.lower_constant)
        slope = lines.lower_slope.unsqueeze(1)
        a = torch.addcmul(a * slope, negative, lines.upper_slope.unsqueeze(1) - slope)
        c = c + a @ layer.constant
        b, r, n = a.shape
        a = (a.view(b * r, n) @ layer.weight).view(b, r, layer.weight.shape[1])
    if a.shape[0] == 1 and below:
        a = a.expand(len(below[0].upper_slope), -1, -1)
    return Line(a, c)


def _dots(a: Tensor, values: Tensor) -> Tensor:
    """Σ_n a[b, r, n] values[b, n]; a may be one for all boxes."""
    if a.shape[0] == 1:
        return values @ a[0].T
    return torch.bmm(values.unsqueeze(1), a.transpose(1, 2)).squeeze(1)  # many times faster than a @ values
