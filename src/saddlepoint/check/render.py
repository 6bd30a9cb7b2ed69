"""Rendering of parametric witnesses, re-implemented for the checker: rotation and translation of images.

With angle θ (degrees) and shift (s_r, s_c) in pixels, output pixel (r, c) reads the input at

    (r', c') = c0 + R(θ) ((r, c) − c0 − s),   R(θ) = [[cos θ, sin θ], [−sin θ, cos θ]] in (row, column) order,

c0 = ((H − 1)/2, (W − 1)/2): the picture is turned by θ about its centre, then moved by s. Between pixels bilinear,
outside the picture zero. What leaves the data box is set to its nearest side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saddlepoint.check.membership import limits
from saddlepoint.core.arithmetic import float_above
from saddlepoint.core.errors import NotAvailable

SPATIAL = "spatial"  # the kind of set whose members are renderings


def parameter_box(described: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Limits (3,) float64 of angle (degrees), dy and dx (pixels), rounded outward."""
    scale = Fraction(described.get("size", "1"))
    turn, move = (float_above(Fraction(described[name]) * scale) for name in ("rotation", "shift"))
    upper = torch.tensor([turn, move, move], dtype=torch.float64)
    return -upper, upper


def require_unclipped(described: Mapping[str, Any], x0: Float[Tensor, "c h w"]) -> None:
    """Raise NotAvailable unless no rendering of x0 leaves the data box: every pixel is a mixture of pixels of its own
    channel and of 0, so it is enough that each channel's limits hold 0 and all of the channel's pixels."""
    box = described.get("box")
    if box is None:
        return
    lower, upper = (torch.tensor(limits(box[side], x0.numel(), tuple(x0.shape))) for side in ("lower", "upper"))
    low, high = (t.double().flatten(1) for t in (lower, upper))
    pixels = x0.detach().cpu().double().flatten(1)
    least, most = pixels.amin(1).clamp_max(0.0), pixels.amax(1).clamp_min(0.0)
    if not bool(((low.amax(1) <= least) & (most <= high.amin(1))).all()):
        raise NotAvailable(
            "a moved picture may leave the data box, where it is cut off: this is not bounded.",
            "Give samples inside a domain that holds 0.",
        )


def in_range(described: dict[str, Any], params: Float[Tensor, "b 3"]) -> Bool[Tensor, " b"]:
    """|θ| ≤ rotation·size and |s| ≤ shift·size, decided in rational arithmetic."""
    scale = Fraction(described.get("size", "1"))
    turn, move = Fraction(described["rotation"]) * scale, Fraction(described["shift"]) * scale
    limits = (turn, move, move)
    rows = params.detach().cpu().double().tolist()
    answers = [
        all(math.isfinite(p) and abs(Fraction(p)) <= limit for p, limit in zip(row, limits, strict=True))
        for row in rows
    ]
    return torch.tensor(answers, dtype=torch.bool)


def render(
    described: dict[str, Any], x0: Float[Tensor, "b c h w"], params: Float[Tensor, "b 3"]
) -> Float[Tensor, "b c h w"]:
    """The moved pictures, computed in float64 and rounded once to the type of x0, kept inside the box."""
    batch, channels, height, width = x0.shape
    image, p = x0.double(), params.double().to(x0.device)
    theta = torch.deg2rad(p[:, 0])[:, None, None]
    r0, c0 = (height - 1) / 2, (width - 1) / 2
    grid = (torch.arange(n, dtype=torch.float64, device=x0.device) for n in (height, width))
    r, c = torch.meshgrid(*grid, indexing="ij")
    dr, dc = r[None] - r0 - p[:, 1, None, None], c[None] - c0 - p[:, 2, None, None]
    rows = r0 + torch.cos(theta) * dr + torch.sin(theta) * dc
    columns = c0 - torch.sin(theta) * dr + torch.cos(theta) * dc
    top, left = rows.floor(), columns.floor()
    total = torch.zeros_like(image)
    flat = image.reshape(batch, channels, height * width)
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        weight = (1 - (rows - row).abs()).clamp(min=0) * (1 - (columns - column).abs()).clamp(min=0)
        seen = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
        picked = flat.gather(2, index.reshape(batch, 1, -1).expand(-1, channels, -1)).reshape(image.shape)
        total = total + (weight * seen)[:, None] * picked
    moved = total.to(x0.dtype)
    box = described.get("box")
    if box is None:
        return moved
    shape = tuple(moved.shape[1:])
    lower, upper = (torch.tensor(limits(box[side], math.prod(shape), shape)).to(moved) for side in ("lower", "upper"))
    return moved.clamp(lower, upper)
