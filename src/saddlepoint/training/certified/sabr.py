"""SABR (Müller, Eckert, Fischer & Vechev 2023, "Certified Training: Small Boxes are All You Need").

    x* = highest-loss point found in (1 − λ) S(x),     loss = log(1 + Σ e^(−l_j)),  l from intervals over λ S(x*)

λ S(x*) lies in S(x) for balls, and in the data box with them. A small box keeps the intervals tight and the network
less regularised; the loss is no bound over all of S(x) unless λ = 1, where the method is IBP with κ = 0. The search
sees the network that is bounded, batch norm at the clean batch's statistics. Its steps grow with the set, and it runs
in bfloat16 where that is fast, as PGD's (adversarial.py).
Cost of a step: IBP's, and steps + 2 forwards with steps backwards for the search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor, nn

from saddlepoint.bound.interval import region_of
from saddlepoint.core.errors import InputError
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import PerturbationSet
from saddlepoint.graph.ir import Graph
from saddlepoint.training.adversarial import Search, shrunk, worst_points
from saddlepoint.training.certified.ibp import interval_margins
from saddlepoint.training.certified.passes import clean_pass, robust_cross_entropy
from saddlepoint.training.certified.warmup import regulariser
from saddlepoint.training.checks import check_count


@dataclass(frozen=True)
class SABR:
    """`share`: λ, the small box' part of the set's size (0 < λ ≤ 1)."""

    exact: ClassVar[bool] = True
    set: PerturbationSet
    share: Fraction = Fraction(2, 5)
    steps: int = 8
    regularise: float = 0.0
    fraction: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"share={self.share}: the small box needs a size.", "Give share in (0, 1]; 1 is IBP.")
        check_count("steps", self.steps)

    def at(self, fraction: Fraction) -> SABR:
        """With the set at `fraction` of its size, and as many of the steps."""
        return replace(self, fraction=fraction, steps=max(1, math.ceil(self.steps * fraction)))

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean bound of the loss over the small boxes."""
        clean = clean_pass(net, x, y)
        ball = shrunk(self.set, self.fraction)
        share = Fraction(self.share)
        centre = x
        if share < 1:
            centre = attacked(clean.graph, Search(shrunk(ball, 1 - share), self.steps, low=True), x, y, draws)
        values, lower = interval_margins(clean, region_of(shrunk(ball, share), centre))
        loss = robust_cross_entropy(lower)
        weight = self.regularise * (1 - float(self.fraction))
        return loss + weight * regulariser(clean.graph, values) if weight else loss


def attacked(
    graph: Graph,
    search: Search,
    x: Float[Tensor, "b *shape"],
    y: Int64[Tensor, " b"],
    draws: Draws,
) -> Float[Tensor, "b *shape"]:
    """Worst points of the bounded network; its weights stand still, so gradients are by the input only."""
    return worst_points(graph.detached(), search, x, y, draws).detach()
