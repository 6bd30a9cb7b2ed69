"""sign, floor, ceil, round: monotone and piecewise constant.

    floor   x − 1 ≤ ⌊x⌋ ≤ x        ceil   x ≤ ⌈x⌉ ≤ x + 1        round   x − ½ ≤ [x] ≤ x + ½        (slope 1)
    all     f(l) ≤ f(x) ≤ f(u)                                                                       (slope 0)

The constant line where f(u) − f(l) ≤ 1, since then it is the tighter one; sign has only constants.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.bound.rules.base import Elementwise as Lines
from saddlepoint.graph.ops import Elementwise

SHIFTS = {"Floor": (-1.0, 0.0), "Ceil": (0.0, 1.0), "Round": (-0.5, 0.5)}


class StepRule:
    """Rule of Sign, Floor, Ceil and Round."""

    def interval(self, op: Elementwise, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return op(lower), op(upper)  # monotone, and exact

    def loose(self, op: Elementwise, lower: Tensor, upper: Tensor) -> Tensor:
        return op(lower) < op(upper)

    def choose(self, op: Elementwise, lower: Tensor, upper: Tensor) -> None:
        return None

    def relax(self, op: Elementwise, lower: Tensor, upper: Tensor, choice: Tensor | None) -> Lines:
        low, high = op(lower), op(upper)
        below, above = SHIFTS.get(op.function, (0.0, 0.0))
        sloped = (high - low > 1) & (op.function in SHIFTS)
        slope = sloped.to(lower)
        return Lines(
            slope,
            torch.where(sloped, below, low),
            slope,
            torch.where(sloped, above, high),
        )
