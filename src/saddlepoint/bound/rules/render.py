"""Rendering (graph/ops_render.py): a moved picture between two parallel planes in (angle, dy, dx).

Cell: parameters p₀ + δ, |τ| ≤ h (angle, in radians), |δ_y| ≤ a, |δ_x| ≤ b. With (M, K) = (row, column) − centre at p₀,

    row(p) − row(p₀) =  K τ − cos θ₀ δ_y − sin θ₀ δ_x + ρ,      ρ ∈ −M [0, h²/2] ± (|K| h³/6 + (a + b) h)
    col(p) − col(p₀) = −M τ + sin θ₀ δ_y − cos θ₀ δ_x + ρ′,     ρ′ ∈ −K [0, h²/2] ± (|M| h³/6 + (a + b) h)

(sin τ = τ ± h³/6, 1 − cos τ ∈ [0, h²/2], and cos, sin move by at most h). So a pixel reads inside a rectangle R. There
the bilinear interpolant B minus any linear function is bilinear on every grid square, so its extremes on R lie where
the lines {ends of R, grid lines within R} cross. For g = the secant of B over R, and for g = 0,

    y ∈ ⟨g, J δ⟩ + g · ρ + range over R of (B − ⟨g, s − s(p₀)⟩)

and of the two the thinner one is the pixel's slab; g = 0 alone gives its interval. Rectangles that more than `GRID`
grid lines cross get the range of the whole picture and zero. (The linear bounds that DeepG samples and corrects by a
Lipschitz bound, Balunović et al. 2019, NeurIPS, are exact here up to R itself, as extremes of B − ⟨g, ·⟩ are known.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.bound.rows import Rows
from saddlepoint.graph.ops import Render

GRID = 4
RADIAN = math.pi / 180


@dataclass(frozen=True)
class Slab:
    """|y − (⟨slope, p⟩ + centre)| ≤ half: slope (b, 3, *out), centre, half (b, *out).

    motion (b, 3, *out): how far a pixel's position moves with each parameter, in pixels a unit. y also in `range`.
    """

    slope: Tensor
    centre: Tensor
    half: Tensor
    motion: Tensor
    range: tuple[Tensor, Tensor]

    def pull(self, rows: Rows, owner: Tensor) -> tuple[tuple[Rows, ...], Tensor]:
        """⟨A, y⟩ ≥ ⟨A slope, p⟩ + ⟨A, centre⟩ − ⟨|A|, half⟩."""
        a = rows.full().flatten(1)
        slope = self.slope.flatten(2).index_select(0, owner)
        centre, half = (t.flatten(1).index_select(0, owner) for t in (self.centre, self.half))
        constant = (a * centre).sum(1) - (a.abs() * half).sum(1)
        return (Rows(torch.bmm(slope, a.unsqueeze(2)).squeeze(2), (3,)),), constant


class Track(NamedTuple):
    """Where pixels read: row, column (b, n) at the centre, their slopes (b, 3, n) and what is left, (b, n) each."""

    row: Tensor
    column: Tensor
    by_row: Tensor
    by_column: Tensor
    rest_row: tuple[Tensor, Tensor]
    rest_column: tuple[Tensor, Tensor]


class RenderRule:
    """Rule of Render; lower, upper (b, 3) bound the parameters."""

    def interval(self, op: Render, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return enclose(op, lower, upper).range

    def loose(self, op: Render, lower: Tensor, upper: Tensor) -> Tensor:
        return torch.zeros_like(lower, dtype=torch.bool)  # the box is the parameters' own

    def choose(self, op: Render, lower: Tensor, upper: Tensor) -> None:
        return None

    def relax(self, op: Render, lower: Tensor, upper: Tensor, choice: Tensor | None) -> Slab:
        return enclose(op, lower, upper)


def enclose(op: Render, lower: Tensor, upper: Tensor) -> Slab:
    """Slab and interval of every pixel; computed in float64, in the type of `lower`."""
    channels, height, width = op.image.shape
    low, high = lower.double(), upper.double()
    p0, w = (low + high) / 2, (high - low) / 2
    track = _track(p0, w, height, width)
    rows = _ends(track.row, track.by_row, track.rest_row, w)
    columns = _ends(track.column, track.by_column, track.rest_column, w)
    cross, fits = _crossings(op.image.double(), rows, columns)
    value, (at_row, at_column) = cross
    least, most = value.amin((0, 1)), value.amax((0, 1))  # (C, b, n)
    flat = op.image.double().flatten(1)
    whole = flat.amin(1).clamp_max(0)[:, None, None], flat.amax(1).clamp_min(0)[:, None, None]
    least, most = torch.where(fits, least, whole[0]), torch.where(fits, most, whole[1])
    # the secant of B over R
    across = (value[-1, 0] - value[0, 0] + value[-1, -1] - value[0, -1]) / 2
    along = (value[0, -1] - value[0, 0] + value[-1, -1] - value[-1, 0]) / 2
    g_row = across / (rows[1] - rows[0]).clamp_min(1e-9)
    g_column = along / (columns[1] - columns[0]).clamp_min(1e-9)
    tilted = value - g_row * (at_row - track.row)[:, None, None] - g_column * (at_column - track.column)[None, :, None]
    bottom, top = tilted.amin((0, 1)), tilted.amax((0, 1))
    for g, (left, right) in ((g_row, track.rest_row), (g_column, track.rest_column)):
        bottom = bottom + torch.minimum(g * left, g * right)
        top = top + torch.maximum(g * left, g * right)
    thin = fits & (top - bottom < most - least)
    bottom, top = torch.where(thin, bottom, least), torch.where(thin, top, most)
    slope = (
        torch.where(thin, g_row, 0.0).unsqueeze(2) * track.by_row
        + torch.where(thin, g_column, 0.0).unsqueeze(2) * track.by_column
    )
    centre = (bottom + top) / 2 - (slope * p0.unsqueeze(2)).sum(2)

    def shaped(t: Tensor) -> Tensor:  # (C, b, …, n) → (b, …, C, H, W)
        return t.movedim(0, -2).reshape(*t.shape[1:-1], channels, height, width).to(lower)

    motion = (track.by_row.abs() + track.by_column.abs()).expand(channels, *track.by_row.shape)
    ends = shaped(least), shaped(most)
    return Slab(shaped(slope), shaped(centre), shaped((top - bottom) / 2), shaped(motion), ends)


def _track(p0: Tensor, w: Tensor, height: int, width: int) -> Track:
    theta = p0[:, :1] * RADIAN
    sin, cos = torch.sin(theta), torch.cos(theta)
    cy, cx = (height - 1) / 2, (width - 1) / 2
    grid = torch.meshgrid(*(torch.arange(k, dtype=p0.dtype) for k in (height, width)), indexing="ij")
    v, u = grid[0].flatten() - cy - p0[:, 1:2], grid[1].flatten() - cx - p0[:, 2:3]
    m, k = u * sin + v * cos, u * cos - v * sin
    h, shift = w[:, :1] * RADIAN, w[:, 1:2] + w[:, 2:3]
    one = torch.ones_like(m)
    by_row = torch.stack([k * RADIAN, -cos * one, -sin * one], 1)
    by_column = torch.stack([-m * RADIAN, sin * one, -cos * one], 1)

    def rest(sagging: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        sag, wide = -sagging * h * h / 2, other.abs() * h**3 / 6 + shift * h
        return sag.clamp_max(0) - wide, sag.clamp_min(0) + wide

    return Track(cy + m, cx + k, by_row, by_column, rest(m, k), rest(k, m))


def _ends(centre: Tensor, by: Tensor, rest: tuple[Tensor, Tensor], w: Tensor) -> tuple[Tensor, Tensor]:
    reach = (by.abs() * w.unsqueeze(2)).sum(1)
    return centre - reach + rest[0], centre + reach + rest[1]


def _crossings(
    image: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]
) -> tuple[tuple[Tensor, tuple[Tensor, Tensor]], Tensor]:
    """B (k, k, C, b, n) where candidate rows meet candidate columns, the candidates (k, b, n), and where none lacks."""
    starts = [ends[0].clamp(-2, size + 1).floor() for ends, size in zip((rows, columns), image.shape[1:], strict=True)]
    counts = [
        ends[1].clamp(-2, size + 1).floor() - start
        for ends, start, size in zip((rows, columns), starts, image.shape[1:], strict=True)
    ]
    crossed = torch.maximum(*counts)
    grid = min(GRID, int(crossed.max()))
    at, weight = [], []
    for ends, start, size in zip((rows, columns), starts, image.shape[1:], strict=True):
        inner = [torch.minimum(torch.maximum(start + i, ends[0]), ends[1]) for i in range(1, grid + 1)]
        at.append(torch.stack([ends[0], *inner, ends[1]]))
        pixel = torch.stack([start + i for i in range(grid + 2)])
        weight.append((1 - (at[-1].clamp(-2, size + 1)[:, None] - pixel).abs()).clamp_min(0))  # (k, m, b, n)
    margin = grid + 3
    padded = F.pad(image, (2, margin, 2, margin))
    step = torch.arange(grid + 2)
    place = ((starts[0] + 2).long() + step.view(-1, 1, 1, 1)) * padded.shape[2]
    patch = padded.flatten(1)[:, place + (starts[1] + 2).long() + step.view(1, -1, 1, 1)].movedim(0, 2)
    half = (weight[0][:, :, None, None] * patch).sum(1)  # (k, m, C, b, n)
    value = (half.unsqueeze(1) * weight[1].unsqueeze(0).unsqueeze(3)).sum(2)
    return (value, (at[0], at[1])), crossed <= grid
