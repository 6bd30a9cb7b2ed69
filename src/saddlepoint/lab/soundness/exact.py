"""The exact minimum of a small ReLU network over a box, in rational arithmetic.

    f is linear between breakpoints, so  min over [l, u] of f = min over breakpoints and ends of f

One input, any depth: layer by layer, a unit's pre-activation is linear between the breakpoints known so far, so its
zero is found exactly. Two inputs, one hidden layer: f is linear on the cells that the units' lines cut out of the box,
so its minimum is at a corner, where a line meets an edge, or where two lines meet. Floats are rationals: no rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product

from torch import Tensor

Vector = tuple[Fraction, ...]


@dataclass(frozen=True)
class Exact:
    """Layers (W, b) of fractions, ReLU between them; the last has one output."""

    layers: tuple[tuple[tuple[Vector, ...], Vector], ...]

    def before(self, x: Vector, layer: int) -> Vector:
        """Pre-activations of a layer at x."""
        h = x
        for k, (weight, bias) in enumerate(self.layers[: layer + 1]):
            v = tuple(sum((w * a for w, a in zip(row, h, strict=True)), b) for row, b in zip(weight, bias, strict=True))
            if k == layer:
                return v
            h = tuple(max(a, Fraction(0)) for a in v)
        return h

    def __call__(self, x: Vector) -> Fraction:
        """The output at x."""
        return self.before(x, len(self.layers) - 1)[0]


def exact(layers: Sequence[tuple[Tensor, Tensor]]) -> Exact:
    """The network of these weights (o, i) and biases (o,), as the real numbers that they are."""

    def fractions(values: Tensor) -> Vector:
        return tuple(Fraction(v) for v in values.double().tolist())

    return Exact(tuple((tuple(fractions(row) for row in w), fractions(b)) for w, b in layers))


def minimum(net: Exact, lower: Vector, upper: Vector) -> tuple[Fraction, Vector]:
    """min over the box and a point where it is taken; one input, or two inputs and one hidden layer."""
    points = _line(net, lower, upper) if len(lower) == 1 else _plane(net, lower, upper)
    return min(((net(x), x) for x in points), key=lambda pair: pair[0])


def _line(net: Exact, lower: Vector, upper: Vector) -> list[Vector]:
    points = sorted({lower, upper})
    for layer in range(len(net.layers) - 1):
        values = [net.before(x, layer) for x in points]
        new = set(points)
        for (a, va), (b, vb) in pairwise(zip(points, values, strict=True)):
            for p, q in zip(va, vb, strict=True):
                if p * q < 0:
                    new.add((a[0] + (b[0] - a[0]) * p / (p - q),))
        points = sorted(new)
    return points


def _plane(net: Exact, lower: Vector, upper: Vector) -> list[Vector]:
    (weight, bias), *_ = net.layers
    sides: list[tuple[Vector, Fraction]] = list(zip(weight, bias, strict=True))
    for axis in range(2):
        unit = tuple(Fraction(int(i == axis)) for i in range(2))
        sides += [(unit, -lower[axis]), (unit, -upper[axis])]
    found = []
    for (a, c), (b, d) in product(sides, repeat=2):
        det = a[0] * b[1] - a[1] * b[0]
        if det != 0:
            x = ((a[1] * d - b[1] * c) / det, (b[0] * c - a[0] * d) / det)
            if all(lo <= v <= hi for lo, v, hi in zip(lower, x, upper, strict=True)):
                found.append(x)
    return found
