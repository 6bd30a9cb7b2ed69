"""ℓ2 ball ∩ box: ‖z − x₀‖₂ ≤ ε, lo ≤ z ≤ hi.

project: z − x₀ = clip(λ(x − x₀), lo, hi) with the largest λ ≤ 1 that fits; lmo: the same with g and any λ (KKT).
Both are one water filling. support = <A, lmo>; "up" by duality: for every split |a| = p + r with p, r ≥ 0,

    max <a, d> over ball ∩ box  ≤  ε ‖p‖₂ + <r, c>,   c = room in the direction of a,

with equality at p = a where the coordinate is free and p = c/λ where it is saturated, so the bound does not rest on
the accuracy of λ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saddlepoint.core.arithmetic import gamma
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import sizes, snap
from saddlepoint.geometry.ball import Ball, proved_inner, proved_products
from saddlepoint.geometry.base import OnHyperplane, Rounding, check_points
from saddlepoint.geometry.interval import on_hyperplane
from saddlepoint.geometry.waterfill import water_fill


@dataclass(frozen=True, init=False, eq=False)
class L2(Ball):
    """`L2(0.5)`.

    >>> L2(0.5).canonical()
    {'kind': 'l2', 'size': '1/2', 'box': None}
    """

    kind: ClassVar[str] = "l2"

    def contains(
        self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"], *, slack: float | int = 0.0
    ) -> Bool[Tensor, " b"]:
        """True is a proof: the float64 sum plus its rounding bound is ≤ ε². (False may err by 1e-12 relative.)"""
        d = (x.to(torch.float64) - x0.to(torch.float64)).flatten(1)
        limit = sizes.square_below(sizes.add(self.size, slack), d)
        fits = (proved_products(d.square())[:, None] <= limit)[:, 0]
        return (fits | (d == 0).all(-1)) & self.in_box(x0, x, slack)

    def project(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        self.check_center(x0, x)
        d = x.to(torch.float64) - x0.to(torch.float64)
        a, c = d.abs().flatten(1), self.caps_along(x0, d).flatten(1)
        # scaling by λ ≤ 1 only: inside the ball the box alone acts
        wanted = torch.minimum(a, c)
        outside = wanted.square().sum(-1, keepdim=True) > self._radius(x0) ** 2
        m = torch.where(outside, water_fill(a, c, self._radius(x0))[0], wanted)
        z = self.strict(x0, torch.copysign(m.reshape(d.shape), d))
        return torch.where(self.contains(x0, x).reshape(-1, *([1] * (x.ndim - 1))), x, z)

    def lmo(self, x0: Float[Tensor, "b *s"], g: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        self.check_center(x0)
        check_points(x0, g.to(x0.dtype))
        return self.strict(x0, self._ascend(x0, g[:, None])[:, 0])

    def support(
        self, x0: Float[Tensor, "b *s"], a: Float[Tensor, "b m *s"], *, rounding: Rounding = "nearest"
    ) -> Float[Tensor, "b m"]:
        self.check_center(x0)
        if rounding == "nearest":
            best = (x0.to(torch.float64)[:, None] + self._ascend(x0, a.detach())).to(a.dtype)
            return (a * best).flatten(2).sum(-1)  # Danskin: the gradient in A is the maximiser
        rows, c = a.to(torch.float64).flatten(2), self.caps_along(x0, a).flatten(2)
        c = torch.nextafter(c, torch.full_like(c, torch.inf))  # ≥ the exact room
        weight, radius = rows.abs(), sizes.above(self.size, rows)
        _, level = water_fill(weight, c, radius.expand(*weight.shape[:-1], 1))
        p = torch.minimum(weight, torch.nan_to_num(c / level, nan=torch.inf))  # any 0 ≤ p ≤ |a| gives a true bound
        r = weight - p
        walls = torch.where(r > 0, r * c, torch.zeros_like(r))
        ball = radius[..., 0] * proved_products(p.square()).sqrt()
        n = rows.shape[-1]
        # ball and walls are ≥ 0 with at most three more roundings each: γ covers them; the sums are rounded up
        move = (ball + proved_products(walls)) * (1 + gamma(n + 8))
        return snap.add_up(proved_inner(x0, a), move)

    def project_hyperplane(
        self,
        x0: Float[Tensor, "b *s"],
        x: Float[Tensor, "b *s"],
        w: Float[Tensor, "b *s"],
        c: Float[Tensor, " b"],
    ) -> OnHyperplane:
        """Nearest in ℓ2 within the box: z = clip(x + t w). `exists` is False where that point leaves the ball.

        (Two multipliers at once have no cheap form; minimum-norm attacks resize the ball out of the way.)
        """
        self.check_center(x0, x, w)
        free = torch.full_like(x0, torch.inf)
        limits = (-free, free) if self.box is None else self.box.limits(x0)
        found = on_hyperplane(x, w, c, limits, w)
        return OnHyperplane(found.points, found.exists & self.contains(x0, found.points))

    def gauge(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"]) -> Float[Tensor, " b"]:
        """‖x − x₀‖₂, rounded up so that `resized(gauge)` contains x; inf outside the box."""
        check_points(x0, x)
        d = (x.to(torch.float64) - x0.to(torch.float64)).flatten(1)
        # 8 u: the root, and the squaring and the lower neighbour that `contains` takes of it
        norm = proved_products(d.square()).sqrt() * (1 + gamma(8))
        norm = torch.where((d == 0).all(-1), torch.zeros_like(norm), norm)
        return torch.where(self.in_box(x0, x, 0.0), norm, torch.full_like(norm, torch.inf))

    def sample(self, x0: Float[Tensor, "b *s"], draws: Draws) -> Float[Tensor, "b *s"]:
        """Uniform in the ball's volume (radius u^{1/d} on a Gaussian direction), then into the box by projection."""
        self.check_center(x0)
        n = x0.shape[1:].numel()
        direction = draws.normal((n,), stream=0, dtype=torch.float64).to(x0.device)
        length = direction.square().sum(-1, keepdim=True).sqrt()
        fraction = draws.uniform((1,), stream=1, dtype=torch.float64).to(x0.device) ** (1 / n)
        d = (direction / torch.where(length > 0, length, 1.0) * fraction).reshape(x0.shape) * sizes.below(self.size, x0)
        lower, upper = self.caps(x0)
        return self.strict(x0, torch.clamp(d, lower, upper))  # in the ball already, so the clip is the projection

    def _radius(self, x0: Tensor) -> Tensor:
        """(b, 1) or (1, 1): just below ε, by the bound that `contains` will add."""
        n = x0.shape[1:].numel()
        radius = sizes.below(self.size, x0) * (1 - 2 * gamma(2 * n + 16))
        return radius.reshape(-1, 1).expand(len(x0), 1)

    def _ascend(self, x0: Tensor, a: Tensor) -> Tensor:
        """(b, m, *s) float64: the maximising offsets of every row."""
        c = self.caps_along(x0, a).flatten(2)
        weight = a.to(torch.float64).abs().flatten(2)
        m, _ = water_fill(weight, c, self._radius(x0)[:, None].expand(*weight.shape[:2], 1))
        return torch.copysign(m.reshape(a.shape), a.to(torch.float64))
