"""Smooth functions to 50 digits, and intervals of all kinds, for the tests of the rules and of the checker."""

from __future__ import annotations

import mpmath
import torch

POWERS = (2.0, 3.0, 4.0, 5.0, -1.0, -2.0, -3.0, 1.5, 0.5, 0.3, -0.5, -1.5)
EXACT = {
    "Sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "Tanh": mpmath.tanh,
    "Erf": mpmath.erf,
    "Exp": mpmath.exp,
    "Log": mpmath.log,
    "Softplus": lambda x: mpmath.log(1 + mpmath.exp(x)),
    "Elu": lambda x: x if x > 0 else mpmath.expm1(x),
    "Gelu": lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
    "GeluTanh": lambda x: x / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3))),
    "Silu": lambda x: x / (1 + mpmath.exp(-x)),
    "Mish": lambda x: x * mpmath.tanh(mpmath.log(1 + mpmath.exp(x))),
    "Sin": mpmath.sin,
    "Cos": mpmath.cos,
    "Sqrt": mpmath.sqrt,
    "Rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "Reciprocal": lambda x: 1 / x,
}
SPECIAL = (0.0, 1e-300, -1e-300, 1e-12, 2**0.5, -(2**0.5), 30.0, -30.0, 700.0, -745.0, 1e4, -1e4)


def intervals(curve, seed, count=300):
    """Lower and upper ends in the domain: all sizes and places, degenerate, tiny, huge, at the special points."""
    draw = torch.Generator().manual_seed(seed)

    def uniform(low, high):
        return low + (high - low) * torch.rand(count, generator=draw, dtype=torch.float64)

    sign = torch.sign(uniform(-1, 1))
    place = sign * 10 ** uniform(-4, 3)
    special = torch.tensor(SPECIAL, dtype=torch.float64).repeat(count)[:count]
    place = torch.where(uniform(0, 1) < 0.2, special, place)
    width = torch.where(uniform(0, 1) < 0.15, 0.0, 10 ** uniform(-12, 1))
    width = torch.where(uniform(0, 1) < 0.1, 10 ** uniform(1, 4), width)
    if curve.domain[0] > -1 or curve.pole is not None:
        near = place.abs() + (1e-6 if curve.domain[0] == 0 or curve.pole is not None else 0.0)
        mirrored = (curve.pole is not None) & (sign < 0)
        return torch.where(mirrored, -near - width, near), torch.where(mirrored, -near, near + width)
    return place - uniform(0, 1) * width, place + width
