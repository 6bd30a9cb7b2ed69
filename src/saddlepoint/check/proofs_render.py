"""The checker's own enclosure of a moved picture (graph/ops_render.py), in float64 with every inequality outward.

Parameters p = p₀ + δ, |δ_k| ≤ w_k, τ = θ − θ₀ with |τ| ≤ h in radians. A pixel that reads at (row₀, col₀) = c + (M, K)
where p = p₀ reads elsewhere, for C = cos θ − cos θ₀ and S = sin θ − sin θ₀, at

    row₀ + [ K τ − cos θ₀ δ_y − sin θ₀ δ_x] − M (1 − cos τ) + K (sin τ − τ) − C δ_y − S δ_x
    col₀ + [−M τ + sin θ₀ δ_y − cos θ₀ δ_x] − K (1 − cos τ) − M (sin τ − τ) + S δ_y − C δ_x

The brackets are J δ; of the `rest`, 0 ≤ 1 − cos τ ≤ h²/2, |sin τ − τ| ≤ h³/6, |C| ≤ h, |S| ≤ h. For *any* slope g of
the interpolant B and F(s) = B(s) − ⟨g, s − s₀⟩

    y = ⟨g, J δ⟩ + F(s) + ⟨g, rest⟩

and extremes of F over a rectangle lie where its ends and the grid lines within it cross: F is bilinear between grid
lines, which are the integers from −1 to H (or W), beyond which B = 0.

Rounding. θ₀ in radians errs by < 40 u where |θ₀| ≤ 720°, sin and cos by 2 u more (libraries promise 1 ulp): `TRIG`.
Positions and J err by at most `off` = 256 eps (|u| + |v| + cy + cx + 2), which goes into the rest. The slope of a slab
is the float that is computed; by what it differs from ⟨g, J⟩ goes into the height, like the roundings of F.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.check.proofs_functions import TINY, U
from saddlepoint.core.arithmetic import gamma
from saddlepoint.core.errors import InputError
from saddlepoint.graph.ops import Render

Pair = tuple[Tensor, Tensor]
LINES = 5  # grid lines across a rectangle; with more, the range of the whole picture
CELLS = 1 << 15  # pixels of all cells that are enclosed at a time
DEGREE = math.pi / 180
TRIG = 64 * U


@dataclass(frozen=True)
class Slab:
    """|y − (⟨slope, p⟩ + centre)| ≤ half over the cell: slope (b, 3, *out), centre and half (b, *out); y in `range`."""

    slope: Tensor
    centre: Tensor
    half: Tensor
    range: Pair

    def share(self, size: Tensor) -> Tensor:
        """What a row a rounds in ⟨a, slope⟩, ⟨a, centre⟩ and ⟨|a|, half⟩ is ≤ ⟨|a|, share⟩, |p| ≤ size (b, 3)."""
        n = self.centre[0].numel() + 8
        tilt = (self.slope.abs() * size.view(*size.shape, *(1 for _ in self.centre.shape[1:]))).sum(1)
        return 4 * gamma(n) * (tilt + self.centre.abs() + self.half)


@dataclass(frozen=True)
class _Axis:
    """Rows or columns: s₀ (b, n), J (b, 3, n), rest (b, n) twice, and the ends of the interval that pixels read in."""

    at: Tensor
    by: Tensor
    rest: Pair
    reach: Tensor
    size: int

    @property
    def ends(self) -> Pair:
        """Rounded outward."""
        slack = 8 * U * (self.at.abs() + self.reach + self.rest[0].abs() + self.rest[1].abs())
        return self.at - self.reach + self.rest[0] - slack, self.at + self.reach + self.rest[1] + slack

    def first(self) -> Tensor:
        """The last grid line that matters at or before the lower end."""
        return self.ends[0].clamp(-2, self.size + 1).floor()

    def crossed(self) -> Tensor:
        """How many grid lines come after it, up to the upper end."""
        return self.ends[1].clamp(-2, self.size + 1).floor() - self.first()

    def stops(self, lines: int) -> list[Tensor]:
        """Both ends, then the next `lines` grid lines (an end again where they lie beyond it)."""
        low, high = self.ends
        return [low, high, *(torch.clamp(self.first() + i, low, high) for i in range(1, lines + 1))]


def slab(op: Render, low: Tensor, high: Tensor) -> Slab:
    """Intervals and slabs over cells [low, high] (b, 3). Raises InputError for what is not finite."""
    if not bool(low.isfinite().all() & high.isfinite().all() & op.image.isfinite().all()):
        raise InputError("a rendering has parameters or pixels that are not finite.", "Bound every parameter.")
    shape, room = tuple(op.image.shape), max(1, CELLS // op.image.numel())
    parts = [_cells(op.image.double(), a, b) for a, b in zip(low.split(room), high.split(room), strict=True)]
    least, most, slope, centre, half = (torch.cat(t) for t in zip(*parts, strict=True))
    ends = least.view(-1, *shape), most.view(-1, *shape)
    return Slab(slope.view(-1, 3, *shape), centre.view(-1, *shape), half.view(-1, *shape), ends)


def _cells(image: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, ...]:
    """least, most (b, C, n), slope (b, 3, C, n), centre, half (b, C, n)."""
    p0 = (low + high) / 2
    w = torch.maximum(high - p0, p0 - low) * (1 + 2 * U) + TINY
    rows, columns = _axes(p0, w, image.shape[1], image.shape[2])
    crossed = torch.maximum(rows.crossed(), columns.crossed())
    lines = min(LINES, int(crossed.max()))
    fits = ((crossed <= lines) & (p0[:, :1].abs() <= 720))[:, None]
    down, along = rows.stops(lines), columns.stops(lines)
    corner = [[_read(image, r, c) for c in along[:2]] for r in down[:2]]
    g_row, g_column = (
        t / 2 / (axis.ends[1] - axis.ends[0]).clamp_min(1e-9)[:, None]
        for axis, t in (
            (rows, corner[1][0] - corner[0][0] + corner[1][1] - corner[0][1]),
            (columns, corner[0][1] - corner[0][0] + corner[1][1] - corner[1][0]),
        )
    )
    size = image.abs().amax((1, 2))[:, None]
    slack = 32 * U * size + TINY
    least, most, bottom, top = (torch.full_like(g_row, s * torch.inf) for s in (1, -1, 1, -1))
    for i, r in enumerate(down):
        for j, c in enumerate(along):
            value = corner[i][j] if i < 2 and j < 2 else _read(image, r, c)
            least, most = torch.minimum(least, value), torch.maximum(most, value)
            value = value - g_row * (r - rows.at)[:, None] - g_column * (c - columns.at)[:, None]
            bottom, top = torch.minimum(bottom, value), torch.maximum(top, value)
    dark, bright = (t[None, :, None] for t in (image.amin((1, 2)).clamp_max(0), image.amax((1, 2)).clamp_min(0)))
    least, most = torch.where(fits, least - slack, dark), torch.where(fits, most + slack, bright)
    for g, axis in ((g_row, rows), (g_column, columns)):
        moved = [g * side[:, None] for side in axis.rest]
        bottom, top = bottom + torch.minimum(*moved), top + torch.maximum(*moved)
        # F, ⟨g, rest⟩ and the slope round: a dozen operations on g times the extent
        extent = axis.reach + axis.rest[0].abs() + axis.rest[1].abs()
        slack = slack + 128 * U * g.abs() * extent[:, None]
    bottom, top = bottom - slack - 8 * U * bottom.abs(), top + slack + 8 * U * top.abs()
    thin = fits & (top - bottom < most - least)  # NaN compares false
    bottom, top = torch.where(thin, bottom, least), torch.where(thin, top, most)
    slope = torch.where(thin, g_row, 0.0)[:, None] * rows.by[:, :, None]
    slope = slope + torch.where(thin, g_column, 0.0)[:, None] * columns.by[:, :, None]
    back = slope * p0[:, :, None, None]
    rounded = 8 * U * (bottom.abs() + top.abs() + back.abs().sum(1)) + TINY
    half = torch.maximum(top - (bottom + top) / 2, (bottom + top) / 2 - bottom) + rounded
    return least, most, slope, (bottom + top) / 2 - back.sum(1), half


def _axes(p0: Tensor, w: Tensor, height: int, width: int) -> tuple[_Axis, _Axis]:
    angle, shift_row, shift_column = (p0[:, i : i + 1] for i in range(3))
    s, c = torch.sin(angle * DEGREE), torch.cos(angle * DEGREE)
    cy, cx = (height - 1) / 2, (width - 1) / 2
    number = torch.arange(height * width)
    v = torch.div(number, width, rounding_mode="floor").double() - cy - shift_row
    u = torch.remainder(number, width).double() - cx - shift_column
    m, k = u * s + v * c, u * c - v * s
    off = 4 * TRIG * (u.abs() + v.abs() + cy + cx + 2)
    h = w[:, :1] * (DEGREE * (1 + 8 * U))
    shift, cube = w[:, 1:2] + w[:, 2:3], h**3
    # positions and J err by `off`: J meets δ, and M, K meet h²/2 and h³/6
    err = off * (2 + 2 * w.sum(1, keepdim=True) + h * h + cube)
    ones = torch.ones_like(m)

    def axis(at: Tensor, by: list[Tensor], sags: Tensor, other: Tensor, size: int) -> _Axis:
        wide = (other.abs() * cube / 6 + shift * h) * (1 + 64 * U) + err
        sag = -sags * h * h / 2 * (1 + 64 * U)
        slopes = torch.stack(by, 1)
        reach = (slopes.abs() * w[:, :, None]).sum(1) * (1 + 16 * U)
        return _Axis(at, slopes, (sag.clamp_max(0.0) - wide, sag.clamp_min(0.0) + wide), reach, size)

    return (
        axis(cy + m, [k * DEGREE, -c * ones, -s * ones], m, k, height),
        axis(cx + k, [-m * DEGREE, s * ones, -c * ones], k, m, width),
    )


def _read(image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """B at (row, column) (b, n) of every channel: (b, C, n), off by at most 16 u max |x|."""
    _, height, width = image.shape
    top, left = row.floor(), column.floor()
    canvas = F.pad(image, (3, 3, 3, 3)).flatten(1)
    i, j = (t.clamp(-2, n + 1).long() + 3 for t, n in ((top, height), (left, width)))
    at = i * (width + 6) + j
    down, right = row - top, column - left
    upper = (1 - right) * canvas[:, at] + right * canvas[:, at + 1]
    lower = (1 - right) * canvas[:, at + width + 6] + right * canvas[:, at + width + 7]
    return ((1 - down) * upper + down * lower).movedim(0, 1)
