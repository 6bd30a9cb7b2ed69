"""Training with Wong and Kolter's dual bound (ICML 2018, Theorem 2), exact or with random projections (Wong, Schmidt,
Metzen & Kolter, NeurIPS 2018, "Scaling Provable Adversarial Defenses", §3.2).

    log(1 + Σ_{j ≠ y} e^(−l_j)),      l the dual bound of z_y − z_j over S(x)      (bound/wong_kolter.py)

What the dual needs are l, u of each ReLU's input. Exactly they cost one row per neuron. The bound's lines have one
slope per ReLU, so all x' in a box centre ± r and all relaxed ReLUs map to an affine image of a cube:

    value in  c ± ‖M‖₁ by row:   start M = diag(r);   linear W: c ← W c + b, M ← W M
    ReLU with D, w = −D l on unstable units:   c ← D c + w/2,   M ← [D M, diag(w/2)]

A row's ℓ₁ norm is estimated from k Cauchy projections (Li, Hastie & Church 2007): every entry of M R, R standard
Cauchy, is ‖M_j‖₁ times a Cauchy number, whose absolute value has median 1. That costs k forwards instead of one row per
neuron, and makes the loss an *estimate* of a bound; it is for training, and nothing is claimed by it.
The projections of a batch are keyed by its first row. `projections` = 0 is the exact bound, for small networks.
Cost of a step: two forwards, k more (or a row per neuron), and K − 1 rows; backward through all of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.bound.backward import Region
from saddlepoint.bound.interval import Interval2, region_of, step
from saddlepoint.bound.wong_kolter import Dual, share
from saddlepoint.core.errors import InputError, UnsupportedOperator
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import PerturbationSet
from saddlepoint.graph.ir import Graph
from saddlepoint.graph.ops import LinearOp, Relu
from saddlepoint.training.adversarial import shrunk
from saddlepoint.training.certified.passes import check_share, clean_pass, ramp, robust_cross_entropy

Sketch = Float[Tensor, "k b *shape"]


@dataclass(frozen=True)
class DualLoss:
    """`projections`: k, or 0 for exact layer bounds; `kappa`: the clean loss' final share (the paper: 0)."""

    exact: ClassVar[bool] = True
    set: PerturbationSet
    projections: int = 50
    kappa: float = 0.0
    fraction: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        check_share("kappa", self.kappa)
        if self.projections < 0:
            raise InputError(f"{self.projections} random projections.", "Give 0 for exact bounds, or about 50.")

    def at(self, fraction: Fraction) -> DualLoss:
        """With the set at `fraction` of its size."""
        return replace(self, fraction=fraction)

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean bound of the loss (an estimate of it with random projections)."""
        clean = clean_pass(net, x, y)
        region = region_of(shrunk(self.set, self.fraction), x)
        if self.projections:
            layers = estimated_layers(clean.graph, region, Draws(draws.keys[:1]), self.projections)
            dual = Dual(clean.graph, region, layers, 1 << 25)
        else:
            dual = Dual.of(clean.graph, region)
        lower, _ = dual.both(clean.graph.output, clean.rows)
        kappa = ramp(1.0, self.kappa, self.fraction)
        clean_loss = functional.cross_entropy(clean.logits, y)
        return kappa * clean_loss + (1 - kappa) * robust_cross_entropy(lower)


def estimated_layers(graph: Graph, region: Region, draws: Draws, k: int) -> dict[str, Interval2]:
    """l, u of what every ReLU reads, by its name: estimated from k projections, cut with intervals.

    S(x) counts as its enclosing box. Raises UnsupportedOperator for nonlinear operators but ReLU.
    """
    low, high = region.lower, region.upper
    values: dict[str, Interval2] = {graph.input: (low, high)}
    start = (high - low) / 2 * _cauchy(draws, k, region.x.shape[1:], 0).to(low)
    carried: dict[str, tuple[Tensor, Sketch]] = {graph.input: ((low + high) / 2, start)}
    layers: dict[str, Interval2] = {}
    for stream, node in enumerate(graph.nodes, start=1):
        op, found = node.op, [carried[name] for name in node.inputs]
        if isinstance(op, LinearOp):
            many = [sketch.flatten(0, 1) for _, sketch in found]
            carried[node.name] = op(*(centre for centre, _ in found)), op.map(*many).unflatten(0, (k, -1))
        elif isinstance(op, Relu):
            source = node.inputs[0]
            values[source] = layers[node.name] = _cut(found[0], values[source])
            room = _cauchy(draws, k, node.shape, stream).to(low)
            carried[node.name] = _relaxed(found[0], layers[node.name], room)
        else:
            raise UnsupportedOperator(
                f"Random projections of the dual have no {op.kind} (node {node.name!r}).",
                "They take linear operators and ReLU; IBP and CROWN-IBP take more.",
            )
        values[node.name] = step(node, graph, [values[name] for name in node.inputs])
    return layers


def _cut(carried: tuple[Tensor, Sketch], known: Interval2) -> Interval2:
    """centre ± median |sketch|, where that is inside the interval."""
    centre, sketch = carried
    reach = sketch.abs().median(0).values
    low, high = torch.maximum(known[0], centre - reach), torch.minimum(known[1], centre + reach)
    return torch.minimum(low, high), torch.maximum(low, high)  # an estimate may fall on the wrong side of the other


def _relaxed(carried: tuple[Tensor, Sketch], bounds: Interval2, room: Tensor) -> tuple[Tensor, Sketch]:
    """Centre and sketch behind a ReLU: y in D v + [0, w]."""
    (centre, sketch), (low, high) = carried, bounds
    slope = share(low, high)
    half = torch.where((low < 0) & (high > 0), -slope * low, 0.0) / 2
    return slope * centre + half, slope * sketch + half * room


def _cauchy(draws: Draws, k: int, shape: tuple[int, ...], stream: int) -> Tensor:
    """k standard Cauchy tensors (k, 1, *shape), the same for every row."""
    u = draws.uniform((k, *shape), stream, torch.float64).clamp_min(2.0**-33)  # tan stays finite
    return torch.tan(math.pi * (u - 0.5)).transpose(0, 1)
