"""Forward linear bounds: every value between two affine functions of the input.

    |v(x) − (⟨A, x⟩ + c)| ≤ ⟨B, x⟩ + d   for all x of the enclosing box                     (a form: A, c, B, d)

    linear node      A, c ↦ W A, W c + b         B, d ↦ |W| B, |W| d
    elementwise      s_L v + t_L ≤ σ(v) ≤ s_U v + t_U with v at its own lower or upper function, by the slope's sign
    other nodes      the interval of the output, as a constant form

A value's bounds are the lowest and highest point of its two functions over the box, or the interval from its inputs
where that is better. Cost: as many forwards as the box has free inputs, whatever the depth and width: for networks with
few inputs (generators, controllers) the cheapest bounds that know where a value comes from; backward passes follow
for the rows that are asked. (Zhang et al. 2018, §3; Xu et al. 2020, arXiv 2002.12920, "forward mode".)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from saddlepoint.bound.backward import Region
from saddlepoint.bound.enclose import Choose
from saddlepoint.bound.interval import Interval2, step
from saddlepoint.bound.rules import Elementwise, Relaxation, rule_of
from saddlepoint.bound.rules.render import Slab
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import LinearOp


@dataclass(frozen=True)
class Form:
    """A, B (b, f, *shape) on the f free inputs; c, d (b, *shape)."""

    a: Tensor
    c: Tensor
    b: Tensor
    d: Tensor


class Enclosed(NamedTuple):
    """Bounds and forms of every value, lines of every nonlinear node and the choices of their lower slopes."""

    values: dict[str, Interval2]
    relaxations: dict[str, Relaxation]
    choices: dict[str, Tensor]
    forms: dict[str, Form]


def enclose_forward(graph: Graph, region: Region, choose: Choose) -> Enclosed:
    """All of it for a batch of regions; the forms are on the inputs that vary in any of them."""
    free = (region.upper > region.lower).flatten(1).any(0).nonzero().flatten()
    values: dict[str, Interval2] = {graph.input: (region.lower, region.upper)}
    forms = {graph.input: _inputs(region, free)}
    relaxations: dict[str, Relaxation] = {}
    choices: dict[str, Tensor] = {}
    for node in graph.nodes:
        inputs = [forms[name] for name in node.inputs]
        if isinstance(node.op, LinearOp):
            low, high = step(node, graph, [values[name] for name in node.inputs])
            form = _linear(node, node.op, inputs)
        else:
            rule, known = rule_of(node.op, node.name), values[node.inputs[0]]
            choice = choose(rule, node.op, *known)
            if choice is not None:
                choices[f"lower/{node.name}"] = choice
            relaxed = relaxations[node.name] = rule.relax(node.op, *known, choice)
            low, high = relaxed.range if isinstance(relaxed, Slab) else step(node, graph, [known])
            if isinstance(relaxed, Elementwise):
                form = _through(relaxed, inputs[0])
            elif isinstance(relaxed, Slab) and node.inputs == (graph.input,):
                form = _slab(relaxed, region, free)
            else:
                form = _constant(low, high, len(free))
        forms[node.name] = form
        below, above = _range(form, region, free)
        # a comparison with NaN is false: the interval stays
        values[node.name] = torch.where(below > low, below, low), torch.where(above < high, above, high)
    return Enclosed(values, relaxations, choices, forms)


def _inputs(region: Region, free: Tensor) -> Form:
    shape, (b, f) = region.lower.shape[1:], (len(region.lower), len(free))
    eye = region.lower.new_zeros((f, region.lower[0].numel()))
    eye[torch.arange(f, device=free.device), free] = 1.0
    fixed = region.lower.flatten(1).clone()
    fixed[:, free] = 0.0
    a = eye.view(1, f, *shape).expand(b, f, *shape)
    return Form(a, fixed.view(b, *shape), torch.zeros_like(a), torch.zeros_like(region.lower))


def _linear(node: Node, op: LinearOp, inputs: list[Form]) -> Form:
    b, f = inputs[0].a.shape[:2]
    return Form(
        op.map(*(form.a.flatten(0, 1) for form in inputs)).view(b, f, *node.shape),
        op(*(form.c for form in inputs)),
        op.absolute_map(*(form.b.flatten(0, 1) for form in inputs)).view(b, f, *node.shape),
        op.absolute_map(*(form.d for form in inputs)),
    )


def _through(lines: Elementwise, v: Form) -> Form:
    """v in M ± R: L = s_L M − |s_L| R + t_L, U = s_U M + |s_U| R + t_U; then their middle and half their distance."""
    s, t = lines.lower_slope, lines.upper_slope
    floor = 0.0 if lines.lower_constant is None else lines.lower_constant
    p, q = (s + t) / 2, (t.abs() - s.abs()) / 2
    r, u = (t - s) / 2, (t.abs() + s.abs()) / 2
    wide = [k.unsqueeze(1) for k in (p, q, r, u)]
    return Form(
        wide[0] * v.a + wide[1] * v.b,
        p * v.c + q * v.d + (floor + lines.upper_constant) / 2,
        wide[2] * v.a + wide[3] * v.b,
        r * v.c + u * v.d + (lines.upper_constant - floor) / 2,
    )


def _slab(slab: Slab, region: Region, free: Tensor) -> Form:
    """Parallel planes in the inputs; those that do not vary are constants."""
    fixed = region.lower.clone()
    fixed[:, free] = 0.0
    a = slab.slope.index_select(1, free)
    moved = (slab.slope * fixed.view(*fixed.shape, *(1 for _ in slab.centre.shape[1:]))).sum(1)
    return Form(a, slab.centre + moved, torch.zeros_like(a), slab.half)


def _constant(low: Tensor, high: Tensor, free: int) -> Form:
    nothing = low.new_zeros((len(low), free, *low.shape[1:]))
    return Form(nothing, (low + high) / 2, nothing, (high - low) / 2)


def _range(form: Form, region: Region, free: Tensor) -> Interval2:
    """The lowest value of M − R and the highest of M + R over the box."""
    below = _lowest(form.a - form.b, region, free) + (form.c - form.d)
    above = -_lowest(-(form.a + form.b), region, free) + (form.c + form.d)
    return below, above


def _lowest(a: Tensor, region: Region, free: Tensor) -> Tensor:
    """min over the enclosing box of ⟨a, x⟩ for a (b, f, *shape), (b, *shape)."""
    b, f, *shape = a.shape
    low, high = (t.flatten(1)[:, free].view(b, f, *(1 for _ in shape)) for t in (region.lower, region.upper))
    rising = a.clamp_min(0)
    return (rising * low + (a - rising) * high).sum(1)
