"""The functions that the checker encloses, by its own formulas, with what is known of each.

    |computed f − f| ≤ U (r |f| + s |x|) + TINY        |computed f' − f'| ≤ U (r' |f'| + s') + TINY       U = 2⁻⁵²

Stated with room to spare over the library's exp, log, erf, tanh, pow, sin and cos (1 to 2 ulps each in float64; the
tests compare with 50 digits). `pieces` cut [l, u] where f changes from convex to concave.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from saddlepoint.graph.ops import Elementwise, Op, Power

U = torch.finfo(torch.float64).eps
TINY = torch.finfo(torch.float64).tiny
Map = Callable[[Tensor], Tensor]
INF = math.inf


@dataclass(frozen=True)
class Smooth:
    """f, f', the bends between its pieces and which pieces are convex; turns as (place, height)."""

    value: Map
    slope: Map
    bends: tuple[float, ...] = ()
    bowls: tuple[bool, ...] = (True,)
    turns: tuple[tuple[float, float], ...] = ()
    range: tuple[float, float] = (-INF, INF)
    off: tuple[float, float, float, float] = (16.0, 0.0, 24.0, 0.0)
    where: str = "all"  # or "positive", "nonnegative", "nonzero"
    period: bool = False
    shift: float = 0.0
    inset: float = 0.0

    @property
    def safe(self) -> float:
        """A point of the domain."""
        return 0.0 if self.where == "all" else 1.0

    def error(self, x: Tensor, y: Tensor) -> Tensor:
        """How far a computed y = f(x) may be off."""
        relative = U * self.off[0] * y.abs() + TINY
        return relative + U * self.off[1] * x.abs() if self.off[1] else relative

    def slope_error(self, s: Tensor) -> Tensor:
        """How far a computed s = f'(x) may be off."""
        return U * (self.off[2] * s.abs() + self.off[3]) + TINY

    def defined(self, low: Tensor, high: Tensor) -> Tensor:
        """Where f exists on all of [low, high]; NaN is nowhere."""
        there = low <= high
        if self.where == "positive":
            return there & (low > 0)
        if self.where == "nonnegative":
            return there & (low >= 0)
        return there & ((low > 0) | (high < 0)) if self.where == "nonzero" else there

    def short(self, low: Tensor, high: Tensor) -> Tensor:
        """Whether `pieces` covers [low, high]."""
        if not self.period:
            return torch.ones_like(low, dtype=torch.bool)
        return (high - low < 6.28) & (low > -1e6) & (high < 1e6)

    def pieces(self, low: Tensor, high: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(left, right, convex) in order; empty pieces have left ≥ right."""
        if self.period:
            return self._arcs(low, high)
        cuts = (-INF, *self.bends, INF)
        return [
            (low.clamp_min(cuts[i]), high.clamp_max(cuts[i + 1]), torch.full_like(low, bowl, dtype=torch.bool))
            for i, bowl in enumerate(self.bowls)
        ]

    def _arcs(self, low: Tensor, high: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """sin(x + shift) between its zeros: below 0 it is convex."""
        arc, found, left = torch.floor((low + self.shift) / math.pi), [], low
        for i in range(3):
            right = high if i == 2 else torch.minimum((arc + i + 1) * math.pi - self.shift, high)
            right = torch.maximum(right, left)
            found.append((left, right, torch.remainder(arc + i, 2) == 1))
            left = right
        return found

    def swing(self, low: Tensor, high: Tensor, least: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
        """−1 and 1 where [low, high] may meet a turn of the wave."""
        cycle = 2 * math.pi
        far = ~self.short(low, high)

        def meets(place: float) -> Tensor:
            n = torch.ceil((low - place - 1e-8) / cycle)
            return far | (n * cycle + place <= high + 1e-8)

        top = math.pi / 2 - self.shift
        return torch.where(meets(top - math.pi), -1.0, least), torch.where(meets(top), 1.0, most)


def _half(x: Tensor) -> Tensor:
    return torch.exp(-x.abs())


def _sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def _bell(x: Tensor) -> Tensor:
    """sigmoid', from e^(−|x|)."""
    return _half(x) / (1 + _half(x)) ** 2


def _softplus(x: Tensor) -> Tensor:
    return torch.log1p(_half(x)) + x.clamp_min(0.0)


def _cumulative(x: Tensor) -> Tensor:
    return torch.special.erfc(-x * math.sqrt(0.5)) / 2


def _cubic(x: Tensor) -> Tensor:
    return math.sqrt(8 / math.pi) * (x + 0.044715 * x * x * x)


def _gelu_tanh_slope(x: Tensor) -> Tensor:
    rise = math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * x * x)
    # beyond 40 the bell is 0 and x · rise would only make NaN of it
    inner = _cubic(x)
    return _sigmoid(inner) + torch.where(inner.abs() < 700, x * rise * _bell(inner), 0.0)


def _mish_slope(x: Tensor) -> Tensor:
    t = torch.tanh(_softplus(x))
    return t + torch.where(x.abs() < 300, x * (1 - t * t) * _sigmoid(x), 0.0)


def _silu_slope(x: Tensor) -> Tensor:
    return _sigmoid(x) + torch.where(x.abs() < 700, x * _bell(x), 0.0)


def _gelu_slope(x: Tensor) -> Tensor:
    return _cumulative(x) + torch.where(x.abs() < 38, x * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi), 0.0)


S_SHAPE, GATE = ((0.0,), (True, False)), (False, True, False)
R2 = math.sqrt(2.0)
GATED = (24.0, 24.0, 24.0, 64.0)
FUNCTIONS: dict[str, Smooth] = {
    "Sigmoid": Smooth(_sigmoid, _bell, *S_SHAPE, range=(0.0, 1.0)),
    "Tanh": Smooth(torch.tanh, lambda x: 4 * _bell(2 * x), *S_SHAPE, range=(-1.0, 1.0)),
    "Erf": Smooth(
        torch.erf,
        lambda x: math.sqrt(4 / math.pi) * torch.exp(-x * x),
        *S_SHAPE,
        range=(-1.0, 1.0),
        off=(16.0, 0.0, 24.0, 24.0),
    ),
    "Exp": Smooth(torch.exp, torch.exp, range=(0.0, INF)),
    "Log": Smooth(torch.log, lambda x: 1 / x, bowls=(False,), where="positive"),
    "Softplus": Smooth(_softplus, _sigmoid, range=(0.0, INF)),
    "Elu": Smooth(
        lambda x: torch.where(x > 0, x, torch.expm1(x.clamp_max(0.0))),
        lambda x: torch.exp(x.clamp_max(0.0)),
        range=(-1.0, INF),
    ),
    "Gelu": Smooth(
        lambda x: x * _cumulative(x),
        _gelu_slope,
        (-R2, R2),
        GATE,
        ((-0.7517915246935645, -0.1699712074799036),),
        (-0.16997120747990377, INF),
        GATED,
    ),
    "GeluTanh": Smooth(
        lambda x: x * _sigmoid(_cubic(x)),
        _gelu_tanh_slope,
        (-1.4185040087908284, 1.4185040087908284),
        GATE,
        ((-0.7524614220710163, -0.170040750571254),),
        (-0.17004075057125416, INF),
        GATED,
    ),
    "Silu": Smooth(
        lambda x: x * _sigmoid(x),
        _silu_slope,
        (-2.399357280515468, 2.399357280515468),
        GATE,
        ((-1.2784645427610738, -0.2784645427610738),),
        (-0.2784645427610739, INF),
        GATED,
    ),
    "Mish": Smooth(
        lambda x: x * torch.tanh(_softplus(x)),
        _mish_slope,
        (-2.256376396360793, 1.4905711794854284),
        GATE,
        ((-1.1924312145154952, -0.30884341301725037),),
        (-0.3088434130172505, INF),
        GATED,
    ),
    "Sqrt": Smooth(
        torch.sqrt, lambda x: 1 / (2 * torch.sqrt(x)), (), (False,), range=(0.0, INF), where="nonnegative", inset=1 / 64
    ),
    "Rsqrt": Smooth(
        lambda x: torch.sqrt(1 / x), lambda x: -torch.sqrt(1 / x) / (2 * x), range=(0.0, INF), where="positive"
    ),
    "Reciprocal": Smooth(lambda x: 1 / x, lambda x: -(1 / x) * (1 / x), (0.0,), (False, True), where="nonzero"),
    "Sin": Smooth(torch.sin, torch.cos, range=(-1.0, 1.0), off=(16.0, 0.0, 16.0, 16.0), period=True),
    "Cos": Smooth(
        torch.cos,
        lambda x: -torch.sin(x),
        range=(-1.0, 1.0),
        off=(16.0, 0.0, 16.0, 16.0),
        period=True,
        shift=math.pi / 2,
    ),
}


@cache
def power(p: float) -> Smooth:
    """xᵖ."""
    off = (16.0 + abs(p), 0.0, 24.0 + abs(p), 0.0)

    def value(x: Tensor) -> Tensor:
        return x.pow(p)

    def slope(x: Tensor) -> Tensor:
        return p * x.pow(p - 1)

    if p != math.floor(p):
        where, inset = ("nonnegative" if p > 0 else "positive"), (1 / 64 if 0 < p < 1 else 0.0)
        return Smooth(value, slope, (), (p > 1 or p < 0,), (), (0.0, INF), off, where, inset=inset)
    even, where = p % 2 == 0, "nonzero" if p < 0 else "all"
    span = (0.0, INF) if even else (-INF, INF)
    if even and p > 0:
        return Smooth(value, slope, (), (True,), ((0.0, 0.0),), span, off, where)
    return Smooth(value, slope, (0.0,), (even, True), (), span, off, where)


def smooth_of(op: Op) -> Smooth | None:
    """What the checker knows of an operator, if it is one of these functions."""
    if isinstance(op, Power):
        return power(op.exponent)
    return FUNCTIONS.get(op.function if isinstance(op, Elementwise) else type(op).__name__)
