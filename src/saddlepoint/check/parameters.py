"""Does a cover of cells show that rotations and shifts within limits never change the label?

    every cell of the tree is halved or proven;   a leaf is proven where every margin is > 0 on its images' enclosure

Semantics: the real-valued network, and renderings in real arithmetic (render.py's formula without its roundings). Of
the proof only cuts and lower slopes are taken: the box of parameters comes from the set's exact rationals, the cells
from the cuts, each cell's images are enclosed anew.

    x(p) ∈ x(m) + Σ_k (p_k − m_k) [∂x/∂p_k]          m the cell's middle, [·] over the cell (mean value theorem)

    ∂row/∂θ = column − c₀,  ∂column/∂θ = −(row − r₀);   by s_r: −cos θ and sin θ;   by s_c: −sin θ and −cos θ

A picture read between pixels is bilinear in each square of the grid, so over a rectangle of places its value and both
slopes are extreme at the rectangle's corners or where grid lines enter it.

Rounding: a place is a handful of sums and products of numbers below r = height + width + shifts, with sine and cosine
right to 2⁻⁴⁸: it is off by 2⁻⁴⁴ r at most. Rectangles are widened by `BLUR` r = 2⁻⁴⁰ r, which covers that; what is read
at a place known to BLUR r is off by 4 max|x| BLUR r (slopes are 2 max|x| at most), and by 2⁻⁴⁸ max|x| from its own
arithmetic. Each error carries 16 max|x| BLUR r for both.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.check.certificate import Ruling
from saddlepoint.check.membership import limits
from saddlepoint.check.proofs import over
from saddlepoint.check.support import Region, raised
from saddlepoint.core.arithmetic import dots, float_above
from saddlepoint.core.errors import InputError, NotAvailable, UnsupportedOperator
from saddlepoint.graph.decompose import decompose
from saddlepoint.graph.ir import Graph
from saddlepoint.spec import margin_matrix

BLUR = 2.0**-40
TIE = 1.01
CELLS = 32  # checked at a time
Ends = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Turned(Region):
    """{x + Σ_k δ_k slopes_k + e : |δ_k| ≤ 1, |e| ≤ error}, float64; slopes (b, 3, c, h, w), error (b, c, h, w)."""

    slopes: Tensor
    error: Tensor

    @property
    def boxed(self) -> bool:
        """Never: the box around it holds more."""
        return False

    def take(self, index: Tensor) -> Turned:
        """Some cells, repetitions allowed."""
        parts = (self.x, self.lower, self.upper, self.slopes, self.error)
        return Turned(self.described, *(t.index_select(0, index) for t in parts))

    def maximum(self, a: Tensor) -> Tensor:
        """An upper bound (b,) of max ⟨a, z⟩: ⟨a, x⟩ + Σ_k |⟨a, slopes_k⟩| + ⟨|a|, error⟩."""
        flat, size = a.flatten(1), a.flatten(1).abs()
        centre, error = self.x.flatten(1), self.error.flatten(1)
        value = dots(flat, centre) + dots(size, error)
        whole = dots(size, centre.abs()) + dots(size, error)
        for k in range(3):
            slope = self.slopes[:, k].flatten(1)
            value = value + dots(flat, slope).abs()
            whole = whole + dots(size, slope.abs())
        return raised(value, whole, 5 * flat.shape[1])


def judge_cells(
    graph: Graph,
    described: Mapping[str, Any],
    x0: Float[Tensor, "c h w"],
    label: int,
    proof: Mapping[str, Tensor],
    *,
    deadline: float | None = None,
) -> Ruling:
    """Check a cover of the parameters' box about one image; `deadline` is a time.monotonic()."""
    try:
        with torch.no_grad():
            wide = decompose(graph.to(torch.device("cpu")).to(torch.float64))
            image = x0.detach().cpu().double()
            lower, upper = _box(dict(described), image)
            low, high, row = _leaves(proof, lower, upper)
            return _ruling(wide, dict(described), image, label, (low, high, row), (proof, deadline))
    except (InputError, NotAvailable, UnsupportedOperator) as error:
        return Ruling(False, str(error))


def _ruling(
    wide: Graph,
    described: dict[str, Any],
    image: Tensor,
    label: int,
    leaves: tuple[Tensor, Tensor, Tensor],
    given: tuple[Mapping[str, Tensor], float | None],
) -> Ruling:
    (low, high, row), (proof, deadline) = leaves, given
    slopes = {name: t for name, t in proof.items() if not name.startswith("tree/")}
    if any(len(t) != len(row) for t in slopes.values()):
        raise InputError(f"the proof has slopes for another number of leaves than {len(row)}.")
    lowest = math.inf
    for some in torch.arange(len(row)).split(CELLS):
        if deadline is not None and time.monotonic() > deadline:
            return Ruling(False, "the time ended before the certificate was checked.")
        where = turned(described, image, low[some], high[some])
        C = margin_matrix(torch.full((len(some),), label), wide.output_shape[0], torch.float64)
        mine = {name: t.index_select(0, row[some]) for name, t in slopes.items()}
        margin = over(wide, where, C, mine).amin(1)
        if not bool((margin > 0).all()):  # NaN is not proven
            return Ruling(False, f"a cell is not proven (margin {float(margin.min()):.3g}).")
        lowest = min(lowest, float(margin.min()))
    return Ruling(True, "", len(row), lowest)


def _box(described: dict[str, Any], image: Tensor) -> tuple[Tensor, Tensor]:
    """The parameters' box, rounded outward. Raises NotAvailable where renderings could leave the data's box."""
    if described["kind"] != "spatial" or described.get("padding") != "zeros" or image.ndim != 3:
        raise NotAvailable(f"cells of parameters have no rule for sets of kind {described['kind']!r}.")
    if described.get("box") is not None:
        n = image.numel()
        low, high = (torch.tensor(limits(described["box"][side], n, image.shape)) for side in ("lower", "upper"))
        # what is read is between 0 and the picture's own values: clipping then changes nothing
        if not bool(((low <= 0) & (high >= 0) & (low <= image) & (image <= high)).all()):
            raise NotAvailable("the data's box would clip what is read beyond the border.", "0 must lie in it.")
    if not bool(torch.isfinite(image).all()):
        raise InputError("x0 holds NaN or infinity.")
    scale = Fraction(described["size"])
    turn, move = (float_above(Fraction(described[name]) * scale) for name in ("rotation", "shift"))
    reach = torch.tensor([turn, move, move], dtype=torch.float64)
    return -reach, reach


def _leaves(proof: Mapping[str, Tensor], lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (n, 3) of the leaves and the rows of their slopes. Raises InputError for what is no tree over the box."""
    try:
        axis, cut, child, row = (proof[f"tree/{name}"].tolist() for name in ("axis", "cut", "child", "row"))
    except KeyError as missing:
        raise InputError(f"the proof lacks {missing}.", "It is damaged, or of another method.") from missing
    count = len(axis)
    if count < 1 or not len(cut) == len(child) == len(row) == count:
        raise InputError("the tree's lists differ in length.")
    boxes: list[tuple[list[float], list[float]] | None] = [None] * count
    boxes[0] = (lower.tolist(), upper.tolist())
    found: list[tuple[list[float], list[float], int]] = []
    for node in range(count):
        box = boxes[node]
        if box is None:
            raise InputError(f"cell {node} of the tree has no parent before it.")
        low, high = box
        k = axis[node]
        if k == -1:
            found.append((low, high, row[node]))
            continue
        first = child[node]
        if k not in (0, 1, 2) or not node < first < count - 1 or boxes[first] or boxes[first + 1]:
            raise InputError(f"cell {node} of the tree is split in no way that there is.")
        if not low[k] <= cut[node] <= high[k]:
            raise InputError(f"cell {node} of the tree is cut outside itself.")
        boxes[first] = (low, [*high[:k], cut[node], *high[k + 1 :]])
        boxes[first + 1] = ([*low[:k], cut[node], *low[k + 1 :]], high)
    rows = torch.tensor([r for _, _, r in found])
    if not torch.equal(rows.sort().values, torch.arange(len(found))):
        raise InputError("the leaves of the tree and the rows of slopes do not fit.")
    low, high = (torch.tensor([leaf[side] for leaf in found], dtype=torch.float64) for side in (0, 1))
    return low, high, rows


# -- the images of a cell -----------------------------------------------------------------------------------------
def turned(
    described: dict[str, Any], x: Float[Tensor, "c h w"], low: Float[Tensor, "n 3"], high: Float[Tensor, "n 3"]
) -> Turned:
    """An enclosure of the renderings of x over each cell."""
    _, height, width = x.shape
    half = torch.nextafter((high - low) / 2, torch.full_like(low, torch.inf)) * (1 + BLUR)
    theta, moved = torch.deg2rad((low[:, 0] + high[:, 0]) / 2), (low[:, 1:] + high[:, 1:]) / 2
    turn = torch.deg2rad(half[:, 0]) * (1 + BLUR)
    blur = BLUR * (height + width + float(torch.maximum(low.abs(), high.abs())[:, 1:].sum(1).max()))
    shape = (-1, 1, 1)
    sin, cos, t, s_r, s_c = (v.view(shape) for v in (torch.sin(theta), torch.cos(theta), turn, half[:, 1], half[:, 2]))
    dr = torch.arange(height, dtype=torch.float64)[None, :, None] - (height - 1) / 2 - moved[:, 0].view(shape)
    dc = torch.arange(width, dtype=torch.float64)[None, None, :] - (width - 1) / 2 - moved[:, 1].view(shape)
    r, c = cos * dr + sin * dc, cos * dc - sin * dr  # the middle's places, seen from the picture's centre
    ranges = [_about(sin, cos, t), _about(cos, sin, t)]
    steep = [torch.maximum(-a, b) for a, b in ranges]
    way = torch.hypot(dr.abs() + s_r, dc.abs() + s_c) * t + s_r + s_c  # no place moves further
    over_r = (c.abs() + way) * t + steep[1] * s_r + steep[0] * s_c + blur
    over_c = (r.abs() + way) * t + steep[0] * s_r + steep[1] * s_c + blur
    seen_r, seen_c = (r - over_r, r + over_r), (c - over_c, c + over_c)
    at_r, at_c = (r + (height - 1) / 2, over_r), (c + (width - 1) / 2, over_c)
    value, by_row, by_column = _readings(x, at_r, at_c)
    angles = [_wide(ends) for ends in ranges]
    slopes = (
        _less(_product(by_row, _wide(seen_c)), _product(by_column, _wide(seen_r))),
        _less(_product(by_column, angles[0]), _product(by_row, angles[1])),
        _less(_negative(_product(by_row, angles[0])), _product(by_column, angles[1])),
    )
    steps = [v.view(-1, 1, 1, 1) for v in (turn, half[:, 1], half[:, 2])]
    slack = 16 * blur * float(x.abs().max())
    error = sum(((b - a) / 2 * step for (a, b), step in zip(slopes, steps, strict=True)), torch.zeros_like(value[0]))
    middle = _between(x, at_r[0], at_c[0])
    plain = (value[1] - value[0]) / 2 <= TIE * error  # where the range of values says as much, it stands alone
    error = torch.where(plain, (value[1] - value[0]) / 2, error) * (1 + BLUR) + slack
    centre = torch.where(plain, (value[0] + value[1]) / 2, middle)
    tilt = torch.stack(
        [torch.where(plain, 0.0, (a + b) / 2 * step) for (a, b), step in zip(slopes, steps, strict=True)], 1
    )
    reach = (tilt.abs().sum(1) + error) * (1 + BLUR)
    return Turned(described, centre, centre - reach - slack, centre + reach + slack, tilt, error)


def _about(value: Tensor, other: Tensor, t: Tensor) -> Ends:
    """Sine (cosine) of the angles within t: its slope is up to a sign the cosine (sine), which changes by t at most."""
    change = (other.abs() + t + BLUR).clamp_max(1.0) * t + BLUR
    return (value - change).clamp_min(-1.0), (value + change).clamp_max(1.0)


def _readings(x: Tensor, row: Ends, column: Ends) -> tuple[Ends, Ends, Ends]:
    """Values, slopes along rows and slopes along columns over middle ± reach: lowest and highest (n, c, h, w)."""
    rows, columns = _corners(*row), _corners(*column)
    value = _extremes(_between(x, r, c) for r in rows for c in columns)

    def slope(cell: Tensor, across: Tensor, image: Tensor) -> Tensor:
        return _between(image, cell + 1, across) - _between(image, cell, across)

    flipped = x.transpose(1, 2)
    by_row = _extremes(slope(i, c, x) for i in _squares(*row) for c in columns)
    by_column = _extremes(slope(j, r, flipped) for j in _squares(*column) for r in rows)
    return value, by_row, by_column


def _corners(middle: Tensor, reach: Tensor) -> list[Tensor]:
    low, high = middle - reach, middle + reach
    inside = int((high.floor() - low.ceil()).max()) + 1
    return [low, high, *(torch.minimum(low.ceil() + k, high) for k in range(inside))]


def _squares(middle: Tensor, reach: Tensor) -> list[Tensor]:
    """Every row of the grid that is touched, from the line below the lowest place on."""
    low, high = (middle - reach).ceil() - 1, (middle + reach).floor()
    return [torch.minimum(low + k, high) for k in range(int((high - low).max()) + 1)]


def _between(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """x (c, h, w) read at places (n, h, w), zero outside: Σ over the four pixels around of (1 − |Δr|)(1 − |Δc|) x."""
    channels, height, width = x.shape
    total = torch.zeros((len(row), channels, *row.shape[1:]), dtype=torch.float64)
    flat = x.reshape(channels, -1)
    for down in (0, 1):
        r = row.floor() + down
        for right in (0, 1):
            c = column.floor() + right
            weight = (1 - (row - r).abs()) * (1 - (column - c).abs())
            there = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            place = (r.clamp(0, height - 1) * width + c.clamp(0, width - 1)).long()
            total = total + (weight * there).unsqueeze(1) * flat[:, place].transpose(0, 1)
    return total


def _extremes(every: Any) -> Ends:
    low, high = None, None
    for t in every:
        low, high = (t, t) if low is None or high is None else (torch.minimum(low, t), torch.maximum(high, t))
    if low is None or high is None:
        raise InputError("an empty cell.")
    return low, high


def _wide(ends: Ends) -> Ends:
    return ends[0].unsqueeze(1), ends[1].unsqueeze(1)


def _product(a: Ends, b: Ends) -> Ends:
    every = [p * q for p in a for q in b]
    return _extremes(every)


def _less(a: Ends, b: Ends) -> Ends:
    return a[0] - b[1], a[1] - b[0]


def _negative(a: Ends) -> Ends:
    return -a[1], -a[0]
