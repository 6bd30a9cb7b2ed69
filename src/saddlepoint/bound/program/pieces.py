"""Piecewise linear operators of one variable: their pieces, and the convex hull of a graph over an interval.

    y = s_k z + t_k   for  kink_{k−1} ≤ z ≤ kink_k              ReLU: pieces 0 and z, one kink at 0

The hull of {(z, f(z)) : l ≤ z ≤ u} is the hull of the points at l, the kinks between, and u, since f is straight
between them: for ReLU the triangle y ≥ 0, y ≥ z, y ≤ u (z − l) / (u − l) (Ehlers 2017; Wong and Kolter 2018, fig. 3).
Intercepts are moved outward by their own rounding, so a line with a rounded slope still encloses every point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from saddlepoint.core.errors import UnsupportedOperator
from saddlepoint.graph.ops import Abs, Clip, LeakyRelu, Op, Relu

_EPS = 2.0**-52

Line = tuple[float, float]  # slope, intercept


@dataclass(frozen=True)
class Pieces:
    """kinks ascending; lines[k] holds between kinks[k − 1] and kinks[k]; f is continuous."""

    kinks: tuple[float, ...]
    lines: tuple[Line, ...]

    def __call__(self, z: float) -> float:
        """f(z)."""
        k = sum(kink < z for kink in self.kinks)
        slope, intercept = self.lines[k]
        return slope * z + intercept

    def points(self, l: float, u: float) -> list[float]:  # noqa: E741  # l ≤ z ≤ u, as in the papers
        """l, the kinks strictly between, u."""
        return [l, *(kink for kink in self.kinks if l < kink < u), u]


def pieces_of(op: Op, node: str) -> Pieces:
    """The pieces of an operator. Raises UnsupportedOperator for one that is not piecewise linear."""
    if isinstance(op, Relu):
        return Pieces((0.0,), ((0.0, 0.0), (1.0, 0.0)))
    if isinstance(op, LeakyRelu):
        return Pieces((0.0,), ((op.slope, 0.0), (1.0, 0.0)))
    if isinstance(op, Abs):
        return Pieces((0.0,), ((-1.0, 0.0), (1.0, 0.0)))
    if isinstance(op, Clip):
        below = [((0.0, op.lower), op.lower)] if math.isfinite(op.lower) else []
        above = [((0.0, op.upper), op.upper)] if math.isfinite(op.upper) else []
        lines = [*(line for line, _ in below), (1.0, 0.0), *(line for line, _ in above)]
        return Pieces(tuple(kink for _, kink in [*below, *above]), tuple(lines))
    raise UnsupportedOperator(
        f"operator {op.kind} (node {node!r}) is not piecewise linear.",
        "Programs take linear operators, ReLU, LeakyReLU, Clip, Abs and max pooling; CROWN takes more.",
    )


def hull(f: Pieces, l: float, u: float) -> tuple[list[Line], list[Line]]:  # noqa: E741
    """Lines below and above f on [l, u], l < u."""
    points = [(p, f(p)) for p in f.points(l, u)]
    below = [_under(line, points) for line in _edges(points, 1.0)]
    above = [_over(line, points) for line in _edges(points, -1.0)]
    return below, above


def gap(f: Pieces, line: Line, l: float, u: float) -> tuple[float, float]:  # noqa: E741
    """(a, b) with a ≤ f(z) − line(z) ≤ b on [l, u], rounded outward: the big-M of a piece."""
    points = [(p, f(p)) for p in f.points(l, u)]
    values = [y - line[0] * p - line[1] for p, y in points]
    room = _room(line, points)
    return min(values) - room, max(values) + room


def _edges(points: list[tuple[float, float]], sign: float) -> list[Line]:
    """Slopes and intercepts of the lower (sign 1) or upper (−1) hull of points sorted by p."""
    kept: list[tuple[float, float]] = []
    for p, y in points:
        while len(kept) >= 2 and _turn(kept[-2], kept[-1], (p, y)) * sign <= 0:
            kept.pop()
        kept.append((p, y))
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(kept)]
    return [(s, a[1] - s * a[0]) for s, a in zip(slopes, kept, strict=False)]


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _under(line: Line, points: list[tuple[float, float]]) -> Line:
    # a line below the points of a piecewise linear f is below f
    return line[0], min(y - line[0] * p for p, y in points) - _room(line, points)


def _over(line: Line, points: list[tuple[float, float]]) -> Line:
    return line[0], max(y - line[0] * p for p, y in points) + _room(line, points)


def _room(line: Line, points: list[tuple[float, float]]) -> float:
    """More than the roundings of f(p), s p, and their difference; none where all is exact zeros."""
    return 8 * _EPS * max(abs(y) + abs(line[0] * p) + abs(line[1]) for p, y in points)
