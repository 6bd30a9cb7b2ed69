"""CROWN-IBP (Zhang et al. 2020, "Towards Stable and Efficient Training of Verifiably Robust Neural Networks") with
loss fusion (Xu et al. 2020, "Automatic Perturbation Analysis for Scalable Certified Robustness", §3.3).

    κ CE(f(x), y) + (1 − κ) [β L_crown + (1 − β) L_ibp]

Intervals bound every value; lines over them are walked back from the loss to the input. Fusion makes that one row a
sample instead of one a class: with d_j = z_j − z_y in [l_j, u_j] (intervals) and the chord of exp,

    Σ_j e^(d_j) ≤ Σ_j (s_j d_j + t_j) ≤ max over S(x) of ⟨A, x'⟩ + c,      L_crown = log(1 + min(that, Σ_j e^(u_j)))

The minimum keeps L_crown ≤ L_ibp: backward lines alone are not nested in intervals. Exponents are taken relative to
the largest u_j, so nothing overflows. β goes from 1 to `beta` while the set grows (Zhang et al., §4: 1 → 0).
Cost of a step: IBP's, and one row walked back a sample (about two forwards).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.bound.backward import Lines, Region, Walker
from saddlepoint.bound.enclose import Encloser
from saddlepoint.bound.interval import region_of, tail
from saddlepoint.bound.rows import Rows
from saddlepoint.bound.rules import Relaxation
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import PerturbationSet
from saddlepoint.training.adversarial import shrunk
from saddlepoint.training.certified.passes import check_share, clean_pass, ramp, robust_cross_entropy
from saddlepoint.training.certified.warmup import regulariser


@dataclass(frozen=True)
class CrownIBP:
    """`kappa`, `regularise` as in IBP; `beta`: the backward bound's final share."""

    exact: ClassVar[bool] = True
    set: PerturbationSet
    kappa: float = 0.0
    beta: float = 0.0
    regularise: float = 0.0
    fraction: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        for name in ("kappa", "beta", "regularise"):
            check_share(name, getattr(self, name))

    def at(self, fraction: Fraction) -> CrownIBP:
        """With the set at `fraction` of its size, κ and β as far on their ways from 1."""
        return replace(self, fraction=fraction)

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean loss of the batch."""
        del draws
        clean = clean_pass(net, x, y)
        kappa, beta = (ramp(1.0, end, self.fraction) for end in (self.kappa, self.beta))
        region = region_of(shrunk(self.set, self.fraction), x)
        walker = Walker(clean.graph)
        values, relaxations, _ = Encloser(walker).enclose(region, refine=False)
        lower = tail(walker, region, values, clean.rows)
        bound = robust_cross_entropy(lower)
        if beta:
            upper = -tail(walker, region, values, -clean.rows)
            fused = fused_loss(Backward(walker, relaxations, region), clean.rows, lower, upper)
            bound = beta * fused.mean() + (1 - beta) * bound
        loss = kappa * functional.cross_entropy(clean.logits, y) + (1 - kappa) * bound
        weight = self.regularise * (1 - float(self.fraction))
        return loss + weight * regulariser(clean.graph, values) if weight else loss


@dataclass(frozen=True)
class Backward:
    """Lines of every nonlinear node, ready to be walked."""

    walker: Walker
    relaxations: dict[str, Relaxation]
    region: Region

    def minimum(self, row: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
        """Lower bounds of ⟨row, output⟩ over S(x), one row a sample."""
        graph = self.walker.graph
        owner = torch.arange(len(row), device=row.device)
        start = Lines({graph.output: Rows(row, graph.output_shape)}, row.new_zeros(len(row)))
        rows, constant = self.walker.down(start, self.relaxations, owner)
        return self.region.minimum(rows, owner) + constant


def fused_loss(
    backward: Backward, rows: Float[Tensor, "b m k"], lower: Float[Tensor, "b m"], upper: Float[Tensor, "b m"]
) -> Float[Tensor, " b"]:
    """log(1 + bound of Σ e^(z_j − z_y)) per sample, for margins z_y − z_j in [lower, upper]."""
    low, high = -upper, -lower  # of d_j = z_j − z_y
    top = high.detach().amax(1, keepdim=True)
    bottom, ceiling = (low - top).exp(), (high - top).exp()  # both ≤ 1: everything relative to e^top
    width = high - low
    wide = width > 1e-6
    slope = torch.where(wide, (ceiling - bottom) / torch.where(wide, width, 1.0), ceiling)
    # s d + t through (high, ceiling): for a width of 0 the tangent there
    constant = (ceiling - slope * high).sum(1)
    # Σ s_j d_j = −⟨Σ s_j row_j, z⟩, so its maximum is minus the minimum of the latter
    backwards = constant - backward.minimum(torch.einsum("bm,bmk->bk", slope, rows))
    total = torch.minimum(backwards, ceiling.sum(1))
    total = total.clamp_min(torch.finfo(total.dtype).tiny)  # a sum of exponentials is positive
    return functional.softplus(total.log() + top.squeeze(1))
