"""Forward linear bounds, as the checker finds them by itself: every value between two affine functions of the input.

    |v − (⟨A, t⟩ + c)| ≤ ⟨B, t⟩ + d   on the box;   t the inputs that vary, T = max |t|

A coefficient may be any number: what its rounding is worth on the box goes into d. With
size = Σ (|A| + |B|) T + |c| + |d| of the inputs, k = `products` and lines s_L v + t_L ≤ σ(v) ≤ s_U v + t_U:

    linear node      |fl(W ·) − W ·| ≤ γ_k |W| size                              one |W| size for all four parts
    elementwise      ≤ 16 u ((|s_L| + |s_U|) size + |t_L| + |t_U|)               a dozen roundings
    range            ≤ γ_f size for the sum over the f inputs

Other nodes: the interval of the output as a constant. Anything that is not finite leaves the interval as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.check.proofs_forward import Enclosure, Forward
from saddlepoint.check.proofs_lines import TINY, Lines, U
from saddlepoint.check.proofs_render import Slab
from saddlepoint.core.arithmetic import gamma
from saddlepoint.graph.ir import Node
from saddlepoint.graph.ops import LinearOp


@dataclass(frozen=True)
class Form:
    """A, B (b, f, *shape); c, d (b, *shape)."""

    a: Tensor
    c: Tensor
    b: Tensor
    d: Tensor


@dataclass(frozen=True)
class Affine:
    """Forms over the boxes [low, high] (b, f) of the inputs that vary."""

    forward: Forward
    low: Tensor
    high: Tensor
    free: Tensor

    @classmethod
    def over(cls, forward: Forward, lower: Tensor, upper: Tensor) -> Affine:
        """Over boxes (b, *input): an input varies if it does in any of them."""
        lower, upper = lower.flatten(1), upper.flatten(1)
        free = (upper > lower).any(0).nonzero().flatten()
        return cls(forward, lower[:, free], upper[:, free], free)

    def start(self, lower: Tensor) -> Form:
        """The input itself: its fixed entries are constants."""
        (b, *shape), f = lower.shape, len(self.free)
        eye = lower.new_zeros((f, lower[0].numel()))
        eye[torch.arange(f), self.free] = 1.0
        fixed = lower.flatten(1).clone()
        fixed[:, self.free] = 0.0
        a = eye.view(1, f, *shape).expand(b, f, *shape)
        return Form(a, fixed.view(b, *shape), torch.zeros_like(a), torch.zeros_like(lower))

    def linear(self, node: Node, op: LinearOp, forms: Sequence[Form]) -> Form:
        """Through a linear node."""
        b, f = forms[0].a.shape[:2]
        grow = 4 * gamma(op.products + 4)
        c = op.map(*(form.c for form in forms))
        d = op.absolute_map(*(form.d + grow * self._size(form) for form in forms)) + self._floor(op.products + 4)
        known = self.forward.constants[node.name]
        if known is not None:
            c, d = c + known[0], d + known[1]
        a = op.map(*(form.a.flatten(0, 1) for form in forms)).view(b, f, *node.shape)
        spread = op.absolute_map(*(form.b.flatten(0, 1) for form in forms)).view(b, f, *node.shape)
        return Form(a, c, spread, d + 4 * U * (d.abs() + c.abs()))

    def through(self, lines: Lines, v: Form) -> Form:
        """v in M ± R: between s_L M − |s_L| R + t_L and s_U M + |s_U| R + t_U."""
        s, t = lines.lower_slope, lines.upper_slope
        floor, roof = lines.lower_constant, lines.upper_constant
        p, q, r, u = (s + t) / 2, (t.abs() - s.abs()) / 2, (t - s) / 2, (t.abs() + s.abs()) / 2
        rounded = 16 * U * ((s.abs() + t.abs()) * self._size(v) + floor.abs() + roof.abs()) + self._floor(16)
        return Form(
            p.unsqueeze(1) * v.a + q.unsqueeze(1) * v.b,
            p * v.c + q * v.d + (floor + roof) / 2,
            r.unsqueeze(1) * v.a + u.unsqueeze(1) * v.b,
            r * v.c + u * v.d + (roof - floor) / 2 + rounded,
        )

    def moved(self, slab: Slab, v: Form) -> Form:
        """Parallel planes in the graph's input, which `v` is: its fixed entries (v.c) go into the constant."""
        sums = (slab.slope * v.c.view(*v.c.shape, *(1 for _ in slab.centre.shape[1:]))).sum(1)
        gross = (slab.slope.abs() * v.c.abs().view(*v.c.shape, *(1 for _ in slab.centre.shape[1:]))).sum(1)
        rounded = 16 * U * (gross + slab.centre.abs() + slab.half) + self._floor(16)
        a = slab.slope.index_select(1, self.free)
        return Form(a, slab.centre + sums, torch.zeros_like(a), slab.half + rounded)

    def constant(self, low: Tensor, high: Tensor) -> Form:
        """Anything between low and high."""
        nothing = low.new_zeros((len(low), len(self.free), *low.shape[1:]))
        half = (high - low) / 2
        return Form(nothing, (low + high) / 2, nothing, half + 4 * U * (low.abs() + high.abs()) + TINY)

    def meet(self, low: Tensor, high: Tensor, form: Form) -> Enclosure:
        """The interval, cut with the range of a form."""
        rounded = 2 * gamma(len(self.free) + 8) * self._size(form) + self._floor(len(self.free) + 8)
        below = self._lowest(form.a - form.b) + (form.c - form.d) - rounded
        above = -self._lowest(-(form.a + form.b)) + (form.c + form.d) + rounded
        # a comparison with NaN is false
        return torch.where(below > low, below, low), torch.where(above < high, above, high)

    def _lowest(self, a: Tensor) -> Tensor:
        low, high = (t.view(*t.shape, *(1 for _ in a.shape[2:])) for t in (self.low, self.high))
        return torch.where(a > 0, a * low, a * high).sum(1)

    def _size(self, form: Form) -> Tensor:
        """Σ (|A| + |B|) T + |c| + |d|, rounded up."""
        reach = torch.maximum(self.low.abs(), self.high.abs())
        reach = reach.view(*reach.shape, *(1 for _ in form.c.shape[1:]))
        total = ((form.a.abs() + form.b.abs()) * reach).sum(1) + form.c.abs() + form.d.abs()
        return total * (1 + 2 * gamma(len(self.free) + 8)) + TINY

    def _floor(self, operations: int) -> float:
        """What underflow may take: TINY per operation, times what a coefficient meets."""
        reach = torch.maximum(self.low.abs(), self.high.abs())
        return TINY * operations * (4 + 4 * float(reach.sum(1).max())) if len(reach) else TINY


def form_of(affine: Affine, node: Node, forms: Mapping[str, Form], enclosure: object, image: Enclosure) -> Form:
    """A node's form from those of its inputs; nodes that are neither linear nor between lines get their interval."""
    if isinstance(node.op, LinearOp):
        return affine.linear(node, node.op, [forms[name] for name in node.inputs])
    if isinstance(enclosure, Slab) and node.inputs == (affine.forward.graph.input,):
        return affine.moved(enclosure, forms[node.inputs[0]])
    if isinstance(enclosure, Lines):
        return affine.through(enclosure, forms[node.inputs[0]])
    return affine.constant(*image)
