"""The checker's backward pass: rows of coefficients from a node down to the input, with a running error bound.

    linear node      ⟨a, W x + b⟩ ≥ ⟨Â, x⟩ + fl⟨a, b⟩ − (⟨|a|, share⟩ + floor)                (proofs_forward)
    nonlinear node   ⟨a, σ(x)⟩ ≥ ⟨a⁺ a_L + a⁻ a_U, x⟩ + ⟨a⁺, b_L⟩ + ⟨a⁻, b_U⟩ − rounding       (proofs_lines)
    input            ⟨Â, x⟩ ≥ −maximum(−Â)                                                  (support)

Rows of a (C, H, W) node are kept to the window in which they are not zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.check.proofs_forward import Charge, Enclosure, Forward, magnitude
from saddlepoint.check.proofs_lines import TINY, Lines, U, Winners
from saddlepoint.check.proofs_products import Planes
from saddlepoint.check.proofs_render import Slab
from saddlepoint.check.support import Region, corner
from saddlepoint.core.arithmetic import dots, gamma
from saddlepoint.graph.ir import Node
from saddlepoint.graph.ops import Add, BatchNorm, Conv2d, LinearOp
from saddlepoint.graph.transpose import transpose

Shape = tuple[int, ...]
FIRST = 64  # rows of a first chunk, enough to learn how wide they get
DENSE = 16  # a small window's convolution as a dense matrix: at most so many times more products


@dataclass(frozen=True)
class Rows:
    """a (r, *window) of a node of shape `shape`; (top, left) places the window of a (C, H, W) node."""

    a: Tensor
    shape: Shape
    top: int = 0
    left: int = 0

    def cut(self, t: Tensor) -> Tensor:
        """The part of t (b, *shape) under the window."""
        if len(self.shape) != 3:
            return t
        h, w = self.a.shape[-2:]
        return t[..., self.top : self.top + h, self.left : self.left + w]

    def full(self) -> Tensor:
        """With its zeros, (r, *shape)."""
        if len(self.shape) != 3:
            return self.a
        h, w = self.a.shape[-2:]
        right, bottom = self.shape[2] - self.left - w, self.shape[1] - self.top - h
        return F.pad(self.a, (self.left, right, self.top, bottom)) if self.partial else self.a

    @property
    def partial(self) -> bool:
        """Whether the window is smaller than the node."""
        return tuple(self.a.shape[1:]) != self.shape


@dataclass
class Tally:
    """What rows have gathered so far: constant − error is a lower bound of the part already passed, (r,)."""

    owner: Tensor
    constant: Tensor
    error: Tensor
    pending: dict[str, Rows] = field(default_factory=dict)
    width: int = 1

    def add(self, gained: Tensor) -> None:
        """constant += gained, and what that addition rounds."""
        self.constant = self.constant + gained
        self.error = (self.error + U * self.constant.abs() + TINY) * (1 + 2 * U)

    def total(self) -> Tensor:
        """constant − error, rounded down: that difference is rounded twice more."""
        return self.constant - self.error * (1 + 4 * U) - 2 * U * self.constant.abs() - TINY

    def charge(self, rows: Rows, share: Tensor, floor: Tensor) -> None:
        """error += ⟨|a|, share⟩ + floor of each row's sample, rounded up."""
        mine = rows.cut(share).index_select(0, self.owner).flatten(1)
        swept = dots(rows.a.abs().flatten(1), mine)
        grown = (swept + floor.index_select(0, self.owner)) * (1 + 2 * gamma(mine.shape[1] + 8))
        self.error = (self.error + grown) * (1 + 2 * U)

    def push(self, name: str, rows: Rows, value: Enclosure) -> None:
        """Hand rows to a value; what it already holds is added, and that rounding is charged."""
        if name in self.pending:
            rows = _sum(self.pending[name], rows)
            self.charge(rows, 2 * U * magnitude(*value), torch.full_like(value[0].flatten(1)[:, 0], TINY))
        self.pending[name] = rows


@dataclass(frozen=True)
class Backward:
    """Walks rows down one graph for a batch of samples.

    `values` bound the inputs of nodes, `charges` the rounding of linear nodes, `enclosures` are the lines of
    nonlinear nodes (what is missing there stops the walk at that node's own interval).
    """

    forward: Forward
    region: Region
    values: Mapping[str, Enclosure]
    charges: Mapping[str, Charge]
    enclosures: Mapping[str, Lines | Winners | Planes | Slab]
    memory: int

    def minimum(self, source: str, rows: Rows, owner: Tensor) -> Tensor:
        """Lower bounds (r,) of ⟨a, source⟩ over S(x) of the samples `owner` (r,), NaN where arithmetic broke."""
        bounds, start, room = [rows.a.new_zeros(0)], 0, FIRST
        while start < len(owner):
            stop = start + room
            part = Rows(rows.a[start:stop], rows.shape, rows.top, rows.left)
            zero = rows.a.new_zeros(len(part.a))
            tally = Tally(owner[start:stop], zero, zero, {source: part})
            self.descend(tally)
            if self.forward.graph.input in tally.pending:
                tally.add(self._ground(tally.pending.pop(self.forward.graph.input), tally.owner))
            bounds.append(tally.total())
            start, room = stop, max(1, self.memory // (8 * 8 * tally.width))
        return torch.cat(bounds)

    def descend(self, tally: Tally) -> None:
        """Pull all rows down to the input, where they stay pending."""
        owner = tally.owner
        for node in reversed(self.forward.graph.nodes):
            if node.name not in tally.pending:
                continue
            tally.width = max(tally.width, sum(r.a[:1].numel() for r in tally.pending.values()))
            mine = tally.pending.pop(node.name)
            if isinstance(node.op, LinearOp):
                self._linear(node, node.op, mine, tally)
            elif node.name in self.enclosures:
                self._nonlinear(node, mine, tally)
            else:
                low, high = (mine.cut(t).index_select(0, owner) for t in self.values[node.name])
                tally.add(-corner(-mine.a, low, high))

    def _ground(self, rows: Rows, owner: Tensor) -> Tensor:
        """⟨Â, x⟩ ≥ −max over S(x) of ⟨−Â, x⟩."""
        if self.region.boxed:
            low, high = (rows.cut(t).index_select(0, owner) for t in (self.region.lower, self.region.upper))
            return -corner(-rows.a, low, high)
        return -self.region.take(owner).maximum(-rows.full())

    def _linear(self, node: Node, op: LinearOp, rows: Rows, tally: Tally) -> None:
        charge, known = self.charges[node.name], self.forward.constants[node.name]
        if known is not None or op.products_transposed:  # what only copies a row never rounds
            tally.charge(rows, charge.share, charge.floor)
        if known is not None:
            tally.add(rows.a.flatten(1) @ rows.cut(known[0]).reshape(-1))
        shapes = self.forward.graph.in_shapes(node)
        for name, pulled in zip(node.inputs, _pull(op, rows, shapes), strict=True):
            tally.push(name, pulled, self.values[name])

    def _nonlinear(self, node: Node, rows: Rows, tally: Tally) -> None:
        enclosure, (name,) = self.enclosures[node.name], node.inputs
        size = magnitude(*self.values[name])
        if isinstance(enclosure, Winners):
            pulled = _pull_winners(enclosure, rows.full(), self.forward.graph.shape(name), tally)
            tally.push(name, pulled, self.values[name])
            return
        if isinstance(enclosure, Planes):
            a = rows.full()
            pulled, offset = enclosure.pull(a, tally.owner)
            tally.add(offset)
            # every coefficient is a sum of products, every constant a dot: γ_n of their sizes is the share
            most = torch.maximum(enclosure.floor.abs(), enclosure.roof.abs())
            share = enclosure.share + 2 * gamma(a[:1].numel() + 8) * most
            floor = TINY * (8 + pulled.shape[1]) * (1 + size.flatten(1).sum(1))
            tally.charge(Rows(a, rows.shape), share, floor)
            tally.push(name, Rows(pulled, (pulled.shape[1],)), self.values[name])
            return
        if isinstance(enclosure, Slab):
            self._moved(enclosure, rows, tally, name)
            return

        def gather(t: Tensor) -> Tensor:
            return rows.cut(t).index_select(0, tally.owner)

        negative = rows.a.clamp_max(0.0)
        slope = torch.where(rows.a > 0, gather(enclosure.lower_slope), gather(enclosure.upper_slope))
        offset = dots(negative.flatten(1), gather(enclosure.upper_constant).flatten(1))
        largest = enclosure.upper_constant.abs()
        if bool(enclosure.lower_constant.any()):
            positive = (rows.a - negative).flatten(1)
            offset = offset + dots(positive, gather(enclosure.lower_constant).flatten(1))
            largest = torch.maximum(largest, enclosure.lower_constant.abs())
        tally.add(offset)
        # fl(a · slope): u |a| |slope| |x|;  the dots with b_L, b_U: γ_n |a| max(|b_L|, |b_U|)
        steepest = torch.maximum(enclosure.lower_slope.abs(), enclosure.upper_slope.abs()).clamp_min(1.0)
        share = 2 * U * steepest * size * (1 + 4 * U) + 2 * gamma(rows.a[:1].numel() + 4) * largest
        floor = TINY * (8 + rows.a[:1].numel()) * (1 + size.flatten(1).sum(1))
        tally.charge(rows, share, floor)
        tally.push(name, Rows(rows.a * slope, rows.shape, rows.top, rows.left), self.values[name])

    def _moved(self, slab: Slab, rows: Rows, tally: Tally, name: str) -> None:
        """⟨a, y⟩ ≥ ⟨a slope, p⟩ + ⟨a, centre⟩ − ⟨|a|, half⟩ for the three parameters p."""
        size, a = magnitude(*self.values[name]), rows.a.flatten(1)
        slope, centre, half = (rows.cut(t).index_select(0, tally.owner) for t in (slab.slope, slab.centre, slab.half))
        tally.add(dots(a, centre.flatten(1)) - dots(a.abs(), half.flatten(1)))
        floor = TINY * (8 + a.shape[1]) * (4 + size.sum(1))
        tally.charge(rows, slab.share(size), floor)
        pulled = torch.bmm(slope.flatten(2), a.unsqueeze(2)).squeeze(2)
        tally.push(name, Rows(pulled, (pulled.shape[1],)), self.values[name])


def _pull_winners(chosen: Winners, a: Tensor, shape: Shape, tally: Tally) -> Rows:
    """⟨a, y⟩ ≥ ⟨a, x_j⟩ where a ≥ 0 or j wins, else ⟨a, max u⟩. Overlapping windows add up at one place."""
    wins = chosen.wins.index_select(0, tally.owner)
    capped = (a < 0) & ~wins
    top = torch.where(capped, chosen.ceiling.index_select(0, tally.owner), 0.0).flatten(1)
    fixed = torch.where(capped, a, 0.0).flatten(1)
    n = fixed.shape[1]
    size = dots(fixed.abs(), top.abs()) * (1 + 2 * gamma(n + 4))
    tally.add(dots(fixed, top))
    passed = torch.where(capped, 0.0, a).flatten(2)
    pulled = a.new_zeros((len(a), shape[0], shape[1] * shape[2]))
    place = chosen.place.flatten(2).index_select(0, tally.owner)
    pulled.scatter_add_(2, place, passed)
    # an input collects at most n terms: γ_n Σ |a| |x_j|, |x_j| at most the largest of |l_j|, |u_j|
    tally.error = tally.error + 2 * gamma(n + 4) * size + (n + 8) * TINY
    spread = dots(passed.flatten(1).abs(), chosen.reach.index_select(0, tally.owner).flatten(1))
    tally.error = (tally.error + 2 * gamma(n + 4) * spread * (1 + 2 * gamma(n + 4))) * (1 + 4 * U)
    return Rows(pulled.view(len(a), *shape), shape)


def _sum(first: Rows, second: Rows) -> Rows:
    if (first.top, first.left, first.a.shape) == (second.top, second.left, second.a.shape):
        return Rows(first.a + second.a, first.shape, first.top, first.left)
    return Rows(first.full() + second.full(), first.shape)


def _pull(op: LinearOp, rows: Rows, shapes: tuple[Shape, ...]) -> tuple[Rows, ...]:
    """Wᵀ a per input."""
    if isinstance(op, Conv2d) and rows.partial:
        return (_pull_window(op, rows, shapes[0]),)
    if isinstance(op, Add):
        return rows, rows
    if isinstance(op, BatchNorm):
        return (Rows(op.map(rows.a), rows.shape, rows.top, rows.left),)
    pulled = transpose(op, rows.full(), shapes)
    return tuple(Rows(a, tuple(s)) for a, s in zip(pulled, shapes, strict=True))


def _pull_window(op: Conv2d, rows: Rows, shape: Shape) -> Rows:
    """A window of outputs [t, t + h) reads the inputs [s t − pad, s (t + h − 1) − pad + d (k − 1) + 1)."""

    def spread(a: Tensor) -> Tensor:
        return F.conv_transpose2d(a, op.weight, None, op.stride, 0, 0, op.groups, op.dilation)

    a, kernel = rows.a, op.weight.shape[2:]
    tall, wide = (
        (n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(a.shape[2:], op.stride, op.dilation, kernel, strict=True)
    )
    entries = a[:1].numel()
    if len(a) > 2 * entries and tall * wide <= DENSE * kernel[0] * kernel[1]:
        # every entry of this matrix is one weight or zero, so the sum still has `products_transposed` roundings
        matrix = spread(torch.eye(entries, dtype=a.dtype).view(entries, *a.shape[1:])).flatten(1)
        a = (a.flatten(1) @ matrix).view(len(a), -1, tall, wide)
    else:
        a = spread(a)
    top, left = rows.top * op.stride[0] - op.padding[0], rows.left * op.stride[1] - op.padding[1]
    a = a[:, :, max(-top, 0) : min(top + tall, shape[1]) - top, max(-left, 0) : min(left + wide, shape[2]) - left]
    return Rows(a, shape, max(top, 0), max(left, 0))
