"""Rules for ONNX functions that become other operators: extrema, reciprocals, norms, gates, a constant choice."""

from __future__ import annotations

import numpy as np
import torch

from saddlepoint.graph import algebra, ops
from saddlepoint.graph.builder import Ref
from saddlepoint.graph.onnx_call import Call


def extremum(c: Call, kind: str) -> Ref:
    """Max and Min of any number of values."""
    values = [c.value(i) for i in range(len(c.inputs))]
    constants = [v for v in values if not isinstance(v, Ref)]
    best = next(v for v in values if isinstance(v, Ref))
    for other in [v for v in values if isinstance(v, Ref) and v is not best]:
        best = algebra.extremum(c.b, kind, best, other, c.name)
    for constant in constants:
        best = algebra.extremum(c.b, kind, best, constant, c.name)
    return best


def reduce_extremum(c: Call, kind: str) -> Ref:
    """ReduceMax and ReduceMin over given axes."""
    axes = c.ints("axes", 1)
    if not axes:
        raise c.b.unsupported("a reduction over all axes mixes the samples of a batch")
    return algebra.reduce_extremum(c.b, c.variable(), kind, axes, bool(c.a.get("keepdims", 1)), c.name)


def norm(c: Call, power: int) -> Ref:
    """ReduceL1, ReduceL2 and (power 0) ReduceSumSquare."""
    axes = c.ints("axes", 1)
    if not axes:
        raise c.b.unsupported("a reduction over all axes mixes the samples of a batch")
    x = c.variable()
    terms = c.b.add(ops.Abs(), x) if power == 1 else algebra.multiply(c.b, x, x)
    total = algebra.reduce(c.b, terms, "sum", axes, bool(c.a.get("keepdims", 1)), c.name)
    return c.b.add(ops.Elementwise("Sqrt"), total, name=c.name) if power == 2 else total


def hard_sigmoid(c: Call) -> Ref:
    """min(max(α x + β, 0), 1)."""
    alpha, beta = float(c.a.get("alpha", 0.2)), float(c.a.get("beta", 0.5))
    scaled = algebra.multiply(c.b, c.variable(), c.b.constant(alpha))
    return c.b.add(ops.Clip(0.0, 1.0), algebra.add(c.b, scaled, c.b.constant(beta)), name=c.name)


def elu(c: Call) -> Ref:
    """ELU; for α other than 1 it is relu(x) + α (e^min(x, 0) − 1)."""
    alpha, x = float(c.a.get("alpha", 1.0)), c.variable()
    if alpha == 1:
        return c.node(ops.Elementwise("Elu"))
    left = c.b.add(ops.Elementwise("Elu"), c.b.add(ops.Clip(upper=0.0), x))
    return algebra.add(c.b, c.b.add(ops.Relu(), x), algebra.multiply(c.b, left, c.b.constant(alpha)), c.name)


def prelu(c: Call) -> Ref:
    """PRelu; with slopes per channel it is relu(x) − s relu(−x)."""
    slope, x = c.constant(1), c.variable()
    if slope.numel() == 1:
        return c.node(ops.LeakyRelu(float(slope)))
    left = c.b.add(ops.Relu(), c.b.add(ops.Negate(), x))
    return algebra.subtract(c.b, c.b.add(ops.Relu(), x), algebra.multiply(c.b, left, slope), c.name)


def where(c: Call) -> Ref:
    """x where a constant condition holds, y elsewhere: exact products with 0 and 1."""
    chosen = torch.from_numpy(np.ascontiguousarray(c.array(0)).astype(np.float32))
    total = None
    for i, mask in ((1, chosen), (2, 1 - chosen)):
        value = c.value(i)
        part = algebra.multiply(c.b, value, mask) if isinstance(value, Ref) else value * c.b.constant(mask)
        total = part if total is None else algebra.add(c.b, total, part, c.name)
    if not isinstance(total, Ref):
        raise c.b.unsupported("a choice between constants that depends on the input")
    return total
