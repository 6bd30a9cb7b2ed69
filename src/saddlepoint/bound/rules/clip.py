"""Clip, y = min(max(x, lo), hi): ReLU6, hard tanh, clamp.

With p = max(l, lo) and q = min(u, hi), on [l, u]:

    y ≥ p + a (x − p) for any a in [0, (q − p) / (u − p)]      lines through (p, p), the steepest meets (u, q)
    y ≤ q + a (x − q) for any a in [0, (q − p) / (q − l)]      lines through (q, q), the steepest meets (l, p)

(Proof: y − p is concave on [p, u] with value 0 at p, so it is above its chord; left of p the line falls
below lo. The upper side by symmetry.) The ReLU rule is lo = 0, hi = ∞. Choice: the smaller area, which is
the steeper line if p lies in the left half of [l, u] (lower), if q lies in the right half (upper).
"""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.bound.rules.base import Elementwise
from saddlepoint.graph.ops import Clip


class ClipRule:
    """Rule of Clip."""

    def interval(self, op: Clip, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return op(lower), op(upper)  # monotone

    def loose(self, op: Clip, lower: Tensor, upper: Tensor) -> Tensor:
        bent_below = (lower < op.lower) & (upper > op.lower)
        bent_above = (lower < op.upper) & (upper > op.upper)
        return bent_below | bent_above

    def choose(self, op: Clip, lower: Tensor, upper: Tensor) -> Tensor:
        p = lower.clamp_min(op.lower)
        return (upper - p > p - lower).to(torch.uint8)

    def relax(self, op: Clip, lower: Tensor, upper: Tensor, choice: Tensor | None) -> Elementwise:
        free = self.choose(op, lower, upper) if choice is None else choice
        p, q = lower.clamp_min(op.lower), upper.clamp_max(op.upper)
        inside = (lower >= op.lower) & (upper <= op.upper)
        below, above = upper <= op.lower, lower >= op.upper
        loose = ~(inside | below | above)
        steep_lower = (q - p) / (upper - p) * free.to(lower)
        steep_upper = (q - p) / (q - lower) * (q - lower > upper - q).to(lower)
        flat = torch.where(below, op.lower, torch.where(above, op.upper, 0.0)).to(lower)
        straight = inside.to(lower)
        return Elementwise(
            lower_slope=torch.where(loose, steep_lower, straight),
            lower_constant=torch.where(loose, p - steep_lower * p, flat),
            upper_slope=torch.where(loose, steep_upper, straight),
            upper_constant=torch.where(loose, q - steep_upper * q, flat),
        )
