"""MTL-IBP (De Palma et al. 2024, "Expressive Losses for Verified Robustness via Convex Combinations", §4.2).

    (1 − α) CE(f(x_adv), y) + α log(1 + Σ_j e^(−l_j)),      l from intervals over all of S(x)

α = 0 is PGD training, α = 1 is IBP with κ = 0. A small α gives networks that intervals alone do not certify, but a
complete method does. The search sees the network that is bounded, batch norm at the clean batch's statistics; steps
as PGD's. Cost of a step: IBP's, one forward at x_adv, and steps + 2 forwards with steps backwards for the search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.bound.interval import region_of
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import PerturbationSet
from saddlepoint.training.adversarial import Search, shrunk
from saddlepoint.training.certified.ibp import interval_margins
from saddlepoint.training.certified.passes import check_share, clean_pass, robust_cross_entropy
from saddlepoint.training.certified.sabr import attacked
from saddlepoint.training.certified.warmup import regulariser
from saddlepoint.training.checks import check_count


@dataclass(frozen=True)
class MTLIBP:
    """`alpha`: the share of the certified loss."""

    exact: ClassVar[bool] = True
    set: PerturbationSet
    alpha: float = 0.5
    steps: int = 8
    regularise: float = 0.0
    fraction: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        check_share("alpha", self.alpha)
        check_share("regularise", self.regularise)
        check_count("steps", self.steps)

    def at(self, fraction: Fraction) -> MTLIBP:
        """With the set at `fraction` of its size, and as many of the steps."""
        return replace(self, fraction=fraction, steps=max(1, math.ceil(self.steps * fraction)))

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean of both losses over the batch."""
        clean = clean_pass(net, x, y)
        ball = shrunk(self.set, self.fraction)
        loss = clean.logits.new_zeros(())
        if self.alpha < 1:
            points = attacked(clean.graph, Search(ball, self.steps, low=True), x, y, draws)
            loss = (1 - self.alpha) * functional.cross_entropy(clean.graph(points), y)
        if self.alpha == 0:
            return loss
        values, lower = interval_margins(clean, region_of(ball, x))
        loss = loss + self.alpha * robust_cross_entropy(lower)
        weight = self.regularise * (1 - float(self.fraction))
        return loss + weight * regulariser(clean.graph, values) if weight else loss
