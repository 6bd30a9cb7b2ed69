"""A clause is a maximum of atoms: the best convex mixture of their lines bounds it.

    max_i atom_i ≥ Σ λ_i atom_i   for λ in the simplex,     g(λ) = min over the box of Σ λ_i (⟨a_i, x⟩ + c_i)

g is concave; exponentiated supergradient steps (Kivinen & Warmuth 1997) climb it, the best λ is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.bound.search.boxes import Line

STEPS = 24


def mixture(line: Line, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """λ (b, m) and g(λ) (b,) for the m rows of `line` over boxes (b, d)."""
    alone = line.minimum(lower, upper)
    best, who = alone.max(1)
    weights = torch.nn.functional.one_hot(who, alone.shape[1]).to(alone)
    if alone.shape[1] == 1:
        return weights, best
    low, high = lower.unsqueeze(1), upper.unsqueeze(1)
    # one unit of the exponent is the spread of the rows at their own minima
    unit = (line.a.abs() * (high - low)).sum(2).amax(1, keepdim=True).clamp_min(torch.finfo(best.dtype).tiny)
    logits = (alone - best.unsqueeze(1)) / unit
    for t in range(STEPS):
        mix = torch.softmax(logits, 1)
        a = torch.bmm(mix.unsqueeze(1), line.a)
        x = torch.where(a > 0, low, high)
        rows = (line.a * x).sum(2) + line.c  # the supergradient: every row at the minimiser
        value = (mix * rows).sum(1)
        better = value > best
        best = torch.where(better, value, best)
        weights = torch.where(better.unsqueeze(1), mix, weights)
        logits = logits + (4.0 / (1 + t / 4)) * rows / unit
    return weights, best
