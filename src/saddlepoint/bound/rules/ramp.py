"""The default place of a lower line, as a continuous function of the interval (spec/certificate.py, "ramp").

    Relu, LeakyRelu   clamp(1/2 + 8 (u + l) / (u − l), 0, 1)
    Clip              clamp(1/2 + 8 ((u − p) − (p − l)) / (u − l), 0, 1),   p = max(l, lo)
    others            1/2

It is the choice by area (1 if u > −l, else 0) with a short ramp in place of the jump: a checker that computes in
another precision then reaches nearly the same bound also where u ≈ −l.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.graph.ops import Clip, LeakyRelu, Op, Relu
from saddlepoint.spec.certificate import RAMP


def ramp(op: Op, lower: Tensor, upper: Tensor) -> Tensor:
    """Choice in [0, 1] for l ≤ v ≤ u, elementwise. Where u = l it does not matter and is 1/2."""
    if isinstance(op, (Relu, LeakyRelu)):
        lean = upper + lower
    elif isinstance(op, Clip):
        p = lower.clamp_min(op.lower)
        lean = (upper - p) - (p - lower)
    else:
        return torch.full_like(lower, 0.5)
    width = (upper - lower).clamp_min(torch.finfo(lower.dtype).tiny)
    return (0.5 + RAMP * lean / width).clamp(0.0, 1.0)
