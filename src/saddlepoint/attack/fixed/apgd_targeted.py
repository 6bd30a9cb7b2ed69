"""Targeted Auto-PGD: one item for each of the likeliest wrong classes.

    maximise  −(z_y − z_t) / (z_π1 − ½(z_π3 + z_π4) + 1e-12)      for the first `count` classes t of an order

Orders: largest clean logits ("logit", as in AutoAttack), or the shortest linear step ("malt"); see target_order.py.
The step rule is apgd.py's. Success is judged by the threat's goal: reaching another wrong class counts.
Croce & Hein 2020, §4.1 (eq. 7: targeted DLR); below four classes the targeted margin z_t − z_y takes its place.
Cost of a sample: restarts × min(count, K − 1) × (steps + 1) forwards, that × steps/(steps + 1) backwards; "malt" adds
one forward and K − 1 backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor

from saddlepoint.attack.fixed.apgd import APGD
from saddlepoint.attack.fixed.target_order import check_order, likeliest


@dataclass(frozen=True)
class APGDTargeted(APGD):
    """APGD-T: `count` targets in the order "logit" or "malt"."""

    name: ClassVar[str] = "apgd-t"
    loss: str = "dlr"
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
