"""Rotation + translation (Engstrom et al. 2019): the adversary turns and shifts the image within limits.

A parametric set: a box in (angle, dy, dx) with |angle| ≤ size·rotation degrees and |dy|, |dx| ≤ size·shift pixels.
Every map but `render` works on parameters (b, 3); the witness is the parameters. The rendering convention is warp.py's.
First-order search in these parameters is unreliable (Engstrom et al., §4); `params_grid` is the exhaustive grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saddlepoint.core.arithmetic import exact, float_above, float_below, gamma
from saddlepoint.core.errors import DataError, InputError, NonFinite, NotAvailable
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import sizes
from saddlepoint.geometry.base import HullRounding, Interval, PerturbationSet, Rounding, check_points
from saddlepoint.geometry.box import Box, into_box
from saddlepoint.geometry.sizes import Size, SizeLike
from saddlepoint.geometry.warp import warp


@dataclass(frozen=True, init=False, eq=False)
class RotationTranslation(PerturbationSet):
    """`RotationTranslation("30", "3")`: up to 30 degrees either way, up to 3 pixels in each direction.

    Outside the image lie zeros; the result is clipped to the box, which only removes rounding when 0 is in the box.

    >>> RotationTranslation(30, 3).params_grid(angles=31, shifts=5).shape
    torch.Size([775, 3])
    """

    kind: ClassVar[str] = "spatial"
    parametric: ClassVar[bool] = True
    rotation: Fraction
    shift: Fraction
    box: Box | None
    size: Size

    def __init__(
        self,
        rotation: str | int | float | Fraction = "30",
        shift: str | int | float | Fraction = "3",
        box: Box | None = None,
        size: SizeLike = 1,
    ) -> None:
        limits = exact(rotation), exact(shift)
        if min(limits) < 0:
            raise InputError(f"rotation {rotation}, shift {shift}.", "Both are limits ≥ 0, in degrees and pixels.")
        for name, value in (("rotation", limits[0]), ("shift", limits[1]), ("box", box)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "size", sizes.parse_size(size))

    def resized(self, size: SizeLike) -> RotationTranslation:
        return replace(self, size=size)

    def rows(self, index: Tensor) -> RotationTranslation:
        return self if isinstance(self.size, Fraction) else replace(self, size=sizes.take(self.size, index))

    def within(self, box: Box) -> RotationTranslation:
        return replace(self, box=into_box(self.box, box))

    def canonical(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "rotation": str(self.rotation),
            "shift": str(self.shift),
            "size": sizes.text(self.size),
            "padding": "zeros",
            "box": None if self.box is None else self.box.canonical(),
        }

    def render(self, x0: Float[Tensor, "b c h w"], params: Float[Tensor, "b 3"]) -> Float[Tensor, "b c h w"]:
        """The image that the parameters make; differentiable in them almost everywhere."""
        image = warp(x0, params)
        if self.box is None:
            return image
        lower, upper = self.box.limits(image)
        return torch.clamp(image, lower, upper)

    def params_grid(self, angles: int = 31, shifts: int = 5) -> Float[Tensor, "k 3"]:
        """Every combination of evenly spaced angles and shifts, ends included; float32, inside the set.

        Odd counts hold the unmoved image. A limit of 0 gives that one value only.
        """
        if not isinstance(self.size, Fraction):
            raise NotAvailable("Per-sample sizes have no common grid.", "Take set.rows(index) with one size.")
        if angles < 1 or shifts < 1:
            raise InputError(f"A grid of {angles} angles and {shifts} shifts.", "Both counts are at least 1.")
        limit = self._limits(torch.zeros(1, 1, dtype=torch.float32))[0]
        axes = [_ladder(limit[i], n) for i, n in ((0, angles), (1, shifts), (2, shifts))]
        return torch.cartesian_prod(*axes)

    # -- maps on parameters --------------------------------------------------------------------------------
    def contains(
        self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b 3"], *, slack: float | int = 0.0
    ) -> Bool[Tensor, " b"]:
        """Parameters within the limits (slack in degrees and pixels)."""
        return (x.to(torch.float64).abs() <= self._limits(x.to(torch.float64)) + slack).all(-1)

    def hull(self, x0: Float[Tensor, "b *s"], *, rounding: HullRounding = "out") -> Interval:
        """The box of parameters (b, 3), in x₀'s dtype."""
        like = x0.flatten(1)[:, :1]
        limit = self._limits(like, rounding).expand(len(x0), 3)
        return Interval(-limit, limit)

    def project(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3"]:
        self._check(x0, x)
        limit = self._limits(x)
        return torch.clamp(x, -limit, limit)

    def lmo(self, x0: Float[Tensor, "b *s"], g: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3"]:
        self._check(x0, g)
        return torch.sign(g) * self._limits(g)

    def support(
        self, x0: Float[Tensor, "b *s"], a: Float[Tensor, "b m 3"], *, rounding: Rounding = "nearest"
    ) -> Float[Tensor, "b m"]:
        if rounding == "nearest":
            return (a.abs() * self._limits(a[:, 0])[:, None]).sum(-1)
        limit = self._limits(a[:, 0].to(torch.float64), "out")
        value = (a.to(torch.float64).abs() * limit[:, None]).sum(-1)  # three products ≥ 0: γ_3 relative
        return value * (1 + gamma(8)) + 3 * torch.finfo(torch.float64).tiny

    def gauge(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b 3"]) -> Float[Tensor, " b"]:
        """The largest of |angle|/rotation, |dy|/shift, |dx|/shift, rounded up; inf if a limit of 0 is left."""
        self._check(x0, x)
        unit = torch.tensor(
            [float_below(v) for v in (self.rotation, self.shift, self.shift)], dtype=torch.float64, device=x.device
        )
        move = x.to(torch.float64).abs()
        ratio = torch.where(move > 0, move / unit * (1 + gamma(8)), torch.zeros_like(move))
        return ratio.amax(-1)

    def sample(self, x0: Float[Tensor, "b *s"], draws: Draws) -> Float[Tensor, "b 3"]:
        """Parameters uniform in their box; float32 for float32 images."""
        lower, upper = self.hull(x0, rounding="in")
        u = draws.uniform((3,), dtype=torch.float64).to(x0.device)
        wide = upper.to(torch.float64)
        return torch.clamp(((2 * u - 1) * wide).to(x0.dtype), lower, upper)

    def _limits(self, like: Tensor, rounding: HullRounding = "in") -> Tensor:
        """(1, 3) or (b, 3) limits in `like`'s dtype, rounded inward or outward."""
        rounded = float_below if rounding == "in" else float_above
        base = (self.rotation, self.shift, self.shift)
        if isinstance(self.size, Fraction):
            return torch.tensor(
                [[rounded(v * self.size, like.dtype) for v in base]], dtype=like.dtype, device=like.device
            )
        wide = torch.tensor([[rounded(v) for v in base]], dtype=torch.float64, device=like.device)
        product = wide * sizes.below(self.size, like).reshape(-1, 1)
        end = 0.0 if rounding == "in" else torch.inf
        # one rounding each: the neighbour lies on the safe side of the exact product
        safe = torch.where(product > 0, torch.nextafter(product, torch.full_like(product, end)), product)
        near = safe.to(like.dtype)
        wrong = near.to(torch.float64) > safe if rounding == "in" else near.to(torch.float64) < safe
        return torch.where(wrong, torch.nextafter(near, torch.full_like(near, end)), near)

    def _check(self, x0: Tensor, params: Tensor) -> None:
        check_points(x0)
        if params.shape != (len(x0), 3):
            raise DataError(f"Parameters {tuple(params.shape)} for {len(x0)} images.", "Give (b, 3): angle, dy, dx.")
        if not bool(torch.isfinite(params).all()):
            raise NonFinite("A parameter is NaN or infinite.", "Check the gradient or the step that made it.")


def _ladder(limit: Tensor, count: int) -> Tensor:
    """`count` even steps from −limit to limit; 0 alone where there is nothing to step through."""
    if count == 1 or float(limit) == 0:
        return torch.zeros(1, dtype=limit.dtype)
    wide = limit.to(torch.float64)
    # symmetric by construction, with an exact 0 in the middle of an odd count
    steps = (2 * torch.arange(count, dtype=torch.float64) - (count - 1)) / (count - 1)
    return torch.clamp((steps * wide).to(limit.dtype), -limit, limit)
