"""Enclosures of a smooth function of one variable that is convex and concave by turns.

    a x + min over [l, u] of (f(x) − a x)  ≤  f(x)        for any slope a: the best line of that slope

1. *Any* slope is sound, so slopes may come from an optimiser, from a bisection that stopped early or from float32.
2. Its constant is a minimum of h = f − a x. On a piece where f is convex, h lies above its tangent at any x̂:
       h(x) ≥ h(x̂) + h'(x̂)(x − x̂),    worst at an end of the piece,
   and x̂ with f'(x̂) ≈ a makes that tight; on a concave piece h is smallest at an end. So a crude x̂ costs tightness only.
3. Slopes worth having: the tangents at t in [d_l, d_u], the part of a convex piece whose tangents stay below f(l) at
   l and below f(u) at u (found by bisection: those values are monotone in t). A `choice` in [0, 1] moves t from d_l
   (0) over the place nearest to the middle of [l, u], which leaves the least area (½), to d_u (1): the same number for
   the lower line and, by −f, for the upper line. Where no tangent qualifies, the chord is the convex hull.
   (Singh et al. 2019, "An Abstract Domain for Certifying Neural Networks", §4.3; Shi et al. 2024, "Neural Network
   Verification with Branch-and-Bound for General Nonlinearities", §3, for the range of t.)

Everything is float64 inside; computed values of f and f' err by a stated number of units in the last place, and the
constant moves outward by the sum of these errors. Infinite or undefined places give constant lines or NaN.
Cost: a bisection of `STEPS` evaluations of f and f' where f is not convex or concave throughout; else a handful.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.bound.rules.base import Elementwise

U = torch.finfo(torch.float64).eps
TINY = torch.finfo(torch.float64).tiny
STEPS = 30
NEARLY = 0.05

Function = Callable[[Tensor], Tensor]
Piece = tuple[Tensor, Tensor, Tensor]
"""Left end, right end, and where f is convex on it (bool); empty where left ≥ right."""


@dataclass(frozen=True)
class Curve:
    """f with what its lines need. `convex[k]` tells the bend of the k-th piece between `bends`.

    inverse(a, k)  an x̂ in piece k with f'(x̂) ≈ a (any number is sound); None: found by bisection
    errors e       |computed f − f| ≤ U (e[0] |f| + e[1] |x|),   |computed f' − f'| ≤ U (e[2] |f'| + e[3])
    image          the least and the greatest value of f; `turns` its local extrema
    domain         the open interval in which f is defined; `pole` is left out of it
    """

    value: Function
    slope: Function
    bends: tuple[float, ...] = ()
    convex: tuple[bool, ...] = (True,)
    inverse: Callable[[Tensor, int], Tensor] | None = None
    errors: tuple[float, float, float, float] = (8.0, 0.0, 16.0, 0.0)
    turns: tuple[float, ...] = ()
    image: tuple[float, float] = (-math.inf, math.inf)
    domain: tuple[float, float] = (-math.inf, math.inf)
    pole: float | None = None
    inset: float = 0.0

    def defined(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Whether f is defined on [l, u] (False for NaN)."""
        good = (lower > self.domain[0]) & (upper < self.domain[1]) & (lower <= upper)
        return good if self.pole is None else good & ((lower > self.pole) | (upper < self.pole))

    def straight(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where there are lines of any slope; elsewhere they are constant."""
        return self.defined(lower, upper) & torch.isfinite(lower) & torch.isfinite(upper)

    def home(self) -> float:
        """A harmless point, to compute at where the interval is not usable."""
        inside = max(self.domain[0], -1.0) + 1.0
        return inside + 1.0 if inside == self.pole else inside

    def pieces(self, lower: Tensor, upper: Tensor) -> list[Piece]:
        """The parts of [l, u] between bends."""
        ends = (-math.inf, *self.bends, math.inf)
        return [
            (lower.clamp_min(ends[k]), upper.clamp_max(ends[k + 1]), torch.full_like(lower, convex, dtype=torch.bool))
            for k, convex in enumerate(self.convex)
        ]

    def extremes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """min and max of f over [l, u] as computed at the ends and turns; NaN where f is not defined."""
        ends = self.value(torch.stack([lower, upper]))
        low, high = ends.amin(0), ends.amax(0)
        for turn in self.turns:
            inside = (lower <= turn) & (turn <= upper)
            top = self.value(torch.full_like(lower, turn))
            low = torch.where(inside, torch.minimum(low, top), low)
            high = torch.where(inside, torch.maximum(high, top), high)
        return low, high

    def value_error(self, x: Tensor, y: Tensor) -> Tensor:
        """A bound of |computed f(x) − f(x)|, y the computed value."""
        error = self.errors[0] * y.abs()
        if self.errors[1]:
            error = error + self.errors[1] * x.abs()
        return U * error + TINY

    def slope_error(self, s: Tensor) -> Tensor:
        """The same for f'."""
        return U * (self.errors[2] * s.abs() + self.errors[3]) + TINY


def interval(curve: Curve, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of f over [l, u], rounded outward; −∞ and ∞ where f is not defined on all of it."""
    lo, up = lower.double(), upper.double()
    low, high = curve.extremes(lo, up)
    reach = torch.maximum(lo.abs(), up.abs())
    # a monotone f keeps its order, so the computed ends are off by the error of f alone
    low = torch.where(torch.isfinite(low), low - curve.value_error(reach, low), low)
    high = torch.where(torch.isfinite(high), high + curve.value_error(reach, high), high)
    good = curve.defined(lo, up) & ~torch.isnan(low) & ~torch.isnan(high)
    low = torch.where(good, low.clamp_min(curve.image[0]), -torch.inf)
    high = torch.where(good, high.clamp_max(curve.image[1]), torch.inf)
    return down(low, lower.dtype), -down(-high, upper.dtype)


def loose(curve: Curve, lower: Tensor, upper: Tensor) -> Tensor:
    """Where tighter bounds would pay: lines farther apart than `NEARLY` of f's range, or not there at all.

    Where f is nearly linear on [l, u], the lines pass x on almost exactly, whatever l and u.
    """
    lines = enclose(curve, lower, upper, None)
    middle = (lower + upper) / 2
    gap = (lines.upper_slope - lines.lower_slope) * middle + lines.upper_constant
    gap = gap if lines.lower_constant is None else gap - lines.lower_constant
    low, high = interval(curve, lower, upper)
    return (lower < upper) & ~(gap <= NEARLY * (high - low))


def choose(curve: Curve, lower: Tensor, upper: Tensor) -> Tensor:
    """½ for every entry: the tangents of least area, as near to the middle as they may be."""
    return torch.full_like(lower, 0.5)


def enclose(curve: Curve, lower: Tensor, upper: Tensor, choice: Tensor | None) -> Elementwise:
    """The two lines with that choice, differentiable in it."""
    c = torch.nan_to_num((choose(curve, lower, upper) if choice is None else choice).double(), nan=0.5).clamp(0.0, 1.0)
    lo, up, good = _usable(curve, lower.detach().double(), upper.detach().double())
    low, high = interval(curve, lower.detach(), upper.detach())
    lines = []
    for sign in (1.0, -1.0):
        slope = _slope(curve, sign, lo, up, c)
        # the line is defined by the slope that is kept
        slope = slope.to(lower.dtype).double()
        constant = _rounded(sign * _offset(curve, sign, slope, lo, up), lower.dtype, sign)
        usable = good & torch.isfinite(slope) & torch.isfinite(constant)
        flat = low if sign > 0 else high
        lines.append(torch.where(usable, slope, 0.0).to(lower.dtype))
        lines.append(torch.where(usable, constant, flat.to(lower.dtype)))
    return Elementwise(*lines)


def down(t: Tensor, dtype: torch.dtype) -> Tensor:
    """t in another type, never larger."""
    cast = t.to(dtype)
    below = torch.nextafter(cast, torch.full_like(cast, -torch.inf))
    return torch.where(cast.double() > t, below, cast)


def _rounded(t: Tensor, dtype: torch.dtype, sign: float) -> Tensor:
    """t rounded down (sign 1) or up (−1), with t's gradient."""
    safe = sign * down(sign * t.detach(), dtype)
    return t.to(dtype) + (safe - t.detach().to(dtype)) if t.requires_grad else safe


def _usable(curve: Curve, lo: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """l and u, replaced by a harmless point where f is not defined or an end is infinite; and where they are good."""
    good = curve.straight(lo, up)
    return torch.where(good, lo, curve.home()), torch.where(good, up, curve.home()), good


def _tangents(curve: Curve, sign: float, lo: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """d_l and d_u on the widest convex piece of sign · f, and whether tangents between them stay below both ends."""
    left, right = torch.zeros_like(lo), torch.full_like(lo, -1.0)
    pieces = curve.pieces(lo, up)
    for a, b, convex in pieces:
        better = (convex == (sign > 0)) & (b - a > right - left)
        left, right = torch.where(better, a, left), torch.where(better, b, right)
    there = left <= right
    left, right = torch.where(there, left, lo), torch.where(there, right, up)
    if len(pieces) == 1:
        inset = curve.inset * (up - lo)
        return lo + inset, up - inset, there
    fl, fu = sign * curve.value(lo), sign * curve.value(up)

    def below(t: Tensor, end: Tensor, height: Tensor) -> Tensor:
        # the tangent at t lies below `height` at `end`
        return sign * (curve.value(t) + curve.slope(t) * (end - t)) <= height

    low, low_end, high, high_end = left, right, left, right
    bent = bool((there & ((left != lo) | (right != up))).any())
    for _ in range(STEPS if bent else 0):
        # towards l the tangent falls as t grows: the smallest t that is fine; towards u it rises: the largest
        t = torch.stack([(low + low_end) / 2, (high + high_end) / 2])
        fine_l, fine_u = below(t, torch.stack([lo, up]), torch.stack([fl, fu])).unbind(0)
        low_end, low = torch.where(fine_l, t[0], low_end), torch.where(fine_l, low, t[0])
        high, high_end = torch.where(fine_u, t[1], high), torch.where(fine_u, high_end, t[1])
    d_l = torch.where(left == lo, left, low_end)
    d_u = torch.where(right == up, right, high)
    fits = there & (d_l <= d_u) & ((left == lo) | below(d_l, lo, fl)) & ((right == up) | below(d_u, up, fu))
    return d_l, d_u, fits


def _slope(curve: Curve, sign: float, lo: Tensor, up: Tensor, c: Tensor) -> Tensor:
    """f' at the chosen tangent point, or the slope of the chord."""
    start, stop, fits = _tangents(curve, sign, lo, up)
    middle = torch.minimum(torch.maximum((lo + up) / 2, start), stop)
    # c in [0, ½] runs from d_l to the best place, c in [½, 1] from there to d_u
    place = start + (2 * c).clamp_max(1.0) * (middle - start) + (2 * c - 1).clamp_min(0.0) * (stop - middle)
    tangent = curve.slope(torch.where(fits, place, (lo + up) / 2))
    width = up - lo
    wide = width > 1e-8 * torch.maximum(lo.abs(), up.abs()) + TINY
    chord = (curve.value(up) - curve.value(lo)) / torch.where(wide, width, 1.0)
    return torch.where(fits, tangent, torch.where(wide, chord, curve.slope((lo + up) / 2)))


def _offset(curve: Curve, sign: float, slope: Tensor, lo: Tensor, up: Tensor) -> Tensor:
    """min over [l, u] of sign (f(x) − a x), rounded down; its derivative in a is −sign x at the minimum."""
    a = slope.detach()
    best, place = _height(curve, sign, a, lo), lo
    other = _height(curve, sign, a, up)
    best, place = torch.where(other < best, other, best), torch.where(other < best, up, place)
    for k, (left, right, convex) in enumerate(curve.pieces(lo, up)):
        mine = (convex == (sign > 0)) & (left < right)
        if not bool(mine.any()):
            continue
        at = _critical(curve, sign, a, left, right, k)
        at = torch.where(mine, torch.minimum(torch.maximum(at, left), right), lo)
        h = _height(curve, sign, a, at)
        s = curve.slope(at)
        tilt = sign * (s - a)  # h' at x̂
        error = curve.slope_error(s) + U * (s.abs() + a.abs())
        # h(x) ≥ h(x̂) + h'(x̂)(x − x̂) on the piece; x − x̂ itself is rounded once
        reach = torch.where(mine, torch.maximum(right - at, at - left), 0.0) * (1 + 4 * U)
        fall = torch.minimum(tilt * (right - at), tilt * (at - left).neg()).clamp_max(0.0) * (1 + 4 * U)
        h = h + torch.where(mine, fall, 0.0) - error * reach
        better = mine & ~(h >= best)
        best, place = torch.where(better, h, best), torch.where(better, at, place)
    return best - sign * place * (slope - a) if slope.requires_grad else best


def _height(curve: Curve, sign: float, a: Tensor, x: Tensor) -> Tensor:
    """sign (f(x) − a x), rounded down."""
    y = curve.value(x)
    product = a * x
    return sign * (y - product) - curve.value_error(x, y) - 2 * U * (y.abs() + product.abs()) - TINY


def _critical(curve: Curve, sign: float, a: Tensor, left: Tensor, right: Tensor, k: int) -> Tensor:
    """x̂ with f'(x̂) ≈ a on a piece where sign · f' rises."""
    if curve.inverse is not None:
        return torch.nan_to_num(curve.inverse(a, k), nan=0.0)
    low, high = left, right
    for _ in range(STEPS):
        t = (low + high) / 2
        rises = sign * (curve.slope(t) - a) < 0
        low, high = torch.where(rises, t, low), torch.where(rises, high, t)
    return (low + high) / 2
