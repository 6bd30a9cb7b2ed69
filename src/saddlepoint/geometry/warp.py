"""The warp behind rotation + translation: one bilinear, differentiable resampling with zeros outside.

Convention (a checker can re-implement it from this text). Image x (C, H, W), centre cy = (H−1)/2, cx = (W−1)/2.
Rows count downwards. The image is first rotated by `angle` degrees counter-clockwise as one sees it (90 is
`torch.rot90(x, 1, (-2, -1))`), about the centre, then moved `dy` rows down and `dx` columns to the right.
So output pixel (r, c) reads the input at
    v = r − cy − dy,   u = c − cx − dx,   θ = angle·π/180
    row = cy + u·sin θ + v·cos θ,   column = cx + u·cos θ − v·sin θ
bilinearly from the four neighbours (floor(row), floor(column)) + {0,1}²; a neighbour outside the image counts 0.
Positions and weights are computed in float64, the weights rounded to the image's dtype, and the four terms added as
(w00 x00 + w01 x01) + (w10 x10 + w11 x11). Angles are reduced by the nearest multiple of 90 degrees first, for which
sine and cosine are exact, so quarter turns and whole-pixel shifts copy pixels without rounding.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def warp(x: Float[Tensor, "b c h w"], params: Float[Tensor, "b 3"]) -> Float[Tensor, "b c h w"]:
    """Rotated and shifted images; params (b, 3) = angle (degrees), dy, dx (pixels). Differentiable in both."""
    row, column = _positions(params.to(torch.float64), x.shape[-2], x.shape[-1])
    top, left = row.detach().floor(), column.detach().floor()
    down, right = row - top, column - left
    pixels = x.flatten(2)
    upper = _corner(pixels, x.shape, top, left, (1 - down) * (1 - right)) + _corner(
        pixels, x.shape, top, left + 1, (1 - down) * right
    )
    lower = _corner(pixels, x.shape, top + 1, left, down * (1 - right)) + _corner(
        pixels, x.shape, top + 1, left + 1, down * right
    )
    return (upper + lower).reshape(x.shape)


def _positions(params: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where each output pixel reads: rows and columns (b, h, w), float64."""
    angle, dy, dx = (params[:, i, None, None] for i in range(3))
    quarter = torch.round(angle.detach() / 90)
    rest = (angle - 90 * quarter) * (math.pi / 180)  # |rest| ≤ 45°, the subtraction is exact
    turn = torch.remainder(quarter, 4)
    cos_q = (turn == 0).to(params.dtype) - (turn == 2).to(params.dtype)
    sin_q = (turn == 1).to(params.dtype) - (turn == 3).to(params.dtype)
    cos, sin = cos_q * torch.cos(rest) - sin_q * torch.sin(rest), sin_q * torch.cos(rest) + cos_q * torch.sin(rest)
    cy, cx = (height - 1) / 2, (width - 1) / 2
    v = torch.arange(height, dtype=params.dtype, device=params.device)[:, None] - cy - dy
    u = torch.arange(width, dtype=params.dtype, device=params.device) - cx - dx
    return cy + (u * sin + v * cos), cx + (u * cos - v * sin)


def _corner(pixels: Tensor, shape: torch.Size, row: Tensor, column: Tensor, weight: Tensor) -> Tensor:
    """One neighbour's term: weight · value, 0 outside the image; (b, c, h·w)."""
    batch, channels, height, width = shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    flat = index.to(torch.int64).reshape(batch, 1, -1).expand(batch, channels, height * width)
    share = torch.where(inside, weight, torch.zeros_like(weight)).to(pixels.dtype).reshape(batch, 1, -1)
    return pixels.gather(2, flat) * share
