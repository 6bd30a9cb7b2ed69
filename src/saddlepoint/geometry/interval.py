"""Sets that are boxes: S(x₀) = {z : lower(x₀) ≤ z ≤ upper(x₀)}.

Every map is coordinatewise, exact and one or two passes:
    project = clamp,   lmo = the corner g points to,   support(a) = Σ max(aᵢ loᵢ, aᵢ hiᵢ)    (T3)
A subclass supplies `hull` (both roundings) and `contains`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.core.arithmetic import gamma
from saddlepoint.core.errors import NotAvailable
from saddlepoint.core.rng import Draws
from saddlepoint.geometry.base import OnHyperplane, PerturbationSet, Rounding, check_points
from saddlepoint.geometry.knapsack import clipped_sum_root

TINY = torch.finfo(torch.float64).tiny


class IntervalSet(PerturbationSet):
    """A box per row. Sampling is uniform in its volume."""

    def project(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        check_points(x0, x)
        lower, upper = self.hull(x0, rounding="in")
        return torch.clamp(x, lower, upper)

    def lmo(self, x0: Float[Tensor, "b *s"], g: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        check_points(x0, g.to(x0.dtype))
        lower, upper = self.hull(x0, rounding="in")
        stay = torch.clamp(x0, lower, upper)  # where g = 0 every value is optimal; the nearest to x₀ it is
        return torch.where(g > 0, upper, torch.where(g < 0, lower, stay))

    def support(
        self, x0: Float[Tensor, "b *s"], a: Float[Tensor, "b m *s"], *, rounding: Rounding = "nearest"
    ) -> Float[Tensor, "b m"]:
        lo, hi = self.hull(x0.to(torch.float64), rounding="out")
        if rounding == "nearest":
            return _corner_values(a, lo.to(a.dtype), hi.to(a.dtype))
        rows = a.to(torch.float64)
        value = _corner_values(rows, lo, hi)
        # |computed − exact| ≤ γ_{2n+1} Σ |aᵢ| max(|loᵢ|, |hiᵢ|), whatever the order of summation
        # (Higham 2002, §3.1), + 2n smallest normals for underflow; twice that for this bound's own rounding
        extent = torch.maximum(lo.abs(), hi.abs())
        extent = torch.where(torch.isfinite(extent), extent, torch.zeros_like(extent))  # the value is then inf
        weight = torch.bmm(rows.flatten(2).abs(), extent.flatten(1)[:, :, None])[..., 0]
        n = rows.flatten(2).shape[-1]
        return value + (2 * gamma(2 * n + 8) * weight + 4 * n * TINY)

    def sample(self, x0: Float[Tensor, "b *s"], draws: Draws) -> Float[Tensor, "b *s"]:
        """Uniform in the box."""
        lower, upper = self.hull(x0, rounding="in")
        if not bool((torch.isfinite(lower) & torch.isfinite(upper)).all()):
            raise NotAvailable("An unbounded box has no uniform distribution.", "Intersect it with a bounded box.")
        lo, hi = lower.to(torch.float64), upper.to(torch.float64)
        u = draws.uniform(x0.shape[1:], dtype=torch.float64).to(x0.device)
        return torch.clamp((lo + u * (hi - lo)).to(x0.dtype), lower, upper)

    def project_hyperplane(
        self,
        x0: Float[Tensor, "b *s"],
        x: Float[Tensor, "b *s"],
        w: Float[Tensor, "b *s"],
        c: Float[Tensor, " b"],
    ) -> OnHyperplane:
        """Nearest in ℓ∞: z = clip(x + t·sign w, lo, hi), t from <w, z> = c (Croce & Hein 2020, FAB). x inside S."""
        check_points(x0, x, w)
        lower, upper = self.hull(x0, rounding="in")
        return on_hyperplane(x, w, c, (lower, upper), torch.sign(w))


def on_hyperplane(x: Tensor, w: Tensor, c: Tensor, limits: tuple[Tensor, Tensor], direction: Tensor) -> OnHyperplane:
    """z = clip(x + t·direction, limits) with <w, z> = c; direction = w is the ℓ2, sign w the ℓ∞ projection.

    <w, z> is nondecreasing in t because w·direction ≥ 0. `exists` is False where no t reaches c.
    """
    lower, upper = limits
    p, q, b = (v.to(torch.float64).flatten(1) for v in (x, direction, w))
    lo, hi = (v.to(torch.float64).expand(x.shape).flatten(1) for v in (lower, upper))
    t, exists = clipped_sum_root(p, q, lo, hi, b, c.to(torch.float64))
    z = torch.clamp(p + t[:, None] * q, lo, hi).reshape(x.shape).to(x.dtype)
    return OnHyperplane(torch.clamp(z, lower, upper), exists)


def _corner_values(a: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Σ aᵢ⁺ hiᵢ − aᵢ⁻ loᵢ = Σ max(aᵢ loᵢ, aᵢ hiᵢ), (b, m); 0·∞ counts as 0."""
    rows = a.flatten(2)
    lo, hi = lower.expand(a[:, 0].shape).flatten(1), upper.expand(a[:, 0].shape).flatten(1)
    if bool((torch.isfinite(lo) & torch.isfinite(hi)).all()):
        plus = torch.bmm(rows.clamp(min=0), hi[:, :, None])
        return (plus + torch.bmm(rows.clamp(max=0), lo[:, :, None]))[..., 0]
    corner = torch.where(rows > 0, hi[:, None], lo[:, None])
    return torch.where(rows != 0, rows * corner, torch.zeros_like(rows)).sum(-1)
