"""Rigorous intervals of every value, and how much a backward step through a node may round.

For a linear node y = W x + b with x in [l, u], c and r the computed centre and radius, k = `products`:

    |fl(W c) − W c| ≤ γ_k |W| |c|           so  y ∈ fl(W c) + b ± |W| (r + γ_k |c|), and |W| itself by (1 + γ)

Backward, for a row a and k' = `products_transposed`, with X ≥ |x| over the set and fl(Wᵀ a) = Â:

    |⟨Wᵀ a − Â, x⟩| ≤ γ_k' |W|ᵀ|a| · X = ⟨|a|, γ_k' |W| X⟩

so one forward |W| X per node, kept as `charge`, and one dot ⟨|a|, charge⟩ per row bound the error of that step; the
constant ⟨a, b⟩ adds γ_n ⟨|a|, |b|⟩, also in `charge`. Sums may be evaluated in any order (Higham 2002, §3.1);
products that meet the zeros of a dense matrix or of padding are exact. Underflow gets TINY per operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from saddlepoint.check.proofs_lines import TINY, U, image, supported
from saddlepoint.core.arithmetic import gamma
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import BatchNorm, LinearOp

Enclosure = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Charge:
    """|rounding of one step from rows a| ≤ ⟨|a|, share⟩ + floor: share (b, *shape) ≥ 0, floor (b,) for underflow."""

    share: Tensor
    floor: Tensor


@dataclass(frozen=True)
class Forward:
    """Forward arithmetic over one float64 graph."""

    graph: Graph

    @cached_property
    def constants(self) -> dict[str, tuple[Tensor, Tensor] | None]:
        """Per linear node its constant (1, *shape) and an upper bound of that constant's own error."""
        like = torch.empty(0, dtype=torch.float64)
        found: dict[str, tuple[Tensor, Tensor] | None] = {}
        for node in self.graph.nodes:
            if not isinstance(node.op, LinearOp):
                continue
            c = node.op.constant(self.graph.in_shapes(node), like)
            found[node.name] = None if c is None else (c, _constant_error(node.op, c))
        return found

    def image(self, node: Node, inputs: list[Enclosure]) -> Enclosure:
        """Bounds of a node's value from bounds of its inputs."""
        op = node.op
        if isinstance(op, LinearOp):
            return self._linear(node, op, inputs)
        return image(supported(op, node.name), *inputs[0])

    def _linear(self, node: Node, op: LinearOp, inputs: list[Enclosure]) -> Enclosure:
        grow = 2 * gamma(op.products + 4)
        centres = [(low + high) / 2 for low, high in inputs]
        radii = [
            torch.maximum(high - c, c - low) * (1 + 2 * U) + TINY
            for (low, high), c in zip(inputs, centres, strict=True)
        ]
        middle = op.map(*centres)
        # |W| (r + γ |c|), rounded up
        spread = op.absolute_map(*(r + grow * c.abs() for r, c in zip(radii, centres, strict=True)))
        spread = spread * (1 + grow) + (op.products + 4) * TINY
        known = self.constants[node.name]
        if known is not None:
            middle = middle + known[0]
            spread = spread + known[1]
        spread = (spread + 2 * U * middle.abs()) * (1 + 4 * U)
        return middle - spread, middle + spread

    def charge(self, node: Node, op: LinearOp, inputs: list[Enclosure]) -> Charge:
        """The rounding of one backward step through a linear node, constant included."""
        sizes = [magnitude(*enclosure) for enclosure in inputs]
        entries = torch.Size(node.shape).numel()
        swept = op.absolute_map(*sizes) * (1 + 2 * gamma(op.products + 4))
        total = 2 * gamma(op.products_transposed + 2) * swept
        known = self.constants[node.name]
        if known is not None:
            total = total + 2 * gamma(entries + 4) * known[0].abs() + 2 * known[1]
        # a product that underflows errs by TINY whatever a is, and then meets |x|
        extent = 1 + torch.stack([size.flatten(1).sum(1) for size in sizes]).sum(0)
        return Charge(total, TINY * (op.products_transposed + entries + 8) * extent)


def magnitude(lower: Tensor, upper: Tensor) -> Tensor:
    """max |x| over [lower, upper]."""
    return torch.maximum(lower.abs(), upper.abs())


def _constant_error(op: LinearOp, c: Tensor) -> Tensor:
    """|computed − real| of a constant (1, *shape): only batch norm computes its own, b − μ w / √(σ² + ε)."""
    if not isinstance(op, BatchNorm):
        return torch.zeros_like(c)
    size = op.bias.abs() + (op.mean * op.scale).abs()  # seven roundings in all
    return (gamma(16) * size + TINY).view(1, -1, *[1] * (c.ndim - 2)).expand_as(c)
