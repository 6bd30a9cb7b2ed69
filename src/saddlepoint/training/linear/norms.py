"""Dual norms as rows of a linear programme: s ≥ ‖e‖_q for columns e.

    threat ℓ∞   q = 1    s ≥ Σ u,  u ≥ ±e                 exact
    threat ℓ1   q = ∞    s ≥ ±e                           exact
    threat ℓ2   q = 2    a tower of plane cones            s may lie below ‖e‖₂ by a share of LOSS at most

The plane cone of Ben-Tal & Nemirovski ("On Polyhedral Approximations of the Second-Order Cone", 2001, §2.2):
ξ₀ ≥ |a|, η₀ ≥ |b|, then `LEVELS` rotations by π/2^(j+1) folded onto η ≥ 0, then ξ ≤ s and η ≤ tan(π/2^(LEVELS+1)) ξ.
It holds every (a, b, s) with s ≥ ‖(a, b)‖ and no (a, b, s) with s < cos(π/2^(LEVELS+1)) ‖(a, b)‖. Pairs of pairs make
d dimensions in ⌈log₂ d⌉ storeys. So the programme's optimum is a lower bound whatever the norm. Where a quadratic term
makes the weights unique, tangents s ≥ ⟨e', e⟩ / ‖e'‖₂ at the points found do the same with less.
"""

from __future__ import annotations

import math

import numpy as np

from saddlepoint.core.errors import NotAvailable
from saddlepoint.geometry import PerturbationSet
from saddlepoint.training.linear.programme import Programme, scaled_identity

LEVELS = 12
LOSS = 1 - math.cos(math.pi / 2 ** (LEVELS + 1))  # 7e-8 a storey
_DUAL = {"linf": 1.0, "l2": 2.0, "l1": math.inf}


def dual_order(ball: PerturbationSet) -> float:
    """q with 1/p + 1/q = 1. Raises NotAvailable for what is not a whole ℓ1, ℓ2 or ℓ∞ ball of one size."""
    q = _DUAL.get(ball.kind)
    if q is None or getattr(ball, "box", None) is not None or not math.isfinite(_number(ball)):
        raise NotAvailable(
            f"{type(ball).__name__} {ball.canonical()} is no whole norm ball of one size.",
            "Exact robust linear models take Linf, L2 and L1 without a box: the closed form is the dual norm's.",
        )
    return q


def size_of(ball: PerturbationSet) -> float:
    """ε."""
    return _number(ball)


def _number(ball: PerturbationSet) -> float:
    return float(ball.size) if not hasattr(ball.size, "ndim") or ball.size.numel() == 1 else math.nan  # type: ignore[union-attr]


def norm(e: np.ndarray, q: float) -> np.ndarray:
    """‖e‖_q over the last axis."""
    return np.asarray(np.linalg.norm(e, ord=q, axis=-1))


def epigraph(programme: Programme, e: np.ndarray, q: float) -> np.ndarray:
    """One new column s ≥ ‖e‖_q; e: column numbers (d,)."""
    if q == 2.0:
        return _tower(programme, e)
    s, eye = programme.columns(1, lower=0.0), scaled_identity(len(e))
    if q == 1.0:
        u = programme.columns(len(e), lower=0.0)
        for sign in (1.0, -1.0):
            programme.rows([(u, eye), (e, sign * eye)], lower=0.0)
        programme.rows([(s, np.ones((1, 1))), (u, -np.ones((1, len(e))))], lower=0.0)
    else:
        for sign in (1.0, -1.0):
            programme.rows([(s, np.ones((len(e), 1))), (e, sign * eye)], lower=0.0)
    return s


def tangent(programme: Programme, e: np.ndarray, s: np.ndarray, point: np.ndarray) -> None:
    """The row s ≥ ⟨e', e⟩ / ‖e'‖₂ for e' = point[e]."""
    value = point[e]
    length = float(np.linalg.norm(value))
    if length > 0:
        programme.rows([(s, np.ones((1, 1))), (e, -value[None] / length)], lower=0.0)


def _tower(programme: Programme, e: np.ndarray) -> np.ndarray:
    if len(e) == 1:
        return epigraph(programme, e, 1.0)
    while len(e) > 1:
        pairs = len(e) // 2
        made = _plane(programme, e[:pairs], e[pairs : 2 * pairs])
        e = np.concatenate([made, e[2 * pairs :]])
    return e


def _plane(programme: Programme, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Columns s ≥ ‖(a, b)‖₂, one for every pair."""
    count, eye = len(a), scaled_identity(len(a))

    def at_least_magnitude(parts: list[tuple[np.ndarray, float]]) -> np.ndarray:
        new = programme.columns(count, lower=0.0)
        for sign in (1.0, -1.0):
            programme.rows([(new, eye), *((column, sign * f * eye) for column, f in parts)], lower=0.0)
        return new

    xi, eta = at_least_magnitude([(a, 1.0)]), at_least_magnitude([(b, 1.0)])
    for level in range(1, LEVELS + 1):
        angle = math.pi / 2 ** (level + 1)
        turned = programme.columns(count)
        programme.rows(
            [(turned, eye), (xi, -math.cos(angle) * eye), (eta, -math.sin(angle) * eye)], lower=0.0, upper=0.0
        )
        eta = at_least_magnitude([(xi, -math.sin(angle)), (eta, math.cos(angle))])
        xi = turned
    s = programme.columns(count, lower=0.0)
    programme.rows([(s, eye), (xi, -eye)], lower=0.0)
    programme.rows([(xi, math.tan(math.pi / 2 ** (LEVELS + 1)) * eye), (eta, -eye)], lower=0.0)
    return s
