"""What minimum-size attacks share: the norm of an offset, the data box, balls of another size, schedules.

Of the rows' set only its norm and its box count. ℓ0 counts pixels: for images (b, C, H, W) all channels of a pixel
together, else every feature (geometry/l0.py).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from saddlepoint.attack.losses import margin
from saddlepoint.attack.protocol import Objective
from saddlepoint.attack.rows import Rows
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import NotAvailable
from saddlepoint.geometry import L0, L1, L2, Linf
from saddlepoint.geometry.ball import Ball
from saddlepoint.spec.goal import Targeted

NORMS = (Linf, L2, L1, L0)


def ball(rows: Rows, attack: str, kinds: tuple[type, ...] = NORMS) -> Ball:
    """The rows' set, if it is a ball of one of these norms. Raises NotAvailable otherwise."""
    if not isinstance(rows.set, kinds) or not isinstance(rows.set, Ball):
        known = ", ".join(k.__name__ for k in kinds)
        raise NotAvailable(f"{attack} has no rule for {type(rows.set).__name__}.", f"It minimises the norms {known}.")
    return rows.set


def box(rows: Rows) -> tuple[Tensor, Tensor]:
    """The data box, broadcastable against x0; infinite where there is none."""
    data = getattr(rows.set, "box", None)
    if data is None:
        free = torch.full_like(rows.x0[:1], torch.inf)
        return -free, free
    return data.limits(rows.x0)


def norm(rows: Rows, offset: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """‖offset‖ in the set's norm."""
    flat = offset.flatten(1)
    if isinstance(rows.set, Linf):
        return flat.abs().amax(1)
    if isinstance(rows.set, L2):
        return torch.linalg.vector_norm(flat, dim=1)
    if isinstance(rows.set, L1):
        return flat.abs().sum(1)
    return (pixels(offset) > 0).sum(1).to(offset.dtype)


def pixels(offset: Float[Tensor, "b ..."]) -> Float[Tensor, "b p"]:
    """Largest |offset| of every pixel: over the channels of an image, else the feature's own."""
    size = offset.abs()
    return (size.amax(1) if offset.ndim == 4 else size).flatten(1)


def per_pixel(values: Shaped[Tensor, "b p"], like: Float[Tensor, "b ..."]) -> Shaped[Tensor, "b ..."]:
    """Values of pixels, broadcastable against `like`."""
    return values.reshape(len(like), 1, *like.shape[2:]) if like.ndim == 4 else values.reshape(like.shape)


def nearest(rows: Rows, x: Float[Tensor, "b ..."], size: Float[Tensor, " b"]) -> Float[Tensor, "b ..."]:
    """The nearest point to x of the ball of that size around x0, for x in the box.

    x0 and x lie in the box, and every offset only shrinks towards 0, so the ball's own projection stays in the box and
    is the projection onto ball ∩ box. In the points' own dtype: a step rule needs no proof of membership.
    """
    d = x - rows.x0
    limit = per_row(size.to(d.dtype), d)
    if isinstance(rows.set, Linf):
        return rows.x0 + torch.maximum(torch.minimum(d, limit), -limit)
    if isinstance(rows.set, L2):
        length = per_row(norm(rows, d), d)
        return rows.x0 + d * torch.where(length > limit, limit / length.clamp_min(torch.finfo(d.dtype).tiny), 1)
    if isinstance(rows.set, L1):
        return rows.x0 + d.sign() * (d.abs() - per_row(_threshold(d.abs().flatten(1), size.to(d.dtype)), d)).clamp_min(
            0
        )
    energy = (d.square().sum(1) if d.ndim == 4 else d.square()).flatten(1)
    rank = energy.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return torch.where(per_pixel(rank < size[:, None], d), x, rows.x0)


def _threshold(a: Float[Tensor, "b n"], size: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """μ ≥ 0 with Σ max(a − μ, 0) = size, 0 where Σ a ≤ size already (Duchi et al. 2008)."""
    value = a.sort(1, descending=True).values
    count = torch.arange(1, a.shape[1] + 1, device=a.device)
    mu = (value.cumsum(1) - size[:, None]) / count
    last = (value > mu).sum(1, keepdim=True).clamp_min(1) - 1
    return mu.gather(1, last)[:, 0].nan_to_num(neginf=0.0).clamp_min(0)


def broken(margin: Float[Tensor, " b"]) -> Bool[Tensor, " b"]:
    """Where the goal is reached (a tie breaks); NaN is no success."""
    return margin <= 0


def cosine(first: float, last: float, step: int, steps: int) -> float:
    """From `first` at step 0 to `last` at step `steps`, along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * min(step, steps) / max(steps, 1))) / 2


def likeliest(clean: Float[Tensor, "b k"], y: Int64[Tensor, " b"], count: int) -> Int64[Tensor, "b t"]:
    """The classes with the `count` largest logits, y left out, (b, min(count, K − 1))."""
    others = clean.nan_to_num(nan=-3e38).scatter(1, y[:, None], -torch.inf)
    return others.topk(min(count, clean.shape[1] - 1), dim=1).indices


def lead(rows: Rows) -> Objective:
    """z_t − z_y; for a goal with a target of its own, by how much that leads all others: z_t ≥ z_y would not do."""
    if isinstance(rows.goal, Targeted):
        return lambda z, y, target: -rows.goal.margin(z, y)
    return margin
