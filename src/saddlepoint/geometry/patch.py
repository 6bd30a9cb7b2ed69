"""Patch: one h × w rectangle of the image may hold anything in the box; where, is the adversary's choice or fixed.

A union of masks over all positions. Every map scores all positions at once with a window sum and takes the best, so
project, lmo and support are exact. Not convex (unless the place is fixed).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from saddlepoint.core.arithmetic import gamma
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import snap
from saddlepoint.geometry.ball import proved_inner, proved_products
from saddlepoint.geometry.base import HullRounding, Interval, PerturbationSet, Rounding, check_points
from saddlepoint.geometry.box import Box, into_box
from saddlepoint.geometry.sizes import Size


@dataclass(frozen=True, init=False, eq=False)
class Patch(PerturbationSet):
    """`Patch(5, 5)` anywhere, `Patch(5, 5, at=(0, 3))` with its top left pixel in row 0, column 3.

    Its size is its area in pixels.
    """

    kind: ClassVar[str] = "patch"
    height: int
    width: int
    at: str | tuple[int, int]
    box: Box | None
    size: Size

    def __init__(
        self,
        height: int,
        width: int,
        at: str | tuple[int, int] = "any",
        box: Box | None = None,
        size: Size | None = None,
    ) -> None:
        area = Fraction(height * width)
        if height < 1 or width < 1:
            raise InputError(f"A patch of {height} by {width} pixels.", "Both sides are at least 1.")
        if isinstance(at, str) and at != "any":
            raise InputError(f"A patch at {at!r}.", 'Say "any" or (row, column).')
        if size is not None and size != area:
            raise InputError(f"A patch of {area} pixels with size {size}.", "Change height and width instead.")
        for name, value in (("height", height), ("width", width), ("at", at), ("box", box), ("size", area)):
            object.__setattr__(self, name, value)

    def within(self, box: Box) -> Patch:
        return replace(self, box=into_box(self.box, box))

    def canonical(self) -> dict[str, Any]:
        box = None if self.box is None else self.box.canonical()
        at = self.at if isinstance(self.at, str) else list(self.at)
        return {"kind": self.kind, "height": self.height, "width": self.width, "at": at, "box": box}

    def contains(
        self, x0: Float[Tensor, "b c h w"], x: Float[Tensor, "b c h w"], *, slack: float | int = 0.0
    ) -> Bool[Tensor, " b"]:
        """Exact: the moved pixels' bounding rectangle fits (with slack: pixels moved by more than it)."""
        self._check(x0)
        off = x != x0 if slack == 0 else ~((x.to(torch.float64) - x0.to(torch.float64)).abs() <= slack)
        if isinstance(self.at, str):
            fine = (_extent(off.any(1).any(2)) <= self.height) & (_extent(off.any(1).any(1)) <= self.width)
        else:
            fine = ~(off & ~self._region(x0, None)).flatten(1).any(-1)
        if self.box is None:
            return fine & torch.isfinite(x).flatten(1).all(-1)
        return fine & self.box.contains(x0, x, slack=slack)

    def project(self, x0: Float[Tensor, "b c h w"], x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The place that saves most distance, filled with x cut by the box."""
        self._check(x0, x)
        target = x
        if self.box is not None:
            lower, upper = self.box.limits(x)
            target = torch.clamp(x, lower, upper)
        start, wish, cut = (v.to(torch.float64) for v in (x0, x, target))
        saved = (cut - start) * ((wish - start) + (wish - cut))  # ‖x − x₀‖² − ‖x − cut‖², per coordinate
        return torch.where(self._best(x0, saved[:, None])[:, 0], target, x0)

    def lmo(self, x0: Float[Tensor, "b c h w"], g: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        self._check(x0, g.to(x0.dtype))
        lower, upper = self._box("lmo").limits(x0)
        corner = torch.where(g > 0, upper, torch.where(g < 0, lower, x0))
        return torch.where(self._best(x0, self._gain(x0, g[:, None]))[:, 0], corner, x0)

    def support(
        self, x0: Float[Tensor, "b c h w"], a: Float[Tensor, "b m c h w"], *, rounding: Rounding = "nearest"
    ) -> Float[Tensor, "b m"]:
        self._check(x0)
        gain = self._gain(x0, a.detach())
        if rounding == "nearest":
            lower, upper = (v[:, None].to(a.dtype) for v in self._box("support").limits(x0))
            here = x0[:, None].to(a.dtype)
            corner = torch.where(a > 0, upper, torch.where(a < 0, lower, here))
            best = torch.where(self._best(x0, gain), corner, here)
            return (a * best).flatten(2).sum(-1)  # Danskin: the gradient in A is the maximiser
        taken = torch.where(self._best(x0, gain), gain, torch.zeros_like(gain)).flatten(2)
        # γ twice: once for the sum, once because the best computed place may be another than the best exact one
        move = proved_products(taken) * (1 + gamma(2 * taken.shape[-1] + 8))
        return snap.add_up(proved_inner(x0, a), move)

    def hull(self, x0: Float[Tensor, "b c h w"], *, rounding: HullRounding = "out") -> Interval:
        """Every pixel that some place covers may be anything in the box."""
        if rounding == "in":
            self._refuse('hull(rounding="in")', "Use project, or Mask for a fixed place.")
        self._check(x0)
        lower, upper = self._box("hull").hull(x0, rounding=rounding)
        if isinstance(self.at, str):
            return Interval(lower, upper)
        region = self._region(x0, None)
        return Interval(torch.where(region, lower, x0), torch.where(region, upper, x0))

    def sample(self, x0: Float[Tensor, "b c h w"], draws: Draws) -> Float[Tensor, "b c h w"]:
        """A uniform place, filled uniformly from the box."""
        self._check(x0)
        content = self._box("sample").sample(x0, draws)
        if not isinstance(self.at, str):
            return torch.where(self._region(x0, None), content, x0)
        rows, columns = x0.shape[-2] - self.height + 1, x0.shape[-1] - self.width + 1
        place = draws.integers((1,), rows, stream=1) * columns + draws.integers((1,), columns, stream=2)
        return torch.where(self._region(x0, place.to(x0.device))[:, 0], content, x0)

    # -- places --------------------------------------------------------------------------------------------
    def _check(self, x0: Tensor, *others: Tensor) -> None:
        check_points(x0, *others)
        if x0.ndim != 4:
            raise InputError(f"A patch on points of shape {tuple(x0.shape[1:])}.", "Patches need images (C, H, W).")
        row, column = (0, 0) if isinstance(self.at, str) else self.at
        if row < 0 or column < 0 or row + self.height > x0.shape[2] or column + self.width > x0.shape[3]:
            raise InputError(
                f"A {self.height}x{self.width} patch at {self.at} leaves an image of {tuple(x0.shape[2:])}.",
                "Make it smaller or move it inside.",
            )
        if self.box is not None:
            self.box.require_inside(x0, "x0")

    def _box(self, map_name: str) -> Box:
        if self.box is None:
            raise NotAvailable(
                f"{map_name} of a patch without a box is unbounded.", "Give the data box: set.within(Box(0, 1))."
            )
        return self.box

    def _gain(self, x0: Tensor, a: Tensor) -> Tensor:
        """(b, m, c, h, w) float64 ≥ 0: what each coordinate adds to <a, z> at its best, rounded up."""
        point, weight = x0.to(torch.float64)[:, None], a.to(torch.float64)
        lower, upper = (v[:, None] for v in self._box("support").limits(point[:, 0]))
        room = torch.where(weight > 0, upper - point, point - lower)
        return weight.abs() * torch.where(room > 0, torch.nextafter(room, torch.full_like(room, torch.inf)), room)

    def _best(self, x0: Tensor, score: Tensor) -> Tensor:
        """(b, m, c, h, w) bool: the place of largest total score (the first on ties)."""
        if not isinstance(self.at, str):
            return self._region(x0, None)[:, None].expand(score.shape)
        total = functional.avg_pool2d(score.sum(2), (self.height, self.width), stride=1, divisor_override=1)
        place = total.flatten(2).argmax(-1)
        return self._region(x0, place).expand(score.shape)

    def _region(self, x0: Tensor, place: Tensor | None) -> Tensor:
        """The pixels of numbered places (b, m) -> (b, m, 1, h, w); of the fixed place -> (b, c, h, w)."""
        height, width = x0.shape[-2:]
        r, c = torch.arange(height, device=x0.device)[:, None], torch.arange(width, device=x0.device)
        if place is None:
            row, column = (0, 0) if isinstance(self.at, str) else self.at
            inside = (r >= row) & (r < row + self.height) & (c >= column) & (c < column + self.width)
            return inside.expand(x0.shape)
        number = place[..., None, None, None]
        row, column = number // (width - self.width + 1), number % (width - self.width + 1)
        return (r >= row) & (r < row + self.height) & (c >= column) & (c < column + self.width)


def _extent(hit: Tensor) -> Tensor:
    """(b, n) bool -> (b,): the length from the first hit to the last, 0 if there is none."""
    n = hit.shape[-1]
    index = torch.arange(n, device=hit.device)
    first = torch.where(hit, index, n).amin(-1)
    last = torch.where(hit, index, -1).amax(-1)
    return (last - first + 1).clamp(min=0)
