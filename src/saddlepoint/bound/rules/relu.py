"""ReLU and leaky ReLU, y = max(x, s x) with 0 ≤ s ≤ 1: convex.

    unstable (l < 0 < u):   a x ≤ y for any a in [s, 1]        y ≤ chord from (l, s l) to (u, u)
    stable:                 y = x or y = s x

Choice of a (Zhang et al. 2018, §3.3, "CROWN-Ada"): the smaller triangle, a = 1 if u > −l, else s.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.bound.rules.base import Elementwise
from saddlepoint.core.errors import UnsupportedOperator
from saddlepoint.graph.ops import LeakyRelu, Relu


def slope_below(op: Relu | LeakyRelu) -> float:
    """s. Raises UnsupportedOperator outside [0, 1], where y is not max(x, s x) or not monotone."""
    slope = op.slope if isinstance(op, LeakyRelu) else 0.0
    if not 0.0 <= slope <= 1.0:
        raise UnsupportedOperator(f"LeakyRelu with slope {slope} has no bound rule.", "Slopes from 0 to 1 have one.")
    return slope


class ReluRule:
    """Rule of Relu and LeakyRelu."""

    def interval(self, op: Relu | LeakyRelu, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        slope_below(op)
        return op(lower), op(upper)  # monotone

    def loose(self, op: Relu | LeakyRelu, lower: Tensor, upper: Tensor) -> Tensor:
        return (lower < 0) & (upper > 0)

    def choose(self, op: Relu | LeakyRelu, lower: Tensor, upper: Tensor) -> Tensor:
        return (upper > -lower).to(torch.uint8)

    def relax(self, op: Relu | LeakyRelu, lower: Tensor, upper: Tensor, choice: Tensor | None) -> Elementwise:
        s = slope_below(op)
        free = self.choose(op, lower, upper) if choice is None else choice
        stable_slope = torch.where(lower >= 0, 1.0, s).to(lower)
        unstable = self.loose(op, lower, upper)
        # a width of 1 where it is not read: 0/0 there would become NaN in gradients by the weights
        chord = (upper - s * lower) / torch.where(unstable, upper - lower, 1.0)
        return Elementwise(
            lower_slope=torch.where(unstable, s + (1 - s) * free.to(lower), stable_slope),
            lower_constant=None,
            upper_slope=torch.where(unstable, chord, stable_slope),
            upper_constant=torch.where(unstable, (s - chord) * lower, 0.0),  # chord passes through (l, s l)
        )
