"""The sets that every geometry test runs over, and points for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.geometry import L0, L1, L2, Box, Linf, Mask, Patch, PerturbationSet

IMAGE, FLAT = (2, 5, 4), (7,)
UNIT = Box(0, 1)
WIDE = Box((-0.5, 0.1), (1.0, 2.0))  # per channel
HALF = torch.tensor([[1, 0, 1, 0]] * 4 + [[0, 0, 0, 1]], dtype=torch.bool)


class Case(NamedTuple):
    name: str
    build: Callable[[], PerturbationSet]
    shape: tuple[int, ...]
    convex: bool = True
    nested: bool = True  # has a size of its own
    box: Box = UNIT


CASES = [
    Case("linf", lambda: Linf("8/255", UNIT), IMAGE),
    Case("linf-flat", lambda: Linf("1/3", UNIT), FLAT),
    Case("linf-channels", lambda: Linf(0.3, WIDE), IMAGE, box=WIDE),
    Case("l2", lambda: L2("0.8", UNIT), IMAGE),
    Case("l2-large", lambda: L2(2, UNIT), IMAGE),
    Case("l2-channels", lambda: L2(1, WIDE), IMAGE, box=WIDE),
    Case("l1", lambda: L1(2, UNIT), IMAGE),
    Case("l1-flat", lambda: L1("1/7", UNIT), FLAT),
    Case("l1-large", lambda: L1(9, UNIT), IMAGE),
    Case("l0", lambda: L0(3, UNIT), IMAGE, convex=False),
    Case("l0-flat", lambda: L0(2, UNIT), FLAT, convex=False),
    Case("box", lambda: UNIT, IMAGE, nested=False),
    Case("mask", lambda: Mask(HALF, UNIT), IMAGE, nested=False),
    Case("patch", lambda: Patch(2, 3, "any", UNIT), IMAGE, convex=False, nested=False),
    Case("patch-fixed", lambda: Patch(2, 3, (1, 1), UNIT), IMAGE, nested=False),
    Case("union", lambda: Linf(0.05, UNIT) | L2("0.5", UNIT), IMAGE, convex=False, nested=False),
    Case("linf-and-mask", lambda: Linf(0.2, UNIT) & Mask(HALF, UNIT), IMAGE, nested=False),
]
NESTED = [case for case in CASES if case.nested]
NAMES = [case.name for case in CASES]
NESTED_NAMES = [case.name for case in NESTED]
DTYPES = [torch.float32, torch.float64]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def center(case: Case, seed: int, dtype: torch.dtype, rows: int = 4) -> Tensor:
    """x₀ in the box: uniform, with some coordinates exactly on the walls."""
    g = generator(seed)
    lower, upper = case.box.limits(torch.zeros(rows, *case.shape, dtype=dtype))
    u = torch.rand(rows, *case.shape, generator=g, dtype=dtype)
    u = torch.where(torch.rand(u.shape, generator=g) < 0.2, u.round(), u)
    return torch.clamp(lower + u * (upper - lower), lower, upper)


def cloud(case: Case, seed: int, dtype: torch.dtype, rows: int = 4, scale: float = 0.6) -> Tensor:
    """Arbitrary points, many of them outside the box."""
    noise = torch.randn(rows, *case.shape, generator=generator(seed + 1), dtype=dtype)
    return center(case, seed, dtype, rows) + scale * noise


def directions(case: Case, seed: int, dtype: torch.dtype, rows: int = 4) -> Tensor:
    """Gradients of mixed magnitudes, some exactly 0, with ties."""
    g = generator(seed + 2)
    a = torch.randn(rows, *case.shape, generator=g, dtype=dtype)
    a = torch.where(torch.rand(a.shape, generator=g) < 0.15, torch.zeros_like(a), a)
    return torch.where(torch.rand(a.shape, generator=g) < 0.15, a.round(), a)


def draws(seed: int, rows: int = 4, restart: int = 0) -> Draws:
    return Draws(row_keys(seed, [str(i) for i in range(rows)], "test", restart))


def inner(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() * b.double()).flatten(1).sum(-1)
