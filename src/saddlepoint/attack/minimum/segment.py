"""The last metres: where on a path s ↦ x(s) from a point that holds to one that breaks does the margin change sign?

    s = low + (1 − 0.99 (1 − λ)) (high − low),   λ = m_low / (m_low − m_high)

A step of regula falsi aims 1 % short of the secant's root, seen from the adversarial end, so that on a straight stretch
the new point breaks and rounding does not lose it; whichever end it replaces, the next secant is better.
Croce & Hein 2020 end FAB with three such steps (their eq. 14 aims at the root itself). One forward a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_SHORT = 0.99


@dataclass(frozen=True)
class Bracket:
    """Positions on the path, with their margins: `low` holds, `high` breaks. NaN margins make a bracket that stays."""

    low: Float[Tensor, " b"]
    low_margin: Float[Tensor, " b"]
    high: Float[Tensor, " b"]
    high_margin: Float[Tensor, " b"]

    @property
    def aim(self) -> Float[Tensor, " b"]:
        """The next position to look at."""
        share = (self.low_margin / (self.low_margin - self.high_margin)).nan_to_num(1.0).clamp(0, 1)
        return self.low + (1 - _SHORT * (1 - share)) * (self.high - self.low)

    def after(self, margin: Float[Tensor, " b"]) -> Bracket:
        """The bracket once the margin at `aim` is known; one that is not a number holds nothing and breaks nothing."""
        aim, margin = self.aim, margin.to(self.low.dtype)
        holds, breaks = margin > 0, margin <= 0
        return Bracket(
            torch.where(holds, aim, self.low),
            torch.where(holds, margin, self.low_margin),
            torch.where(breaks, aim, self.high),
            torch.where(breaks, margin, self.high_margin),
        )


def unit_bracket(low_margin: Float[Tensor, " b"], high_margin: Float[Tensor, " b"]) -> Bracket:
    """From s = 0, which holds, to s = 1, which breaks."""
    zero = torch.zeros_like(high_margin)
    return Bracket(zero, low_margin.to(high_margin.dtype), zero + 1, high_margin)
