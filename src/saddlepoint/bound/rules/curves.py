"""The curves: what each function of one variable tells the engine of curve.py, and the rule they all share.

    sigmoid, tanh, erf            convex, then concave                 f'' changes sign at 0
    GELU, SiLU, Mish              concave, convex, concave             inflections and minimum to 17 digits below
    exp, softplus, ELU            convex
    log, sqrt                     concave
    1/x, 1/√x, xᵖ                 by the sign of p and of x; a pole at 0 for p < 0

Bends are stated to within an ulp. Between a bend and its float f'' is of the order of 1e-16, so that the convexity
used on the piece is wrong by about 1e-32: far below the outward shift.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.bound.rules import curve as engine
from saddlepoint.bound.rules.base import Elementwise as Lines
from saddlepoint.bound.rules.curve import TINY, Curve
from saddlepoint.bound.rules.waves import wave
from saddlepoint.core.errors import UnsupportedOperator
from saddlepoint.graph.ops import Elementwise, Op, Power

ROOT2, ROOT2PI, ROOTPI = math.sqrt(2.0), math.sqrt(2.0 * math.pi), math.sqrt(math.pi)


def _normal(x: Tensor) -> Tensor:
    """Φ without cancellation on the left."""
    return 0.5 * torch.special.erfc(-x / ROOT2)


def _density(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x * x) / ROOT2PI


def _gelu_tanh(x: Tensor) -> Tensor:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x * torch.sigmoid(2 * inner)  # (1 + tanh z) / 2 = sigmoid(2 z)


def _gelu_tanh_slope(x: Tensor) -> Tensor:
    root = math.sqrt(2 / math.pi)
    z = 2 * root * (x + 0.044715 * x**3)
    s = torch.sigmoid(z)
    return s + x * s * torch.sigmoid(-z) * 2 * root * (1 + 3 * 0.044715 * x * x)


def _silu_slope(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s + x * s * torch.sigmoid(-x)


def _mish_slope(x: Tensor) -> Tensor:
    t = torch.tanh(F.softplus(x))
    return t + x * (1 - t * t) * torch.sigmoid(x)


def _logit(a: Tensor, k: int) -> Tensor:
    """x with sigmoid'(x) = a, left of 0 for piece 0: s (1 − s) = a."""
    root = torch.sqrt((1 - 4 * a).clamp(0.0, 1.0))
    x = torch.log((1 - root) / (1 + root)).clamp_min(-745.0)
    return x if k == 0 else -x


def _atanh(a: Tensor, k: int) -> Tensor:
    """x with 1 − tanh² = a."""
    x = torch.atanh(torch.sqrt((1 - a).clamp(0.0, 1.0))).clamp_max(30.0)
    return -x if k == 0 else x


def _bell(a: Tensor, k: int) -> Tensor:
    """x with 2/√π e^(−x²) = a."""
    x = torch.sqrt(-torch.log((a * ROOTPI / 2).clamp(1e-300, 1.0)))
    return -x if k == 0 else x


def _sech2(x: Tensor) -> Tensor:
    """1 − tanh² without cancellation: 4 s (1 − s) at 2 x."""
    return 4 * torch.sigmoid(2 * x) * torch.sigmoid(-2 * x)


CURVES: dict[str, Curve] = {
    "Sigmoid": Curve(
        torch.sigmoid,
        lambda x: torch.sigmoid(x) * torch.sigmoid(-x),
        (0.0,),
        (True, False),
        _logit,
        image=(0.0, 1.0),
    ),
    "Tanh": Curve(torch.tanh, _sech2, (0.0,), (True, False), _atanh, image=(-1.0, 1.0)),
    "Erf": Curve(
        torch.erf,
        lambda x: 2 / ROOTPI * torch.exp(-x * x),
        (0.0,),
        (True, False),
        _bell,
        (8.0, 0.0, 16.0, 16.0),
        (),
        (-1.0, 1.0),
    ),
    "Exp": Curve(torch.exp, torch.exp, inverse=lambda a, k: torch.log(a.clamp_min(TINY)), image=(0.0, math.inf)),
    "Log": Curve(
        torch.log, torch.reciprocal, (), (False,), lambda a, k: 1 / a.clamp_min(1e-300), domain=(0.0, math.inf)
    ),
    "Softplus": Curve(
        lambda x: -F.logsigmoid(-x),
        torch.sigmoid,
        inverse=lambda a, k: torch.logit(a.clamp(1e-300, 1 - 1e-16)),
        image=(0.0, math.inf),
    ),
    "Elu": Curve(
        F.elu,
        lambda x: torch.exp(x.clamp_max(0.0)),
        inverse=lambda a, k: torch.where(a < 1, torch.log(a.clamp(1e-300, 1.0)), math.inf),
        errors=(8.0, 0.0, 16.0, 4.0),
        image=(-1.0, math.inf),
    ),
    "Gelu": Curve(
        lambda x: x * _normal(x),
        lambda x: _normal(x) + x * _density(x),
        (-ROOT2, ROOT2),
        (False, True, False),
        errors=(16.0, 16.0, 16.0, 32.0),
        turns=(-0.75179152469356446,),
        image=(-0.16997120747990367, math.inf),
    ),
    "GeluTanh": Curve(
        _gelu_tanh,
        _gelu_tanh_slope,
        (-1.4185040087908284, 1.4185040087908284),
        (False, True, False),
        errors=(16.0, 16.0, 16.0, 64.0),
        turns=(-0.75246142207101626,),
        image=(-0.17004075057125406, math.inf),
    ),
    "Silu": Curve(
        lambda x: x * torch.sigmoid(x),
        _silu_slope,
        (-2.3993572805154677, 2.3993572805154677),
        (False, True, False),
        errors=(16.0, 0.0, 16.0, 32.0),
        turns=(-1.2784645427610738,),
        image=(-0.27846454276107380, math.inf),
    ),
    "Mish": Curve(
        lambda x: x * torch.tanh(-F.logsigmoid(-x)),
        _mish_slope,
        (-2.2563763963607931, 1.4905711794854285),
        (False, True, False),
        errors=(16.0, 0.0, 16.0, 64.0),
        turns=(-1.1924312145154952,),
        image=(-0.30884341301725041, math.inf),
    ),
    "Sin": wave(0),
    "Cos": wave(1),
}

CURVES |= {
    "Sqrt": Curve(
        torch.sqrt,
        lambda x: 0.5 / torch.sqrt(x),
        (),
        (False,),
        lambda a, k: 0.25 / (a * a).clamp_min(1e-300),
        image=(0.0, math.inf),
        domain=(-5e-324, math.inf),
        inset=1 / 64,  # the slope at 0 is infinite
    ),
    "Rsqrt": Curve(
        lambda x: 1 / torch.sqrt(x),
        lambda x: -0.5 / (x * torch.sqrt(x)),
        inverse=lambda a, k: (-2 * a).clamp_min(1e-300) ** (-2 / 3),
        image=(0.0, math.inf),
        domain=(0.0, math.inf),
    ),
    "Reciprocal": Curve(
        torch.reciprocal,
        lambda x: -1 / (x * x),
        (0.0,),
        (False, True),
        lambda a, k: (1 if k else -1) / torch.sqrt((-a).clamp_min(1e-300)),
        pole=0.0,
    ),
}


@cache
def power(p: float) -> Curve:
    """xᵖ: all x for whole p (0 left out if p < 0), x > 0 for other p (and 0 if p > 0)."""
    errors = (8.0 + abs(p), 0.0, 16.0 + abs(p), 0.0)

    def value(x: Tensor) -> Tensor:
        return torch.pow(x, p)

    def slope(x: Tensor) -> Tensor:
        return p * torch.pow(x, p - 1)

    def size(a: Tensor) -> Tensor:
        return (a / p).abs().clamp(1e-300, 1e300) ** (1 / (p - 1))

    if p != int(p):
        domain = (-5e-324 if p > 0 else 0.0, math.inf)
        inset = 1 / 64 if 0 < p < 1 else 0.0
        curve = Curve(value, slope, (), (not 0 < p < 1,), lambda a, k: size(a), errors, (), (0.0, math.inf), domain)
        return replace(curve, inset=inset)
    even, pole = p % 2 == 0, 0.0 if p < 0 else None
    image = (0.0, math.inf) if even else (-math.inf, math.inf)
    if even and p > 0:
        return Curve(value, slope, (), (True,), lambda a, k: torch.sign(a) * size(a), errors, (0.0,), image)
    return Curve(
        value, slope, (0.0,), (even, True), lambda a, k: size(a) if k else -size(a), errors, (), image, pole=pole
    )


def curve_of(op: Op) -> Curve:
    """The curve of an operator. Raises UnsupportedOperator for functions without one."""
    if isinstance(op, Power):
        return power(op.exponent)
    name = op.function if isinstance(op, Elementwise) else type(op).__name__
    if name not in CURVES:
        raise UnsupportedOperator(f"no bound rule for {op.kind}.", f"There are rules for {', '.join(CURVES)}.")
    return CURVES[name]


class CurveRule:
    """Rule of every function of one variable that has a curve. Its choice is (b, *shape), ½ at first."""

    def interval(self, op: Op, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return engine.interval(curve_of(op), lower, upper)

    def loose(self, op: Op, lower: Tensor, upper: Tensor) -> Tensor:
        return engine.loose(curve_of(op), lower, upper)

    def choose(self, op: Op, lower: Tensor, upper: Tensor) -> Tensor:
        return engine.choose(curve_of(op), lower, upper)

    def relax(self, op: Op, lower: Tensor, upper: Tensor, choice: Tensor | None) -> Lines:
        return engine.enclose(curve_of(op), lower, upper, choice)
