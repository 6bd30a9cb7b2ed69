"""A network on one region as a program: triangles (LP), or pieces chosen by whole numbers (MILP).

    linear nodes          expressions over columns, no rows (maps.py)
    settled entries       the piece that [l, u] leaves: an expression again
    open entries          columns z = expression (within its rounding) and y, with
        LP                the hull of {(z, f(z))}: Ehlers 2017; Wong and Kolter 2018, eq. 6
        MILP              a ∈ {0, 1} per piece, Σ a = 1,  y ≤ s_k z + t_k + M_k (1 − a_k)  and its mirror,
                          M_k the largest gap on [l, u] (Tjeng, Xiao, Tedrake 2019, eq. 4–7; for ReLU M = −l and u)
    max pooling           y ≥ z_i,  y ≤ Σ (z_i − l_i) + max l;  MILP: y ≤ z_i + (max u − l_i)(1 − a_i)  (eq. 8–10)

Bounds [l, u] of the open entries come from outside (CROWN); `narrow` may tighten them layer by layer by solving the
program built so far. All arithmetic that changes a coefficient is paid for by slack, so that every point of the region
with all its activations is a point of the program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import sparse

from saddlepoint.bound.program.maps import Expression, Maps, selection
from saddlepoint.bound.program.pieces import Pieces, gap, hull, pieces_of
from saddlepoint.bound.program.rows import Draft, Program
from saddlepoint.bound.rules.maxpool import windows
from saddlepoint.core.errors import UnsupportedOperator
from saddlepoint.graph.ir import Node
from saddlepoint.graph.ops import LinearOp, MaxPool2d

Limits = dict[str, tuple[np.ndarray, np.ndarray]]  # bounds of every value, flat
Narrow = Callable[[Program, Expression, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Region:
    """One sample's region: a box, or an ℓ1 ball (centre, radius) in a box."""

    lower: np.ndarray
    upper: np.ndarray
    centre: np.ndarray | None = None
    radius: float = 0.0


@dataclass(frozen=True, eq=False)
class Objective:
    """⟨cost, v⟩ + constant, and how much smaller the real network's value may be."""

    cost: np.ndarray
    constant: float
    slack: float


@dataclass(frozen=True, eq=False)
class Built:
    """The program, the output over its columns, and the bounds that were used. Input i is column i."""

    program: Program
    output: Expression
    limits: Limits

    def objective(self, c: np.ndarray) -> Objective:
        """⟨c, output⟩."""
        out = self.output.wide(len(self.program.lower))
        rounding = Expression(out.matrix, out.absolute, out.constant, out.extent, out.roundings + len(c) + 1)
        slack = float(np.abs(c) @ rounding.slack(self.program.reach))
        return Objective(np.asarray(out.matrix.T @ c), float(out.constant @ c), slack)


@dataclass
class _Builder:
    maps: Maps
    limits: Limits
    exact: bool
    narrow: Narrow | None
    draft: Draft = field(default_factory=Draft)
    values: dict[str, Expression] = field(default_factory=dict)


def build(maps: Maps, region: Region, limits: Limits, *, exact: bool, narrow: Narrow | None = None) -> Built:
    """The program of a region. Raises UnsupportedOperator for operators that are not piecewise linear."""
    builder = _Builder(maps, dict(limits), exact, narrow)
    graph = maps.graph
    builder.values[graph.input] = _input(builder.draft, region)
    for node in graph.nodes:
        inputs = [builder.values[name] for name in node.inputs]
        if isinstance(node.op, LinearOp):
            builder.values[node.name] = maps.apply(node, inputs)
        elif isinstance(node.op, MaxPool2d):
            builder.values[node.name] = _pool(builder, node, node.op, inputs[0])
        else:
            builder.values[node.name] = _elementwise(builder, node, inputs[0])
    return Built(builder.draft.program(), builder.values[graph.output], builder.limits)


def _input(draft: Draft, region: Region) -> Expression:
    x = draft.add(region.lower, region.upper)
    if region.centre is not None:  # t_i ≥ |x_i − c_i|, Σ t ≤ radius
        t = draft.add(np.zeros(len(x)), np.minimum(region.radius, region.upper - region.lower))
        for i, (xi, ti) in enumerate(zip(x.tolist(), t.tolist(), strict=True)):
            c = float(region.centre[i])
            draft.row([(xi, 1.0), (ti, -1.0)], -np.inf, c)
            draft.row([(xi, 1.0), (ti, 1.0)], c, np.inf)
        draft.row([(ti, 1.0) for ti in t.tolist()], -np.inf, region.radius)
    one = selection(np.arange(len(x)), x, (len(x), draft.columns))
    return Expression(one, one, np.zeros(len(x)), np.zeros(len(x)), 0)


def _elementwise(b: _Builder, node: Node, expression: Expression) -> Expression:
    f = pieces_of(node.op, node.name)
    low, high = b.limits[node.inputs[0]]
    kinks = np.array(f.kinks)
    first, last = np.searchsorted(kinks, low, side="right"), np.searchsorted(kinks, high, side="left")
    undecided = np.flatnonzero(first < last)
    if b.narrow is not None and len(undecided):
        low, high = b.narrow(b.draft.program(), expression, undecided, low, high)
        b.limits[node.inputs[0]] = (low, high)
        first, last = np.searchsorted(kinks, low, side="right"), np.searchsorted(kinks, high, side="left")
        undecided = np.flatnonzero(first < last)
    slopes, intercepts = (np.array([line[k] for line in f.lines])[last] for k in (0, 1))
    slopes[undecided], intercepts[undecided] = 0.0, 0.0
    z = b.draft.add(low[undecided], high[undecided])
    b.draft.equals(z, expression, undecided)
    spans = [(float(low[i]), float(high[i])) for i in undecided]
    ends = [[f(p) for p in f.points(*span)] for span in spans]
    y = b.draft.add(np.array([_down(min(v)) for v in ends]), np.array([_up(max(v)) for v in ends]))
    for zi, yi, span in zip(z.tolist(), y.tolist(), spans, strict=True):
        (_choose if b.exact else _enclose)(b.draft, f, zi, yi, span)
    return _spliced(expression, slopes, intercepts, undecided, y, b.draft.columns)


def _enclose(draft: Draft, f: Pieces, z: int, y: int, span: tuple[float, float]) -> None:
    """The hull; level lines are y's own limits."""
    below, above = hull(f, *span)
    for slope, intercept in below:
        if slope != 0:
            draft.row([(y, 1.0), (z, -slope)], intercept, np.inf)
    for slope, intercept in above:
        if slope != 0:
            draft.row([(y, 1.0), (z, -slope)], -np.inf, intercept)


def _choose(draft: Draft, f: Pieces, z: int, y: int, span: tuple[float, float]) -> None:
    """One piece holds: a_k = 1 makes y = s_k z + t_k, z between its kinks; a_k = 0 leaves the largest gap."""
    walls = [-np.inf, *f.kinks, np.inf]
    alive = [k for k in range(len(f.lines)) if walls[k] < span[1] and walls[k + 1] > span[0]]
    a = draft.add(np.zeros(len(alive)), np.ones(len(alive)), whole=True).tolist()
    draft.row([(column, 1.0) for column in a], 1.0, 1.0)
    for column, k in zip(a, alive, strict=True):
        slope, intercept = f.lines[k]
        least, most = gap(f, f.lines[k], *span)
        # y − s z − t ≤ most (1 − a) and ≥ least (1 − a)
        draft.row([(y, 1.0), (z, -slope), (column, most)], -np.inf, _up(intercept + most))
        draft.row([(y, 1.0), (z, -slope), (column, least)], _down(intercept + least), np.inf)
        left, right = max(walls[k], span[0]), min(walls[k + 1], span[1])
        if left > span[0]:  # z ≥ left − (left − l)(1 − a)
            m = _up(left - span[0])
            draft.row([(z, 1.0), (column, -m)], _down(left - m), np.inf)
        if right < span[1]:
            m = _up(span[1] - right)
            draft.row([(z, 1.0), (column, m)], -np.inf, _up(right + m))
    _enclose(draft, f, z, y, span)


def _pool(b: _Builder, node: Node, op: MaxPool2d, expression: Expression) -> Expression:
    shape = b.maps.graph.shape(node.inputs[0])
    low, high = b.limits[node.inputs[0]]
    members = _members(op, shape, (node.shape[1], node.shape[2]))
    rivals = [_rivals(m, low, high) for m in members]
    contested = np.array([i for i, r in enumerate(rivals) if len(r) > 1], dtype=np.int64)
    needed = np.unique(np.concatenate([rivals[i] for i in contested])) if len(contested) else contested
    z = b.draft.add(low[needed], high[needed])
    b.draft.equals(z, expression, needed)
    column = dict(zip(needed.tolist(), z.tolist(), strict=True))
    floor, roof = (np.array([t[rivals[i]].max() for i in contested]) for t in (low, high))
    y = b.draft.add(floor, roof)
    for i, yi in zip(contested.tolist(), y.tolist(), strict=True):
        _maximum(b, [(column[j], float(low[j]), float(high[j])) for j in rivals[i].tolist()], yi)
    winners = np.array([r[0] for r in rivals], dtype=np.int64)
    picked = Expression(
        expression.matrix[winners], expression.absolute[winners], expression.constant[winners],
        expression.extent[winners], expression.roundings,
    )  # fmt: skip
    slopes = np.ones(len(members))
    slopes[contested] = 0.0
    return _spliced(picked, slopes, np.zeros(len(members)), contested, y, b.draft.columns)


def _maximum(b: _Builder, inputs: list[tuple[int, float, float]], y: int) -> None:
    """y = max of the columns, given with their bounds."""
    floor, roof = max(low for _, low, _ in inputs), max(high for _, _, high in inputs)
    for column, _, _ in inputs:
        b.draft.row([(y, 1.0), (column, -1.0)], 0.0, np.inf)
    # y = z_j ≤ l_j + Σ (z_i − l_i) ≤ max l + Σ (z_i − l_i)
    total = float(sum(low for _, low, _ in inputs))
    room = 1e-12 * (abs(floor) + sum(abs(low) for _, low, _ in inputs))
    b.draft.row([(y, 1.0), *((column, -1.0) for column, _, _ in inputs)], -np.inf, floor - total + room)
    if b.exact:
        a = b.draft.add(np.zeros(len(inputs)), np.ones(len(inputs)), whole=True).tolist()
        b.draft.row([(column, 1.0) for column in a], 1.0, 1.0)
        for choice, (column, low, _) in zip(a, inputs, strict=True):
            m = _up(roof - low)
            b.draft.row([(y, 1.0), (column, -1.0), (choice, m)], -np.inf, m)


def _members(op: MaxPool2d, shape: tuple[int, ...], out: tuple[int, int]) -> list[np.ndarray]:
    """Flat entries of (C, H, W) that each output looks at."""
    channels, area = shape[0], shape[1] * shape[2]
    numbers = torch.arange(area, dtype=torch.float64).view(1, 1, shape[1], shape[2])
    places = windows(numbers, op, out, -1.0).long()[0, 0].T.numpy()
    inside = [place[place >= 0] for place in places]
    if any(len(place) == 0 for place in inside):
        raise UnsupportedOperator("a max pooling window lies in the padding alone.", "Its value would be −∞.")
    return [c * area + place for c in range(channels) for place in inside]


def _rivals(members: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The member with the largest lower bound, then those that may exceed it."""
    best = members[int(low[members].argmax())]
    others = members[(high[members] > low[best]) & (members != best)]
    return np.concatenate([[best], others])


def _spliced(
    e: Expression, slopes: np.ndarray, intercepts: np.ndarray, entries: np.ndarray, y: np.ndarray, columns: int
) -> Expression:
    """slope · e + intercept, and column y at `entries` (whose slope is 0)."""
    from_columns = selection(entries, y, (len(slopes), columns))
    diagonal = sparse.csr_matrix(sparse.diags(slopes))
    wide = e.wide(columns)
    return Expression(
        diagonal @ wide.matrix + from_columns,
        abs(diagonal) @ wide.absolute + from_columns,
        slopes * e.constant + intercepts,
        np.abs(slopes) * e.extent + np.abs(intercepts),
        e.roundings + 2,
    )


def _up(value: float) -> float:
    return float(np.nextafter(value, np.inf))


def _down(value: float) -> float:
    return float(np.nextafter(value, -np.inf))
