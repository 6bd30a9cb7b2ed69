"""ℓ1 ball ∩ box: Σ|zᵢ − x₀ᵢ| ≤ ε, lo ≤ z ≤ hi.

project: |zᵢ − x₀ᵢ| = clip(|uᵢ| − μ, 0, cᵢ), μ from the clipped sum's root (not a radial rescale: trap 16).
lmo: greedy, the coordinates with the largest |gᵢ| are filled first (T3). support "up" by duality, as in l2.py:
max <a, d> ≤ ε max p + <|a| − p, c> for every 0 ≤ p ≤ |a|; p = min(|a|, the last filled |a|) is tight.
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
from saddlepoint.geometry.ball import Ball, proved_inner, proved_products, proved_sum
from saddlepoint.geometry.base import OnHyperplane, Rounding, check_points
from saddlepoint.geometry.greedy import greedy_fill
from saddlepoint.geometry.knapsack import clipped_sum_root


@dataclass(frozen=True, init=False, eq=False)
class L1(Ball):
    """`L1(10)`.

    >>> L1(10).canonical()
    {'kind': 'l1', 'size': '10', 'box': None}
    """

    kind: ClassVar[str] = "l1"

    def contains(
        self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"], *, slack: float | int = 0.0
    ) -> Bool[Tensor, " b"]:
        """True is a proof: the float64 sum plus its rounding bound is ≤ ε. (False may err by 1e-12 relative.)"""
        d = (x.to(torch.float64) - x0.to(torch.float64)).flatten(1)
        limit = sizes.below(sizes.add(self.size, slack), d)
        return (proved_sum(d.abs())[:, None] <= limit)[:, 0] & self.in_box(x0, x, slack)

    def project(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        self.check_center(x0, x)
        d = x.to(torch.float64) - x0.to(torch.float64)
        a, c = d.abs().flatten(1), self.caps_along(x0, d).flatten(1)
        radius = self._radius(x0)
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        t, _ = clipped_sum_root(a, one, zero, c, one, radius)
        m = torch.minimum((a + t.clamp(max=0)[:, None]).clamp(min=0), c)  # t > 0: already inside, μ = 0
        m = torch.where((radius > 0)[:, None], m, zero)
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
        weight, c = a.to(torch.float64).abs().flatten(2), self.caps_along(x0, a).flatten(2)
        c = torch.nextafter(c, torch.full_like(c, torch.inf))  # ≥ the exact room
        radius = sizes.above(self.size, weight)
        _, last = greedy_fill(weight, c, radius.expand(*weight.shape[:-1], 1))
        r = weight - torch.minimum(weight, last)  # any 0 ≤ p ≤ |a| gives a true bound
        walls = torch.where(r > 0, r * c, torch.zeros_like(r))
        ball = radius[..., 0] * torch.minimum(weight.amax(-1), last[..., 0])
        # ball and walls are ≥ 0 with at most three more roundings each: γ covers them; the sums are rounded up
        move = (ball + proved_products(walls)) * (1 + gamma(8))
        return snap.add_up(proved_inner(x0, a), move)

    def project_hyperplane(
        self,
        x0: Float[Tensor, "b *s"],
        x: Float[Tensor, "b *s"],
        w: Float[Tensor, "b *s"],
        c: Float[Tensor, " b"],
    ) -> OnHyperplane:
        """Nearest in ℓ1 within the box: the largest |wᵢ| move first. x in the box.

        `exists` is False where that point leaves the ball (resize it out of the way for minimum-norm attacks).
        """
        self.check_center(x0, x, w)
        point, slope = x.to(torch.float64), w.to(torch.float64)
        missing = c.to(torch.float64) - (point * slope).flatten(1).sum(-1)
        way = torch.sign(slope) * torch.sign(missing).reshape(-1, *([1] * (x.ndim - 1)))
        room, steep = self.caps_along(x, way).flatten(1), slope.abs().flatten(1)
        gain = torch.minimum(torch.where(steep > 0, steep * room, 0.0), missing.abs()[:, None])
        filled, _ = greedy_fill(steep, gain, missing.abs()[:, None])
        d = torch.where(steep > 0, filled / steep, 0.0).reshape(x.shape) * way
        z = self._cut((point + d).to(x.dtype))
        reached = filled.sum(-1) >= missing.abs() * (1 - 1e-12)
        return OnHyperplane(z, reached & self.contains(x0, z))

    def gauge(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"]) -> Float[Tensor, " b"]:
        """‖x − x₀‖₁, rounded up so that `resized(gauge)` contains x; inf outside the box."""
        check_points(x0, x)
        norm = proved_sum((x.to(torch.float64) - x0.to(torch.float64)).abs().flatten(1))
        return torch.where(self.in_box(x0, x, 0.0), norm, torch.full_like(norm, torch.inf))

    def sample(self, x0: Float[Tensor, "b *s"], draws: Draws) -> Float[Tensor, "b *s"]:
        """Uniform in the ball's volume (signed exponentials over their sum and one more), then into the box."""
        self.check_center(x0)
        n = x0.shape[1:].numel()
        e = -torch.log1p(-draws.uniform((n + 1,), stream=0, dtype=torch.float64).to(x0.device))
        share = (e / e.sum(-1, keepdim=True).clamp(min=1e-300))[:, :n]
        signs = draws.sign((n,), stream=1, dtype=torch.float64).to(x0.device)
        d = (share * signs).reshape(x0.shape) * sizes.below(self.size, x0)
        lower, upper = self.caps(x0)
        return self.strict(x0, torch.clamp(d, lower, upper))  # in the ball already, so the clip is the projection

    def _radius(self, x0: Tensor) -> Tensor:
        """(b,): just below ε, by the bound that `contains` will add."""
        n = x0.shape[1:].numel()
        radius = sizes.below(self.size, x0) * (1 - 2 * gamma(2 * n + 16))
        return radius.reshape(-1).expand(len(x0))

    def _ascend(self, x0: Tensor, a: Tensor) -> Tensor:
        """(b, m, *s) float64: the maximising offsets of every row."""
        c = self.caps_along(x0, a).flatten(2)
        weight = a.to(torch.float64).abs().flatten(2)
        m, _ = greedy_fill(weight, c, self._radius(x0)[:, None, None].expand(*weight.shape[:2], 1))
        return torch.copysign(m.reshape(a.shape), a.to(torch.float64))
