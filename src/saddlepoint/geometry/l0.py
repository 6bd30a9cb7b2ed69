"""ℓ0 ball ∩ box: at most k pixels differ from x₀, each anywhere in the box.

For images (b, C, H, W) a pixel is all its channels together; otherwise every feature counts. k = ⌊size⌋.
project, lmo and support decide pixel by pixel what it would gain from moving and let the k best move: exact,
because pixels do not interact. Cost: one sort of every row.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saddlepoint.core.arithmetic import gamma
from saddlepoint.core.errors import NotAvailable
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import snap
from saddlepoint.geometry.ball import Ball, proved_inner, proved_products
from saddlepoint.geometry.base import HullRounding, Interval, Rounding, check_points
from saddlepoint.geometry.box import Box


@dataclass(frozen=True, init=False, eq=False)
class L0(Ball):
    """`L0(20)`: twenty pixels. Not convex: a mean of two points may leave it.

    >>> L0(20).canonical()
    {'kind': 'l0', 'size': '20', 'box': None}
    """

    kind: ClassVar[str] = "l0"

    def contains(
        self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"], *, slack: float | int = 0.0
    ) -> Bool[Tensor, " b"]:
        """Exact. With slack, a coordinate within `slack` of x₀ counts as unmoved."""
        return (self._moved(x0, x, slack) <= self._k(x0)[:, 0]) & self.in_box(x0, x, slack)

    def gauge(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"]) -> Float[Tensor, " b"]:
        """How many pixels differ; inf outside the box."""
        check_points(x0, x)
        count = self._moved(x0, x, 0.0).to(torch.float64)
        return torch.where(self.in_box(x0, x, 0.0), count, torch.full_like(count, torch.inf))

    def hull(self, x0: Float[Tensor, "b *s"], *, rounding: HullRounding = "out") -> Interval:
        """The whole box for k ≥ 1, x₀ for k = 0."""
        if rounding == "in":
            self._refuse('hull(rounding="in")', "It is not a box: use project.")
        self.check_center(x0)
        lower, upper = self._box("hull").hull(x0, rounding=rounding)
        free = (self._k(x0) >= 1).reshape(-1, *([1] * (x0.ndim - 1)))
        return Interval(torch.where(free, lower, x0), torch.where(free, upper, x0))

    def project(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        """Moves the k pixels whose move saves most: ‖x_p − x₀_p‖² − ‖x_p − clip(x_p)‖²."""
        self.check_center(x0, x)
        target = self._cut(x)
        start, wish, cut = (v.to(torch.float64) for v in (x0, x, target))
        # (u² − v²) as (u − v)(u + v): no cancellation
        saved = (cut - start) * ((wish - start) + (wish - cut))
        return torch.where(self._chosen(x0, saved[:, None])[:, 0], target, x0)

    def lmo(self, x0: Float[Tensor, "b *s"], g: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        self.check_center(x0)
        check_points(x0, g.to(x0.dtype))
        lower, upper = self._box("lmo").limits(x0)
        corner = torch.where(g > 0, upper, torch.where(g < 0, lower, x0))
        return torch.where(self._chosen(x0, self._gain(x0, g[:, None]))[:, 0], corner, x0)

    def support(
        self, x0: Float[Tensor, "b *s"], a: Float[Tensor, "b m *s"], *, rounding: Rounding = "nearest"
    ) -> Float[Tensor, "b m"]:
        self.check_center(x0)
        gain = self._gain(x0, a.detach())
        chosen = self._chosen(x0, gain)
        if rounding == "nearest":
            lower, upper = (v[:, None].to(a.dtype) for v in self._box("support").limits(x0))
            corner = torch.where(a > 0, upper, torch.where(a < 0, lower, x0[:, None].to(a.dtype)))
            best = torch.where(chosen, corner, x0[:, None].to(a.dtype))
            return (a * best).flatten(2).sum(-1)  # Danskin: the gradient in A is the maximiser
        # γ twice: once for the sum, once because the best computed pixels may be others than the best exact ones
        taken = torch.where(chosen, gain, torch.zeros_like(gain)).flatten(2)
        move = proved_products(taken) * (1 + gamma(2 * taken.shape[-1] + 8))
        return snap.add_up(proved_inner(x0, a), move)

    def sample(self, x0: Float[Tensor, "b *s"], draws: Draws) -> Float[Tensor, "b *s"]:
        """k pixels drawn without replacement, each uniform in the box."""
        self.check_center(x0)
        shape = tuple(x0.shape[1:])
        everywhere = self._box("sample").sample(x0, draws)
        order = draws.uniform(shape[-2:] if x0.ndim == 4 else shape, stream=1, dtype=torch.float64).to(x0.device)
        order = 1 + (order[:, None].expand(x0.shape) if x0.ndim == 4 else order)
        return torch.where(self._chosen(x0, order[:, None])[:, 0], everywhere, x0)

    def _k(self, x0: Tensor) -> Tensor:
        """(b, 1) int64."""
        if isinstance(self.size, Fraction):
            return torch.full((len(x0), 1), self.size.numerator // self.size.denominator, device=x0.device)
        return self.size.to(x0.device).floor().to(torch.int64)[:, None]

    def _box(self, map_name: str) -> Box:
        if self.box is None:
            raise NotAvailable(
                f"{map_name} of an l0 ball without a box is unbounded.", "Give the data box: set.within(Box(0, 1))."
            )
        return self.box

    def _moved(self, x0: Tensor, x: Tensor, slack: float | int) -> Tensor:
        off = x != x0 if slack == 0 else ~((x.to(torch.float64) - x0.to(torch.float64)).abs() <= slack)
        return (off.any(1) if x0.ndim == 4 else off).flatten(1).sum(-1)

    def _gain(self, x0: Tensor, a: Tensor) -> Tensor:
        """(b, m, *s) float64 ≥ 0: what each coordinate adds to <a, z> at its best, rounded up."""
        self._box("support")
        c = self.caps_along(x0, a)
        c = torch.where(c > 0, torch.nextafter(c, torch.full_like(c, torch.inf)), c)  # ≥ the exact room
        return a.to(torch.float64).abs() * c

    def _chosen(self, x0: Tensor, gain: Tensor) -> Tensor:
        """(b, m, *s) bool: the k pixels of largest positive gain (first come first on ties)."""
        image = x0.ndim == 4
        per_pixel = (gain.sum(2) if image else gain).flatten(2)
        value, order = torch.sort(per_pixel, dim=-1, descending=True, stable=True)
        rank = torch.arange(value.shape[-1], device=value.device)
        first = (rank < self._k(x0)[:, None]) & (value > 0)
        chosen = torch.zeros_like(first).scatter(-1, order, first)
        if not image:
            return chosen.reshape(gain.shape)
        return chosen.reshape(*gain.shape[:2], 1, *gain.shape[3:]).expand(gain.shape)
