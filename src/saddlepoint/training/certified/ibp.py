"""Interval bound propagation (Gowal et al. 2018, "On the Effectiveness of Interval Bound Propagation").

    κ CE(f(x), y) + (1 − κ) log(1 + Σ_{j ≠ y} e^(−l_j)),      l from intervals, eq. 6-12

While the set grows to its full size, κ falls from 1 to `kappa`, and Shi et al.'s regulariser (warmup.py) acts where it
has a weight. Gowal et al. end at κ = 1/2 and Shi et al. take λ = 1/2, on networks with batch norm; without it, wk17 on
MNIST at 0.1 is certified more often after few epochs with both at 0, which is the default. The last
layer is merged into the differences z_y − z_j, so on a linear network l is exact in every norm. `stretch` trains
against a larger set than the one that is asked about: what is proven on the training data holds on fewer test samples,
and Zhang et al. (ICLR 2020, §4) train at 0.2 for 0.1 and at 0.4 for 0.3.
Cost of a step: the clean forward and two more (centre and radius); one backward through the three.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.bound.backward import Region, Walker
from saddlepoint.bound.interval import Interval2, propagate, region_of, tail
from saddlepoint.core.arithmetic import exact
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import PerturbationSet
from saddlepoint.training.adversarial import shrunk
from saddlepoint.training.certified.passes import Pass, check_share, clean_pass, ramp, robust_cross_entropy
from saddlepoint.training.certified.warmup import regulariser
from saddlepoint.training.checks import check_above


@dataclass(frozen=True)
class IBP:
    """`kappa`: the clean loss' final share. `regularise`: weight of the warm-up regulariser, falling to 0. `stretch`:
    the set is trained against at this multiple of its size."""

    exact: ClassVar[bool] = True
    set: PerturbationSet
    kappa: float = 0.0
    regularise: float = 0.0
    stretch: float = 1.0
    fraction: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        check_share("kappa", self.kappa)
        check_share("regularise", self.regularise)
        check_above("stretch", self.stretch)

    def at(self, fraction: Fraction) -> IBP:
        """With the set at `fraction` of its size and κ as far on its way from 1."""
        return replace(self, fraction=fraction)

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean of both losses over the batch."""
        del draws
        clean = clean_pass(net, x, y)
        kappa = ramp(1.0, self.kappa, self.fraction)
        values, lower = interval_margins(clean, region_of(shrunk(self.set, self.fraction * exact(self.stretch)), x))
        loss = kappa * functional.cross_entropy(clean.logits, y) + (1 - kappa) * robust_cross_entropy(lower)
        weight = self.regularise * (1 - float(self.fraction))
        return loss + weight * regulariser(clean.graph, values) if weight else loss


def interval_margins(clean: Pass, region: Region) -> tuple[dict[str, Interval2], Float[Tensor, "b m"]]:
    """Interval bounds of every value, and the lower bounds of the margins z_y − z_j."""
    values = propagate(clean.graph, region)
    return values, tail(Walker(clean.graph), region, values, clean.rows)
