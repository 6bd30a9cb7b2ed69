"""What one perturbation for all samples means: where it may lie, and what it does to each of them.

    additive   x_i = P_{S(x_i)}(x_i + δ)        pasted   x_i = P_{S(x_i)}(δ), the same content at the same place in all

For a norm ball δ lies in the ball around 0 and P only cuts x_i + δ to the data box, which brings it nearer to x_i: the
point is in S(x_i). For boxes, masks and patches at a fixed place δ lies in the enclosing box of all S(x_i) − x_i
(pasted: of all S(x_i)). For parametric sets δ is the parameters.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.attack.rows import Rows
from saddlepoint.attack.steps import project, unmoved
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.geometry import Box, Patch
from saddlepoint.geometry.ball import Ball

_FREE = Box(-float("inf"), float("inf"))


def home(rows: Rows, pasted: bool) -> Rows:
    """One row whose set is where δ lives: steps and projections of δ are those of this row around 0."""
    _require(rows, pasted)
    x0 = unmoved(rows) if rows.set.parametric else rows.x0
    zero = torch.zeros_like(x0[:1])
    one = Rows(zero, rows.y[:1], ("δ",), _FREE)
    if isinstance(rows.set, Ball):
        return replace(one, set=replace(rows.set, box=None))
    lower, upper = rows.limits or rows.set.hull(rows.x0)
    origin = 0 if pasted or rows.set.parametric else rows.x0
    limits = (lower - origin).amin(0, keepdim=True), (upper - origin).amax(0, keepdim=True)
    return replace(one, limits=limits)


def first(rows: Rows, pasted: bool) -> Float[Tensor, "1 ..."]:
    """δ that changes nothing; pasted: the mean image."""
    one = home(rows, pasted)
    return project(one, rows.x0.mean(0, keepdim=True) if pasted and not rows.set.parametric else one.x0)


def points(rows: Rows, delta: Float[Tensor, "d ..."], pasted: bool) -> Float[Tensor, "b ..."]:
    """What δ (one, or the same in every row) makes of each sample."""
    if pasted or rows.set.parametric:
        return project(rows, delta.expand(len(rows), *delta.shape[1:]))
    return project(rows, rows.x0 + delta)


def _require(rows: Rows, pasted: bool) -> None:
    if isinstance(rows.set.size, Tensor):
        raise InputError("one perturbation under a size per sample.", "Give one size: set.resized(size).")
    if isinstance(rows.set, Patch) and isinstance(rows.set.at, str):
        raise NotAvailable("a universal patch needs one place.", "Fix it: Patch(5, 5, at=(0, 0)), or use a Mask.")
    if pasted and isinstance(rows.set, Ball):
        raise NotAvailable(
            f"the same content in every image leaves {type(rows.set).__name__}.", "Paste into a Mask or a Patch."
        )
