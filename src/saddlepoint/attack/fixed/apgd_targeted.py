"""Targeted Auto-PGD: one item for each of the likeliest wrong classes.

    maximise  −(z_y − z_t) / (z_π1 − ½(z_π3 + z_π4) + 1e-12)      for t in the `count` classes with the largest
                                                                   clean logits, y left out; at most K − 1 of them
The step rule is apgd.py's. Success is judged by the threat's goal: reaching another wrong class counts.
Croce & Hein 2020, §4.1 (eq. 7: targeted DLR); below four classes the targeted margin z_t − z_y takes its place.
Cost of a sample: restarts × min(count, K − 1) × (steps + 1) forwards, that × steps/(steps + 1) backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor

from saddlepoint.attack.fixed.apgd import APGD


@dataclass(frozen=True)
class APGDTargeted(APGD):
    """APGD-T: `count` targets by clean logit, most likely first."""

    name: ClassVar[str] = "apgd-t"
    loss: str = "dlr"
    count: int = 9

    def targets(
        self, clean: Float[Tensor, "b k"], y: Int64[Tensor, " b"], slopes: Float[Tensor, "b k"] | None = None
    ) -> Int64[Tensor, "b t"]:
        """The `count` largest clean logits' classes without y, (b, min(count, K − 1))."""
        others = clean.nan_to_num(nan=-3e38).scatter(1, y[:, None], -float("inf"))
        return others.topk(min(self.count, clean.shape[1] - 1), dim=1).indices
