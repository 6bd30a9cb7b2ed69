"""The checker's enclosure of smooth functions: for a slope a, the constant is bounded below over all of [l, u].

    g(x) − a x on [l, u],  g = f (lower line) or −f (upper line, then negated)
      where g is concave          at least its smaller end
      where g is convex           at least h(p) + min(h'(p)(q₁ − p), h'(p)(q₂ − p), 0) for any p of the piece [q₁, q₂]

so a line is sound whatever its slope is, and p comes from a bisection of g' = a. Slopes: the tangent at a place that
`free` in [0, 1] picks among those that stay below both ends (½: nearest to the middle), else the chord.
Own formulas for f and f', each with a stated error (proofs_functions); nothing is shared with the search.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from saddlepoint.check.proofs_functions import TINY, Smooth, U

HALVINGS = 40
Pair = tuple[Tensor, Tensor]


def image_of(f: Smooth, low: Tensor, high: Tensor) -> Pair:
    """Bounds of f over [low, high]; (−∞, ∞) where it is not defined on all of it."""
    ends = [f.value(low), f.value(high)]
    least, most = torch.minimum(*ends), torch.maximum(*ends)
    for turn, height in f.turns:
        met = (low <= turn) & (turn <= high)
        least = torch.where(met, least.clamp_max(height), least)
        most = torch.where(met, most.clamp_min(height), most)
    if f.period:
        least, most = f.swing(low, high, least, most)
    size = torch.maximum(low.abs(), high.abs())
    least = torch.where(torch.isfinite(least), least - f.error(size, least), least)
    most = torch.where(torch.isfinite(most), most + f.error(size, most), most)
    fine = f.defined(low, high) & ~torch.isnan(least) & ~torch.isnan(most)
    return (
        torch.where(fine, least.clamp_min(f.range[0]), -torch.inf),
        torch.where(fine, most.clamp_max(f.range[1]), torch.inf),
    )


def lines_of(f: Smooth, low: Tensor, high: Tensor, free: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """a_L, b_L, a_U, b_U; constants where no sloped line is known."""
    fine = f.defined(low, high) & torch.isfinite(low) & torch.isfinite(high) & f.short(low, high)
    a, b = torch.where(fine, low, f.safe), torch.where(fine, high, f.safe)
    floor, roof = image_of(f, low, high)
    found: list[Tensor] = []
    for sign, flat in ((1.0, floor), (-1.0, roof)):
        slope = _slope(f, sign, a, b, free)
        constant = sign * _least(f, sign, slope, a, b)
        usable = fine & torch.isfinite(slope) & torch.isfinite(constant)
        found += [torch.where(usable, slope, 0.0), torch.where(usable, constant, flat)]
    return found[0], found[1], found[2], found[3]


def undecided_of(f: Smooth, low: Tensor, high: Tensor) -> Tensor:
    """Where the two lines leave more than a twentieth of f's range between them."""
    a_low, b_low, a_high, b_high = lines_of(f, low, high, torch.full_like(low, 0.5))
    gap = (a_high - a_low) * (low + high) / 2 + b_high - b_low
    floor, roof = image_of(f, low, high)
    return (low < high) & ~(gap <= 0.05 * (roof - floor))


def _halve(holds: Callable[[Tensor], Tensor], left: Tensor, right: Tensor) -> Pair:
    """A bracket of the place where `holds` turns from true (left) to false (right)."""
    for _ in range(HALVINGS):
        middle = (left + right) / 2
        yes = holds(middle)
        left, right = torch.where(yes, middle, left), torch.where(yes, right, middle)
    return left, right


def _slope(f: Smooth, sign: float, low: Tensor, high: Tensor, free: Tensor) -> Tensor:
    """The slope of a good line below sign · f: any number would be sound."""
    first, last = torch.ones_like(low), torch.zeros_like(low)
    for left, right, convex in f.pieces(low, high):
        wider = (convex == (sign > 0)) & (right - left > last - first)
        first, last = torch.where(wider, left, first), torch.where(wider, right, last)
    bowl = first <= last
    first, last = torch.where(bowl, first, low), torch.where(bowl, last, high)

    def under(end: Tensor) -> Callable[[Tensor], Tensor]:
        height = sign * f.value(end)
        return lambda t: sign * (f.value(t) + f.slope(t) * (end - t)) <= height

    begin, end = first, last
    if bool((bowl & (first > low)).any()):
        # tangents fall towards the left end as t grows: the first t that is under it
        begin = torch.where(first > low, _halve(lambda t: ~under(low)(t), first, last)[1], first)
    if bool((bowl & (last < high)).any()):
        end = torch.where(last < high, _halve(under(high), first, last)[0], last)
    good = bowl & (begin <= end)
    good &= ((first == low) | under(low)(begin)) & ((last == high) | under(high)(end))
    if f.inset:
        begin, end = begin + f.inset * (high - low), end - f.inset * (high - low)
    best = torch.minimum(torch.maximum((low + high) / 2, begin), end)
    left_share, right_share = (2 * free).clamp_max(1.0), (2 * free - 1).clamp_min(0.0)
    place = begin + left_share * (best - begin) + right_share * (end - best)
    width = high - low
    wide = width > 1e-8 * torch.maximum(low.abs(), high.abs()) + TINY
    chord = (f.value(high) - f.value(low)) / torch.where(wide, width, 1.0)
    middle = f.slope((low + high) / 2)
    return torch.where(good, f.slope(torch.where(good, place, low)), torch.where(wide, chord, middle))


def _least(f: Smooth, sign: float, slope: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """A lower bound of sign (f(x) − a x) over [low, high]."""

    def height(x: Tensor) -> Tensor:
        y, product = f.value(x), slope * x
        return sign * (y - product) - f.error(x, y) - 2 * U * (y.abs() + product.abs()) - TINY

    least = torch.minimum(height(low), height(high))
    for left, right, convex in f.pieces(low, high):
        mine = (convex == (sign > 0)) & (left < right)
        if not bool(mine.any()):
            continue
        start, stop = torch.where(mine, left, low), torch.where(mine, right, low)
        p = _halve(lambda t: sign * (f.slope(t) - slope) < 0, start, stop)[0]
        steep = f.slope(p)
        tilt = sign * (steep - slope)
        doubt = f.slope_error(steep) + U * (steep.abs() + slope.abs())
        ahead, behind = (stop - p) * (1 + 4 * U), (p - start) * (1 + 4 * U)
        # h is convex on the piece: h(x) ≥ h(p) + h'(p)(x − p), and h'(p) is known up to `doubt`
        fall = torch.minimum((tilt - doubt) * ahead, -(tilt + doubt) * behind).clamp_max(0.0) * (1 + 8 * U)
        least = torch.where(mine, torch.minimum(least, height(p) + fall), least)
    return least
