"""Multi-targeted PGD: one run of projected gradient ascent for each wrong class.

    max over t ≠ y of  max over x in S(x0) of  z_t(x) − z_y(x)

The worst margin is a maximum over classes; ascending each of its parts on its own keeps the path from switching between
them. Gowal et al. 2019, "An alternative surrogate loss for PGD-based adversarial testing", Algorithm 1. It tries all
classes there (`count` = K − 1); steps are pgd.py's, orders of targets target_order.py's.
Cost of a sample: restarts × min(count, K − 1) items of PGD; "malt" adds one forward and K − 1 backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor

from saddlepoint.attack.fixed.pgd import PGD
from saddlepoint.attack.fixed.target_order import check_order, likeliest


@dataclass(frozen=True)
class PGDTargeted(PGD):
    """PGD towards `count` targets in the order "logit" or "malt"."""

    name: ClassVar[str] = "pgd-t"
    loss: str = "margin"
    count: int = 9
    order: str = "logit"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self.order, self.count)

    @property
    def ranks_by_slope(self) -> bool:
        return self.order == "malt"

    def targets(
        self, clean: Float[Tensor, "b k"], y: Int64[Tensor, " b"], slopes: Float[Tensor, "b k"] | None = None
    ) -> Int64[Tensor, "b t"]:
        """The first min(count, K − 1) classes of the order."""
        return likeliest(clean, y, self.count, slopes if self.ranks_by_slope else None)
