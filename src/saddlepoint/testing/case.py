"""A set with what its promises need: originals, points around them, directions, and points that it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from saddlepoint.core.errors import NotAvailable
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.geometry import Box, PerturbationSet

ROWS = 4


@dataclass(frozen=True)
class Case:
    """A set, the shape of inputs it is tried on, and the box they live in."""

    set: PerturbationSet
    shape: tuple[int, ...]
    box: Box = field(default_factory=lambda: Box(0, 1))

    def x0(self, dtype: torch.dtype = torch.float32, rows: int = ROWS) -> Tensor:
        """Originals in the box, a fifth of their coordinates exactly on its walls."""
        draws = self.draws(100, rows)
        u, v = draws.uniform(self.shape, 1, dtype), draws.uniform(self.shape, 2, dtype)
        u = torch.where(v < 0.2, u.round(), u)
        lower, upper = self.box.limits(u)
        return torch.clamp(lower + u * (upper - lower), lower, upper)

    def draws(self, number: int = 0, rows: int = ROWS) -> Draws:
        """Random numbers of the rows."""
        return Draws(row_keys(0, [str(i) for i in range(rows)], "check_set", number))

    def cloud(self, x0: Tensor, number: int = 0) -> Tensor:
        """Points (or parameters) in and far outside the set."""
        like = self.like(x0)
        width = 1.0 if not self.set.parametric else float(self.set.sample(x0, self.draws(7)).abs().max()) + 1
        return like + 0.6 * width * self.draws(200 + number).normal(like.shape[1:], dtype=x0.dtype)

    def directions(self, x0: Tensor, number: int = 0) -> Tensor:
        """Directions of mixed magnitude, some coordinates exactly 0, with ties."""
        shape = self.like(x0).shape[1:]
        a = self.draws(300 + number).normal(shape, dtype=x0.dtype)
        u = self.draws(400 + number).uniform(shape, dtype=x0.dtype)
        return torch.where(u < 0.15, 0, torch.where(u > 0.85, a.round(), a))

    def like(self, x0: Tensor) -> Tensor:
        """What the maps work on when nothing is moved: x0, or the parameters that leave it alone."""
        return torch.zeros_like(self.set.sample(x0, self.draws())) if self.set.parametric else x0

    def samples(self, x0: Tensor, count: int = 4) -> Iterator[Tensor]:
        """Points that the set holds by its own word."""
        for number in range(count):
            yield self.set.sample(x0, self.draws(500 + number))

    def known(self, x0: Tensor) -> list[Tensor]:
        """Points of the set from every map that makes some."""
        found = [self.like(x0)]
        for make in (
            lambda: list(self.samples(x0)),
            lambda: [self.set.project(x0, self.cloud(x0, 1))],
            lambda: [self.set.lmo(x0, self.directions(x0, 1))],
        ):
            try:
                found += make()
            except NotAvailable:
                continue
        return found

    def convex(self, x0: Tensor) -> bool:
        """Whether midpoints of known points stay inside, up to rounding."""
        points = self.known(x0)
        middles = [(a + b) / 2 for a in points for b in points]
        return all(bool(self.set.contains(x0, m, slack=1e-5).all()) for m in middles)
