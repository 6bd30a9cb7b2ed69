"""ℓ∞ ball ∩ box: |zᵢ − x₀ᵢ| ≤ ε. A box itself, so every map is coordinatewise and exact (T1, T3).

Strictness: `hull(x0, rounding="in")` holds the outermost floats whose exact distance to x₀ is ≤ ε; projecting is a
clamp between them, so an attack that keeps the two tensors pays one pass per step (trap 2: peers overshoot ε).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saddlepoint.core.arithmetic import float_above, float_below
from saddlepoint.geometry import sizes
from saddlepoint.geometry.ball import Ball, around
from saddlepoint.geometry.base import HullRounding, Interval, check_points
from saddlepoint.geometry.interval import IntervalSet
from saddlepoint.geometry.sizes import Size
from saddlepoint.geometry.snap import two_sum


@dataclass(frozen=True, init=False, eq=False)
class Linf(IntervalSet, Ball):
    """`Linf("8/255")`. Samples are uniform in the set's volume.

    >>> Linf("8/255").canonical()
    {'kind': 'linf', 'size': '8/255', 'box': None}
    """

    kind: ClassVar[str] = "linf"

    def hull(self, x0: Float[Tensor, "b *s"], *, rounding: HullRounding = "out") -> Interval:
        self.check_center(x0)
        return around(x0, self.size, self.box, rounding)

    def contains(
        self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"], *, slack: float | int = 0.0
    ) -> Bool[Tensor, " b"]:
        """Exact in both directions: x − x₀ = s + e by TwoSum, compared with the rational size."""
        s, e = two_sum(x.to(torch.float64), -x0.to(torch.float64))
        flip = torch.where(s < 0, -1.0, 1.0).to(s.dtype)
        near = at_most(s * flip, e * flip, sizes.add(self.size, slack)).flatten(1).all(-1)
        return near & self.in_box(x0, x, slack)

    def gauge(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"]) -> Float[Tensor, " b"]:
        """max |xᵢ − x₀ᵢ|, rounded up; inf outside the box."""
        check_points(x0, x)
        s, e = two_sum(x.to(torch.float64), -x0.to(torch.float64))
        flip = torch.where(s < 0, -1.0, 1.0).to(s.dtype)
        distance = torch.where(e * flip > 0, torch.nextafter(s.abs(), torch.full_like(s, torch.inf)), s.abs())
        largest = distance.flatten(1).amax(-1)
        return torch.where(self.in_box(x0, x, 0.0), largest, torch.full_like(largest, torch.inf))


def at_most(s: Float[Tensor, "b *s"], e: Float[Tensor, "b *s"], size: Size) -> Bool[Tensor, "b *s"]:
    """s + e ≤ size, exactly, where s = fl(s + e) ≥ 0.

    Rounding is monotone, so s below (above) the two float64 neighbours of the size decides; on a neighbour f the
    question is e ≤ size − f, whose right side is a rational with a float64 floor.
    """
    if isinstance(size, Tensor):
        limit = sizes.below(size, s)
        return (s < limit) | ((s == limit) & (e <= 0))  # s > limit: |e| is half an ulp at most
    floor, ceiling = float_below(size), float_above(size)
    decided = (s < floor) | ((s == floor) & (e <= float_below(size - Fraction(floor))))
    if ceiling == floor:
        return decided
    return decided | ((s == ceiling) & (e <= float_below(size - Fraction(ceiling))))
