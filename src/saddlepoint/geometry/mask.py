"""Mask: the adversary may set the marked pixels to anything in the box, and nothing else. A box per row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.geometry.base import HullRounding, Interval, check_points
from saddlepoint.geometry.box import Box, into_box
from saddlepoint.geometry.interval import IntervalSet
from saddlepoint.geometry.sizes import Size


@dataclass(frozen=True, init=False, eq=False)
class Mask(IntervalSet):
    """`Mask(mask, Box(0, 1))`: mask (H, W) for images, all channels of a pixel together, or (d,) for features.

    Its size is the number of marked pixels. Samples are uniform.
    """

    kind: ClassVar[str] = "mask"
    mask: Tensor
    box: Box | None
    size: Size

    def __init__(self, mask: Tensor, box: Box | None = None, size: Size | None = None) -> None:
        if mask.dtype != torch.bool or mask.ndim not in (1, 2) or mask.numel() == 0:
            raise InputError(f"A mask of {mask.dtype} and shape {tuple(mask.shape)}.", "Give booleans, (H, W) or (d,).")
        count = Fraction(int(mask.sum()))
        if size is not None and size != count:
            raise InputError(f"A mask of {count} pixels with size {size}.", "The size follows from the mask.")
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "box", box)
        object.__setattr__(self, "size", count)

    def within(self, box: Box) -> Mask:
        return replace(self, box=into_box(self.box, box))

    def canonical(self) -> dict[str, Any]:
        image = self.mask.ndim == 2
        rows = self.mask.tolist() if image else [self.mask.tolist()]
        box = None if self.box is None else self.box.canonical()
        text = ["".join("01"[v] for v in row) for row in rows]
        return {"kind": self.kind, "image": image, "rows": text, "box": box}

    def hull(self, x0: Float[Tensor, "b *s"], *, rounding: HullRounding = "out") -> Interval:
        check_points(x0)
        if self.box is None:
            raise NotAvailable("A mask without a box is unbounded.", "Give the data box: set.within(Box(0, 1)).")
        self.box.require_inside(x0, "x0")
        lower, upper = self.box.limits(x0, rounding)
        marked = self._marked(x0)
        return Interval(torch.where(marked, lower, x0), torch.where(marked, upper, x0))

    def contains(
        self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"], *, slack: float | int = 0.0
    ) -> Bool[Tensor, " b"]:
        """Exact: unmarked coordinates equal x₀ (within slack)."""
        same = x == x0 if slack == 0 else (x.to(torch.float64) - x0.to(torch.float64)).abs() <= slack
        fine = (same | (self._marked(x0) & torch.isfinite(x))).flatten(1).all(-1)
        return fine if self.box is None else fine & self.box.contains(x0, x, slack=slack)

    def _marked(self, x0: Tensor) -> Tensor:
        shape = tuple(x0.shape[-2:]) if self.mask.ndim == 2 else tuple(x0.shape[1:])
        if tuple(self.mask.shape) != shape or (self.mask.ndim == 2) != (x0.ndim == 4):
            raise InputError(
                f"A mask {tuple(self.mask.shape)} meets points {tuple(x0.shape[1:])}.", "Give it the image's (H, W)."
            )
        return self.mask.to(x0.device).expand(x0.shape)
