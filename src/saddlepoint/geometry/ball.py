"""What the norm balls share: S(x₀) = {z : ‖z − x₀‖ ≤ size} ∩ box, box = the data's domain or nothing.

x₀ must lie in the box (else InputOutsideDomain): then every offset limit is ≤ 0 below and ≥ 0 above, the sets are
nested in their size, and size 0 leaves x₀ alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.core.arithmetic import gamma
from saddlepoint.geometry import sizes, snap
from saddlepoint.geometry.base import HullRounding, Interval, PerturbationSet, check_points
from saddlepoint.geometry.box import Box, into_box
from saddlepoint.geometry.sizes import Size, SizeLike

TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, init=False, eq=False)
class Ball(PerturbationSet):
    """A ball of a norm, intersected with a box. Sizes: "8/255", 0.5, Fraction, or a tensor (b,), one per row."""

    kind: ClassVar[str]
    size: Size
    box: Box | None

    def __init__(self, size: SizeLike, box: Box | None = None) -> None:
        object.__setattr__(self, "size", sizes.parse_size(size))
        object.__setattr__(self, "box", box)

    def resized(self, size: SizeLike) -> Ball:
        return replace(self, size=size)

    def rows(self, index: Tensor) -> Ball:
        return self if not isinstance(self.size, Tensor) else replace(self, size=sizes.take(self.size, index))

    def within(self, box: Box) -> Ball:
        return replace(self, box=into_box(self.box, box))

    def canonical(self) -> dict[str, Any]:
        box = None if self.box is None else self.box.canonical()
        return {"kind": self.kind, "size": sizes.text(self.size), "box": box}

    def hull(self, x0: Float[Tensor, "b *s"], *, rounding: HullRounding = "out") -> Interval:
        """x₀ ± size, cut by the box: the tightest box around any ℓp ball, p ≥ 1."""
        if rounding == "in":
            self._refuse('hull(rounding="in")', "It is not a box: use project.")
        self.check_center(x0)
        return around(x0, self.size, self.box, "out")

    # -- for the balls themselves --------------------------------------------------------------------------
    def check_center(self, x0: Tensor, *others: Tensor) -> None:
        """x₀ in the box, the others of its shape and finite."""
        check_points(x0, *others)
        if self.box is not None:
            self.box.require_inside(x0, "x0")

    def in_box(self, x0: Tensor, x: Tensor, slack: float | int) -> Tensor:
        """(b,): the box's part of `contains`; without a box, that x is finite."""
        if self.box is not None:
            return self.box.contains(x0, x, slack=slack)
        return torch.isfinite(x).flatten(1).all(-1)

    def caps(self, x0: Float[Tensor, "b *s"]) -> Interval:
        """How far each coordinate may fall (≤ 0) and rise (≥ 0) within the box; float64, ±inf without one."""
        point = x0.to(torch.float64)
        if self.box is None:
            free = torch.full_like(point, torch.inf)
            return Interval(-free, free)
        lower, upper = self.box.limits(point)
        return Interval(lower - point, upper - point)

    def caps_along(self, x0: Tensor, direction: Tensor) -> Tensor:
        """How far a coordinate may go in the direction's sign: float64 ≥ 0, shape of `direction`, rounded once."""
        lower, upper = self.caps(x0)
        if direction.ndim > x0.ndim:
            lower, upper = lower[:, None], upper[:, None]
        return torch.where(direction > 0, upper, -lower)

    def strict(self, x0: Float[Tensor, "b *s"], d: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        """x₀ + d as floats inside the set: rounded towards x₀, cut by the box, then shrunk while it must be."""
        z = self._cut(snap.toward(x0, d))
        shrink = torch.ones(len(x0), dtype=torch.float64, device=x0.device)
        for attempt in range(60):
            inside = self.contains(x0, z)
            if bool(inside.all()):
                return z
            # d was feasible up to a rounding error, so shrinking it by a few ulps, doubled each time, must end
            shrink = torch.where(inside, shrink, 1 - 2.0 ** min(attempt - 45, 0))
            z = self._cut(snap.toward(x0, d * shrink.reshape(-1, *([1] * (d.ndim - 1)))))
        return torch.where(self.contains(x0, z).reshape(-1, *([1] * (d.ndim - 1))), z, x0)

    def _cut(self, z: Tensor) -> Tensor:
        if self.box is None:
            return z
        lower, upper = self.box.limits(z)
        return torch.clamp(z, lower, upper)


def around(x0: Tensor, size: Size, box: Box | None, rounding: HullRounding) -> Interval:
    """x₀ ± size cut by the box, in x₀'s dtype, every step rounded inward or outward."""
    point = x0.to(torch.float64)
    if rounding == "in":
        radius = sizes.below(size, x0)  # ≤ size
        lower = snap.round_up(snap.add_up(point, -radius), x0.dtype)  # ≥ x₀ − size
        upper = snap.round_down(snap.add_down(point, radius), x0.dtype)  # ≤ x₀ + size
    else:
        radius = sizes.above(size, x0)  # ≥ size
        lower = snap.round_down(snap.add_down(point, -radius), x0.dtype)  # ≤ x₀ − size
        upper = snap.round_up(snap.add_up(point, radius), x0.dtype)  # ≥ x₀ + size
    if box is None:
        return Interval(lower, upper)
    low, high = box.limits(x0, rounding)
    return Interval(torch.maximum(lower, low), torch.minimum(upper, high))


def proved_sum(terms: Tensor) -> Tensor:
    """(..., n) -> (...) float64 ≥ Σ terms ≥ 0, each term itself a sum or difference rounded once.

    Σ exact ≤ Σ computed · (1 + γ_{2n+8}) in any order of summation, for all terms are ≥ 0 (Higham 2002, §3.1).
    """
    return terms.sum(-1) * (1 + gamma(2 * terms.shape[-1] + 8))


def proved_products(terms: Tensor) -> Tensor:
    """The same where the terms are products of two rounded numbers: n smallest normals cover their underflow."""
    return proved_sum(terms) + terms.shape[-1] * TINY


def proved_inner(x0: Tensor, rows: Tensor) -> Tensor:
    """(b, m) float64 ≥ <A_j, x₀>: the product plus γ_n <|A_j|, |x₀|> and an allowance for underflow."""
    a, x = rows.to(torch.float64).flatten(2), x0.to(torch.float64).flatten(1)[:, :, None]
    n = a.shape[-1]
    size = torch.bmm(a.abs(), x.abs())[..., 0]
    # two γ: one for the product itself, one for the rounding of `size` and of this addition
    return torch.bmm(a, x)[..., 0] + (gamma(n + 2) + gamma(2 * n + 8)) * size + 2 * n * TINY
