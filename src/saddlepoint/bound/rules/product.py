"""Products of two variables, from a `Join` of both: x ⊙ y and the matrix product X Y.

McCormick's planes (McCormick 1976, Mathematical Programming 10, 147-175), for x in [l, u], y in [L, U]:

    x y ≥ L x + l y − l L      x y ≥ U x + u y − u U        (expand (x − l)(y − L) ≥ 0 and (u − x)(U − y) ≥ 0)
    x y ≤ U x + l y − l U      x y ≤ L x + u y − u L

Any mixture of the two lower planes is a lower plane: the choice c in [0, 1] weighs the first of each pair, one number
(b, *shape) per output, ½ at first. A matrix product sums such planes over its inner axis with one weight per output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.bound.rows import Rows
from saddlepoint.graph.ops import MatrixProduct, Product

NEARLY_LINEAR = 12.0  # the gap is then at most 1/48 of the range; attention gains much from these rows

Factors = tuple[Tensor, Tensor, Tensor, Tensor]
"""l, u of the first factor and L, U of the second."""


@dataclass(frozen=True)
class Planes:
    """The mixed planes of a product: the weight (b, *shape) of the first of each pair."""

    op: Product | MatrixProduct
    factors: Factors
    weight: Tensor

    def pull(self, rows: Rows, owner: Tensor) -> tuple[tuple[Rows, ...], Tensor]:
        a = rows.full()
        lx, ux, ly, uy = (t.index_select(0, owner) for t in self.factors)
        c = self.weight.index_select(0, owner)
        positive, negative = a.clamp_min(0), a.clamp_max(0)
        constant = a.new_zeros(len(a))
        left, right = torch.zeros_like(lx), torch.zeros_like(ly)
        # ⟨A⁺, x y⟩ ≥ ⟨A⁺ c, L x + l y − l L⟩ + …,  ⟨A⁻, x y⟩ ≥ ⟨A⁻ c, U x + l y − l U⟩ + …
        for part, x, y in (
            (positive * c, lx, ly),
            (positive * (1 - c), ux, uy),
            (negative * c, lx, uy),
            (negative * (1 - c), ux, ly),
        ):
            left = left + _onto_first(self.op, part, y)
            right = right + _onto_second(self.op, part, x)
            constant = constant - (part * self.op.join(x, y)).flatten(1).sum(1)
        joined = torch.cat([left.flatten(1), right.flatten(1)], 1)
        return (Rows(joined, (joined.shape[1],)),), constant


class ProductRule:
    """Rule of Product and MatrixProduct; lower, upper bound the joined vector of both factors."""

    def interval(self, op: Product | MatrixProduct, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        (lx, ly), (ux, uy) = op.split(lower), op.split(upper)
        if isinstance(op, Product):
            corners = torch.stack([lx * ly, lx * uy, ux * ly, ux * uy])
            return corners.amin(0), corners.amax(0)
        # the same corners for every triple (row, inner, column), then the sum over the inner axis
        lx, ux, ly, uy = lx.unsqueeze(-1), ux.unsqueeze(-1), ly.unsqueeze(-3), uy.unsqueeze(-3)
        corners = torch.stack([lx * ly, lx * uy, ux * ly, ux * uy])
        return corners.amin(0).sum(-2), corners.amax(0).sum(-2)

    def loose(self, op: Product | MatrixProduct, lower: Tensor, upper: Tensor) -> Tensor:
        # the planes' gap is w W / 4 in a range of |x| W + |y| w: nearly linear where |x|/w + |y|/W is large
        ratio = (lower + upper).abs() / 2 / (upper - lower)  # infinite where l = u
        first, second = op.split(torch.nan_to_num(ratio, nan=torch.inf, posinf=torch.inf))
        if isinstance(op, Product):
            partner, other = second, first
        else:
            partner, other = second.amin(-1).unsqueeze(-2), first.amin(-2).unsqueeze(-1)
        parts = (first + partner < NEARLY_LINEAR, second + other < NEARLY_LINEAR)
        return torch.cat([p.flatten(1) for p in parts], 1)

    def choose(self, op: Product | MatrixProduct, lower: Tensor, upper: Tensor) -> Tensor:
        return lower.new_full((len(lower), *op.shape), 0.5)

    def relax(self, op: Product | MatrixProduct, lower: Tensor, upper: Tensor, choice: Tensor | None) -> Planes:
        weight = (self.choose(op, lower, upper) if choice is None else choice).to(lower).clamp(0.0, 1.0)
        (lx, ly), (ux, uy) = op.split(lower), op.split(upper)
        return Planes(op, (lx, ux, ly, uy), weight)


def _onto_first(op: Product | MatrixProduct, part: Tensor, y: Tensor) -> Tensor:
    """The coefficients on x of ⟨part, x y⟩."""
    return part * y if isinstance(op, Product) else part @ y.transpose(-1, -2)


def _onto_second(op: Product | MatrixProduct, part: Tensor, x: Tensor) -> Tensor:
    """The coefficients on y of ⟨part, x y⟩."""
    return part * x if isinstance(op, Product) else x.transpose(-1, -2) @ part
