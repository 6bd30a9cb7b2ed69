"""All renderings of an image over a cell of rotations and shifts, enclosed in a set that linear bounds take.

    x(p) ∈ c + Σ_k δ_k g_k + e,     |δ_k| ≤ 1,  |e| ≤ error            p = (angle, dy, dx) in a cell, k over its axes

Output pixel (r, c) reads the image at (row, column) (geometry/warp.py). Over a cell these move by at most
    |column − cx| Δθ + |cos θ| Δdy + |sin θ| Δdx     and     |row − cy| Δθ + |sin θ| Δdy + |cos θ| Δdx
from where the cell's centre reads, for ∂row/∂θ = column − cx and ∂column/∂θ = −(row − cy). What is read is bilinear
between the grid's lines, so its values and its slopes over that rectangle are extreme at the corners of the rectangle
and where grid lines cross it: finitely many candidates. By the mean value theorem (Clarke's, for the kinks)

    x(p) − x(centre) ∈ Σ_k (p_k − centre_k) · [∂x/∂p_k over the cell]  ⊆  Σ_k δ_k g_k ± error,

g_k the intervals' middles times the half widths, the error their radii times the half widths. Where the plain range of
values is narrower than that error, g = 0 and the range is taken. Linear enclosures of transformed images: Balunović et
al., Certifying Geometric Robustness of Neural Networks, NeurIPS 2019, §4; this form bounds without sampling. float64,
rounded to nearest and widened by 1e-6 of the image: claims for a checker to confirm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

TIE = 1.01  # at a kink beside flat ground both errors are equal: the range is then the smaller set
_WIDER = 1e-6


class Span(NamedTuple):
    """From low to high, elementwise."""

    low: Tensor
    high: Tensor

    @property
    def middle(self) -> Tensor:
        """The middle."""
        return (self.low + self.high) / 2

    @property
    def radius(self) -> Tensor:
        """Half of the width."""
        return (self.high - self.low) / 2

    def times(self, other: Span) -> Span:
        """All products."""
        every = torch.stack([a * b for a in self for b in other])
        return Span(every.amin(0), every.amax(0))

    def plus(self, other: Span) -> Span:
        """All sums."""
        return Span(self.low + other.low, self.high + other.high)

    def minus(self, other: Span) -> Span:
        """All differences."""
        return Span(self.low - other.high, self.high - other.low)


@dataclass(frozen=True)
class Renderings:
    """{c + Σ δ_k g_k + e}: one such set of images per row."""

    centre: Float[Tensor, "b c h w"]
    slopes: Float[Tensor, "b 3 c h w"]
    error: Float[Tensor, "b c h w"]

    @property
    def hull(self) -> Span:
        """The smallest box around it."""
        reach = self.slopes.abs().sum(1) + self.error
        return Span(self.centre - reach, self.centre + reach)

    def rows(self, index: Tensor) -> Renderings:
        """Some of the sets."""
        return Renderings(*(t.index_select(0, index) for t in (self.centre, self.slopes, self.error)))

    def support(self, x0: Tensor, a: Float[Tensor, "b m c h w"]) -> Float[Tensor, "b m"]:
        """max of ⟨a, x⟩: ⟨a, c⟩ + Σ_k |⟨a, g_k⟩| + ⟨|a|, error⟩."""
        del x0  # the sets stand where they stand
        flat = a.flatten(2)
        fixed = torch.bmm(flat, self.centre.flatten(1)[:, :, None])[..., 0]
        moved = torch.bmm(flat, self.slopes.flatten(2).transpose(1, 2)).abs().sum(2)
        return fixed + moved + torch.bmm(flat.abs(), self.error.flatten(1)[:, :, None])[..., 0]


def enclose(image: Float[Tensor, "c h w"], lower: Float[Tensor, "n 3"], upper: Float[Tensor, "n 3"]) -> Renderings:
    """One set per cell [lower, upper] of parameters (degrees, pixels), in the image's type."""
    x, cell = image.double(), Span(lower.double(), upper.double())
    row, column, down, right, sin, cos = _reach(cell, *x.shape[1:])
    value, along_rows, along_columns = _read(x, row, column)
    turn = along_rows.times(_images(right)).minus(along_columns.times(_images(down)))
    move = along_columns.times(sin).minus(along_rows.times(cos))
    slide = Span(*(-t for t in reversed(along_rows.times(sin).plus(along_columns.times(cos)))))
    half = cell.radius * torch.tensor([math.pi / 180, 1.0, 1.0], dtype=torch.float64)
    slopes, error = [], torch.zeros_like(value.low)
    for k, slope in enumerate((turn, move, slide)):
        step = half[:, k].view(-1, 1, 1, 1)
        slopes.append(slope.middle * step)
        error = error + slope.radius * step
    at = _bilinear(x, row.middle, column.middle)
    plain = value.radius <= TIE * error
    centre = torch.where(plain, value.middle, at)
    slack = _WIDER * float(x.abs().max())
    found = (
        centre,
        torch.stack([torch.where(plain, 0.0, s) for s in slopes], 1),
        torch.where(plain, value.radius, error) + slack,
    )
    return Renderings(*(t.to(image.dtype) for t in found))


def motion(size: tuple[int, int], lower: Float[Tensor, "n 3"], upper: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """How far, in pixels, each axis of a cell moves the image's corner."""
    corner = math.hypot((size[0] - 1) / 2, (size[1] - 1) / 2)
    return (upper - lower) * torch.tensor([corner * math.pi / 180, 1.0, 1.0], dtype=lower.dtype)


def _reach(cell: Span, height: int, width: int) -> tuple[Span, Span, Span, Span, Span, Span]:
    """Rows and columns that are read (n, h, w); row − cy and column − cx; sin and cos of the angle (n, 1, 1, 1)."""
    angle, dy, dx = (cell.middle[:, k].view(-1, 1, 1) for k in range(3))
    turn, up, left = (cell.radius[:, k].view(-1, 1, 1) for k in range(3))
    theta, turn = torch.deg2rad(angle), torch.deg2rad(turn)
    sin, cos = torch.sin(theta), torch.cos(theta)
    v = torch.arange(height, dtype=torch.float64).view(1, -1, 1) - (height - 1) / 2 - dy
    u = torch.arange(width, dtype=torch.float64).view(1, 1, -1) - (width - 1) / 2 - dx
    down, right = u * sin + v * cos, u * cos - v * sin
    sines, cosines = _near(sin, cos, turn), _near(cos, sin, turn)
    steep_s, steep_c = torch.maximum(*(t.abs() for t in sines)), torch.maximum(*(t.abs() for t in cosines))
    far = torch.hypot(u.abs() + left, v.abs() + up) * turn + up + left  # nothing is further from the centre's place
    rows = (right.abs() + far) * turn + steep_c * up + steep_s * left
    columns = (down.abs() + far) * turn + steep_s * up + steep_c * left
    downs, rights = Span(down - rows, down + rows), Span(right - columns, right + columns)
    cy, cx = (height - 1) / 2, (width - 1) / 2
    row, column = Span(downs.low + cy, downs.high + cy), Span(rights.low + cx, rights.high + cx)
    return row, column, downs, rights, _scalar(sines), _scalar(cosines)


def _near(value: Tensor, slope: Tensor, turn: Tensor) -> Span:
    """Sine or cosine within `turn` of an angle: the slope is the other one, within `turn` too."""
    change = (slope.abs() + turn).clamp_max(1) * turn
    return Span((value - change).clamp_min(-1), (value + change).clamp_max(1))


def _scalar(span: Span) -> Span:
    return Span(*(t.unsqueeze(1) for t in span))


def _images(span: Span) -> Span:
    """(n, h, w) for all channels."""
    return Span(*(t.unsqueeze(1) for t in span))


def _read(x: Tensor, row: Span, column: Span) -> tuple[Span, Span, Span]:
    """Values over the rectangles, and slopes along rows and along columns: (n, c, h, w) each."""
    rows, columns = _candidates(row), _candidates(column)
    values = [_bilinear(x, r, c) for r in rows for c in columns]
    along_rows = [_slope(x, i, c) for i in _cells(row) for c in columns]
    along_columns = [_slope(x.transpose(1, 2), j, r) for j in _cells(column) for r in rows]
    return _hull(values), _hull(along_rows), _hull(along_columns)


def _hull(every: list[Tensor]) -> Span:
    low, high = every[0], every[0]
    for t in every[1:]:
        low, high = torch.minimum(low, t), torch.maximum(high, t)
    return Span(low, high)


def _candidates(span: Span) -> list[Tensor]:
    """Both ends and the grid lines between them."""
    first = span.low.ceil()
    count = int((span.high.floor() - first).max()) + 1
    return [*span, *(torch.minimum(first + k, span.high) for k in range(count))]


def _cells(span: Span) -> list[Tensor]:
    """The grid's cells that are touched, those on both sides of a line that an end lies on among them."""
    first, last = span.low.ceil() - 1, span.high.floor()
    return [torch.minimum(first + k, last) for k in range(int((last - first).max()) + 1)]


def _slope(x: Tensor, cell: Tensor, across: Tensor) -> Tensor:
    """∂x/∂row inside a row of cells, at a place across it: differences of neighbours, linear between columns."""
    return _bilinear(x, cell + 1, across) - _bilinear(x, cell, across)


def _bilinear(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """x (c, h, w) read at (n, h, w) places, 0 outside: (n, c, h, w)."""
    height, width = x.shape[1:]
    padded = F.pad(x, (1, 1, 1, 1)).flatten(1)
    top, left = row.floor(), column.floor()
    down, right = (row - top).unsqueeze(1), (column - left).unsqueeze(1)

    def corner(r: Tensor, c: Tensor) -> Tensor:
        # two rows beyond the border both read the padding
        place = (r.clamp(-1, height) + 1) * (width + 2) + c.clamp(-1, width) + 1
        return padded[:, place.long()].transpose(0, 1)

    upper = (1 - right) * corner(top, left) + right * corner(top, left + 1)
    lower = (1 - right) * corner(top + 1, left) + right * corner(top + 1, left + 1)
    return (1 - down) * upper + down * lower
