"""sin x and cos x: convex and concave by turns, with bends at the multiples of π (shifted by π/2 for cos).

On an interval no longer than 2 π three pieces between bends cover it; a longer one takes every value, so its lines are
the constants −1 and 1. Arguments beyond 1e6, where a bend's own rounding would count, are refused (bounds −1 and 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.bound.rules.curve import Curve, Piece

LARGEST = 1e6


@dataclass(frozen=True)
class Wave(Curve):
    """sin (shift 0) or cos (shift 1): f(x) = sin(x + shift π/2)."""

    shift: int = 0

    def defined(self, lower: Tensor, upper: Tensor) -> Tensor:
        return lower <= upper

    def straight(self, lower: Tensor, upper: Tensor) -> Tensor:
        return self.defined(lower, upper) & (upper - lower <= 6.28) & (lower >= -LARGEST) & (upper <= LARGEST)

    def pieces(self, lower: Tensor, upper: Tensor) -> list[Piece]:
        bend = torch.floor((lower + self.shift * math.pi / 2) / math.pi)
        found = []
        for k in range(3):
            left, right = ((bend + j) * math.pi - self.shift * math.pi / 2 for j in (k, k + 1))
            convex = torch.remainder(bend + k, 2) == 1  # sin is negative, so convex, on (π, 2π)
            # the first piece starts at l and the third ends at u whatever the bends round to
            left = lower if k == 0 else torch.minimum(torch.maximum(left, lower), upper)
            right = upper if k == 2 else torch.minimum(torch.maximum(right, lower), upper)
            found.append((left, right, convex))
        return found

    def extremes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        ends = self.value(torch.stack([lower, upper]))
        low, high = ends.amin(0), ends.amax(0)
        wide = (upper - lower > 6.28) | (lower.abs() > LARGEST) | (upper.abs() > LARGEST)

        def holds(place: float) -> Tensor:
            # a turn at place + 2 π n in [l, u], or so near that rounding may hide it
            start = torch.ceil((lower - 1e-9 - place) / (2 * math.pi)) * 2 * math.pi + place
            return wide | (start <= upper + 1e-9)

        top = math.pi / 2 - self.shift * math.pi / 2
        return torch.where(holds(top + math.pi), -1.0, low), torch.where(holds(top), 1.0, high)


def wave(shift: int) -> Wave:
    """The curve of sin or cos."""
    value = (torch.sin, torch.cos)[shift]
    slope = torch.cos if shift == 0 else lambda x: -torch.sin(x)
    return Wave(value, slope, errors=(8.0, 0.0, 8.0, 8.0), image=(-1.0, 1.0), shift=shift)
