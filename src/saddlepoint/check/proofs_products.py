"""The checker's planes for products of two joined factors: x ⊙ y, and X Y as a sum of such products.

For slopes α, β the constant is the least of x y − α x − β y over the four corners of [l, u] × [L, U]: that function is
linear in each variable, so it is smallest at a corner. Hence any slopes are sound; McCormick's are

    below  α = c L + (1 − c) U,  β = c l + (1 − c) u        above  α = c U + (1 − c) L,  β = c l + (1 − c) u

with one c in [0, 1] per output. A row a of outputs becomes Σ a α on x and Σ a β on y; both round by γ_n Σ |a| |α| |x|,
and so may be added up in any order: as matrix products with L, U, l and u.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.check.proofs_functions import TINY, U
from saddlepoint.core.arithmetic import gamma
from saddlepoint.graph.ops import MatrixProduct, Product

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Planes:
    """The weight c (b, groups, rows, columns), both ends of both factors as matrices, constants and share (b, *out)."""

    op: Product | MatrixProduct
    weight: Tensor
    low: Pair
    high: Pair
    floor: Tensor
    roof: Tensor
    share: Tensor

    def pull(self, a: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (r, joined) on the factors, and ⟨a⁺, floor⟩ + ⟨a⁻, roof⟩ (r,), rounded to nearest."""

        def mine(t: Tensor) -> Tensor:
            return t.index_select(0, owner)

        grouped, c = a.view(len(a), *_grid(self.op)), mine(self.weight)
        up, down = grouped.clamp_min(0.0), grouped.clamp_max(0.0)
        (x0, y0), (x1, y1) = ((mine(x), mine(y)) for x, y in (self.low, self.high))
        with_low, with_high = up * c + down * (1 - c), up * (1 - c) + down * c
        if isinstance(self.op, Product):
            on_x = with_low * y0 + with_high * y1  # one row, inner place and column a group
            on_y = grouped * c * x0 + grouped * (1 - c) * x1
        else:
            on_x = with_low @ y0.mT + with_high @ y1.mT
            on_y = x0.mT @ (grouped * c) + x1.mT @ (grouped * (1 - c))
        flat = [mine(t).flatten(1) for t in (self.floor, self.roof)]
        constant = torch.linalg.vecdot(up.flatten(1), flat[0]) + torch.linalg.vecdot(down.flatten(1), flat[1])
        return torch.cat([on_x.flatten(1), on_y.flatten(1)], 1), constant


def _grid(op: Product | MatrixProduct) -> tuple[int, int, int]:
    """(groups, rows, columns) of the output: a product entry by entry has one row and column in each group."""
    if isinstance(op, Product):
        return torch.Size(op.shape).numel(), 1, 1
    return torch.Size(op.left[:-2]).numel(), op.left[-2], op.right[-1]


def _factors(op: Product | MatrixProduct, joined: Tensor) -> Pair:
    """x as (b, groups, rows, inner, 1) and y as (b, groups, 1, inner, columns)."""
    groups, rows, columns = _grid(op)
    inner = 1 if isinstance(op, Product) else op.left[-1]
    x, y = joined.flatten(1).split([groups * rows * inner, groups * inner * columns], 1)
    return x.reshape(-1, groups, rows, inner, 1), y.reshape(-1, groups, 1, inner, columns)


def _corners(op: Product | MatrixProduct, low: Tensor, high: Tensor) -> list[Pair]:
    (x0, y0), (x1, y1) = _factors(op, low), _factors(op, high)
    return [(x, y) for x in (x0, x1) for y in (y0, y1)]


def image_of_product(op: Product | MatrixProduct, low: Tensor, high: Tensor) -> Pair:
    """Bounds of every output: the corners of each product, summed over the inner axis."""
    values = torch.stack([x * y for x, y in _corners(op, low, high)])
    least, most = values.amin(0), values.amax(0)
    # each product rounds once, the sum of n of them by γ_n of their sizes
    slack = 2 * gamma(values.shape[-2] + 4) * values.abs().amax(0).sum(-2) + values.shape[-2] * TINY
    shape = (len(low), *op.shape)
    return (least.sum(-2) - slack).reshape(shape), (most.sum(-2) + slack).reshape(shape)


def planes(op: Product | MatrixProduct, low: Tensor, high: Tensor, free: Tensor) -> Planes:
    """The planes with the weights `free` (b, *out) in [0, 1]."""
    groups, rows, columns = _grid(op)
    c = free.reshape(-1, groups, rows, 1, columns)
    (x0, y0), (x1, y1) = _factors(op, low), _factors(op, high)
    wide = torch.broadcast_to
    full = (len(low), groups, rows, x0.shape[3], columns)
    across = c * x0 + (1 - c) * x1
    below = (wide(c * y0 + (1 - c) * y1, full), wide(across, full))
    above = (wide(c * y1 + (1 - c) * y0, full), wide(across, full))
    shape = (len(low), *op.shape)
    terms = torch.maximum(x0.abs(), x1.abs()), torch.maximum(y0.abs(), y1.abs())
    # |α| |x|, |β| |y| and |x y| are at most |x| |y|
    size = wide(terms[0] * terms[1], full).sum(-2).reshape(shape)
    inner = full[3]
    slack = 2 * gamma(inner + 16) * 4 * size + inner * TINY
    heights = {}
    for name, (alpha, beta), sign in (("floor", below, 1.0), ("roof", above, -1.0)):
        corners = [sign * (x * y - alpha * x - beta * y) for x, y in _corners(op, low, high)]
        least = torch.stack([wide(t, full) for t in corners]).amin(0)
        heights[name] = sign * (least.sum(-2).reshape(shape) - slack)
    # a coefficient sums 2 columns (or rows) products of at most three roundings each
    n = 2 * (groups * rows * columns + inner) + 16
    share = 2 * gamma(n) * 8 * size * (1 + 8 * U)
    ends = [(x.squeeze(-1), y.squeeze(-3)) for x, y in ((x0, y0), (x1, y1))]
    weight = c.squeeze(-2)
    return Planes(op, weight, ends[0], ends[1], heights["floor"], heights["roof"], share)


def undecided_factors(op: Product | MatrixProduct, low: Tensor, high: Tensor) -> Tensor:
    """Factors of products that are far from linear: |x|/w + |y|/W < 12 (a gap above 1/48 of the range)."""
    ratio = (low + high).abs() / (2 * (high - low))
    x, y = _factors(op, torch.nan_to_num(ratio, nan=torch.inf, posinf=torch.inf))
    bent = (x + y) < 12
    return torch.cat([bent.any(-1).flatten(1), bent.any(-3).flatten(1)], 1).view(low.shape)
