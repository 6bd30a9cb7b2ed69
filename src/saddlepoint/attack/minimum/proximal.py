"""Proximal operators of the norms in a diagonal metric:  argmin_r  λ ‖r‖ + ½ Σ_i D_i (r_i − v_i)².

    ℓ1: r_i = sign(v_i) max(|v_i| − λ / D_i, 0)
    ℓ2: r_i = v_i D_i / (D_i + λ / ‖r‖), ‖r‖ the root of a scalar equation; 0 where ‖D v‖₂ ≤ λ
    ℓ∞: r_i = clip(v_i, −t, t) with Σ_i D_i max(|v_i| − t, 0) = λ; 0 where Σ D_i |v_i| ≤ λ

Parikh & Boyd 2014, §6; the metric enters by coordinates. D is a positive tensor of v's shape.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import NotAvailable
from saddlepoint.geometry import L1, L2, Linf
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.geometry.knapsack import clipped_sum_root

_ROOT = 40  # halvings of the bracket of ‖r‖; each is one pass


def prox(
    norm: PerturbationSet, v: Float[Tensor, "b ..."], metric: Float[Tensor, "b ..."], weight: Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """The proximal point of `weight` times the set's norm, per row."""
    lam = per_row(weight, v)
    if isinstance(norm, L1):
        return v.sign() * (v.abs() - lam / metric).clamp_min(0)
    if isinstance(norm, L2):
        return _euclidean(v, metric, lam)
    if isinstance(norm, Linf):
        return _largest(v, metric, weight)
    raise NotAvailable(f"{type(norm).__name__} has no proximal operator here.", "Linf, L2 and L1 have.")


def _euclidean(v: Tensor, metric: Tensor, lam: Tensor) -> Tensor:
    """Bisect on n = ‖r‖: n ↦ ‖v D n / (D n + λ)‖ − n has one positive root where ‖D v‖ > λ."""
    flat, d, lam = v.flatten(1), metric.flatten(1), lam.flatten(1)
    low, high = torch.zeros_like(lam), torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    for _ in range(_ROOT):
        n = (low + high) / 2
        value = torch.linalg.vector_norm(flat * d * n / (d * n + lam), dim=1, keepdim=True)
        low, high = torch.where(value > n, n, low), torch.where(value > n, high, n)
    moved = torch.linalg.vector_norm(flat * d, dim=1, keepdim=True) > lam
    r = flat * d * high / (d * high + lam)
    return torch.where(moved, r, 0).reshape(v.shape)


def _largest(v: Tensor, metric: Tensor, weight: Tensor) -> Tensor:
    """t by the clipped sum Σ D_i clip(|v_i| − t, 0, ∞) = λ."""
    a, d = v.flatten(1).abs().to(torch.float64), metric.flatten(1).to(torch.float64)
    one, free = torch.ones_like(a), torch.full_like(a, torch.inf)
    t, _ = clipped_sum_root(a, one, torch.zeros_like(a), free, d, weight.to(torch.float64))
    level = (-t).clamp_min(0).to(v.dtype)
    level = torch.where((a * d).sum(1) <= weight, 0, level)
    return torch.maximum(torch.minimum(v, per_row(level, v)), -per_row(level, v))
