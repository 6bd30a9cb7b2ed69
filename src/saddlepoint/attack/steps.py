"""Steepest steps and projections: the geometry that step rules share.

    x⁺ = P_S(x + α ε d),    d = argmax of <g, d> over ‖d‖ ≤ 1

    ℓ∞: d = sign g     ℓ2: d = g / ‖g‖₂     ℓ1: d = ±1/k on the k coordinates with the largest |g| that can still move
    boxes and parameter boxes: sign g × half the width     any other set: d = (lmo(g) − x0) / ε

ε is the set's size, per row. For ℓ1 see Tramèr & Boneh 2019 (sparse steps); saturated coordinates are left out
since the box would eat the step (Croce & Hein 2021, §3). The projection is the set's own, onto ball ∩ box around
the original, in one map; where the set is a box it is a clamp to limits computed once.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saddlepoint.attack.rows import Rows
from saddlepoint.core.arithmetic import per_row
from saddlepoint.geometry import L0, L1, L2, Linf
from saddlepoint.geometry.interval import IntervalSet

_SPARSITY = 0.01  # share of the coordinates that one ℓ1 step moves, at least one


def strict_limits(rows: Rows) -> tuple[Tensor, Tensor] | None:
    """The inner box of the set: every float between the limits passes contains(slack=0). None for other sets."""
    if not isinstance(rows.set, IntervalSet) or rows.set.parametric:
        return None
    lower, upper = rows.set.hull(rows.x0, rounding="in")
    return lower.expand_as(rows.x0).contiguous(), upper.expand_as(rows.x0).contiguous()


def project(rows: Rows, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """Nearest point of each row's set."""
    if rows.limits is not None:
        return torch.clamp(x, *rows.limits)
    return rows.set.project(rows.x0, x)


def inside(rows: Rows, x: Float[Tensor, "b ..."]) -> Bool[Tensor, " b"]:
    """Which rows of x lie in their sets, slack 0; a point that is not finite lies nowhere."""
    if rows.limits is not None:
        lower, upper = rows.limits
        between = ((x >= lower) & (x <= upper)).flatten(1).all(1)  # sufficient; NaN is never between
        if bool(between.all()):
            return between
    finite = x.isfinite().flatten(1).all(1)
    return rows.set.contains(rows.x0, torch.where(per_row(finite, x), x, 0)) & finite


def radius(rows: Rows, like: Float[Tensor, "b ..."]) -> float | Tensor:
    """The set's size, ready to multiply rows of `like`."""
    size = rows.set.size
    return float(size) if isinstance(size, Fraction) else per_row(size.to(like.dtype), like)


def ascend(
    rows: Rows, x: Float[Tensor, "b ..."], g: Float[Tensor, "b ..."], alpha: float | Tensor
) -> Float[Tensor, "b ..."]:
    """x + α ε d, not yet projected; α a number, or per row and broadcastable against x."""
    if isinstance(rows.set, Linf):
        size = radius(rows, g)
        if isinstance(size, float) and isinstance(alpha, float):
            return torch.add(x, g.sign(), alpha=alpha * size)  # one pass less in the hottest line of the house
        return torch.addcmul(x, g.sign(), torch.as_tensor(alpha * size))
    return torch.addcmul(x, direction(rows, x, g), torch.as_tensor(alpha, dtype=x.dtype, device=x.device))


def direction(rows: Rows, x: Float[Tensor, "b ..."], g: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """ε d: the steepest step of the set's own norm at x, as long as the set is wide."""
    if isinstance(rows.set, Linf):
        return g.sign() * radius(rows, g)
    if isinstance(rows.set, L2):
        return unit(g) * radius(rows, g)
    if isinstance(rows.set, L1):
        return _sparse(rows, x, g) * radius(rows, g)
    if isinstance(rows.set, IntervalSet) or rows.set.parametric:
        lower, upper = rows.limits or rows.set.hull(rows.x0)
        return g.sign() * ((upper - lower) / 2)
    return rows.set.lmo(rows.x0, g) - rows.x0


def start(rows: Rows, random: bool) -> Float[Tensor, "b ..."]:
    """A point of the set: drawn by the set itself (uniform where it can be), or x0, or the parameters that keep x0."""
    if random:
        return rows.set.sample(rows.x0, rows.random)
    if rows.set.parametric:
        return unmoved(rows)
    return project(rows, rows.x0)


def unmoved(rows: Rows) -> Float[Tensor, "b k"]:
    """The parameters nearest to 0, which leave x0 as it is."""
    lower, upper = rows.set.hull(rows.x0, rounding="in")
    return torch.zeros_like(lower).clamp(lower, upper)


def extreme_start(rows: Rows) -> Float[Tensor, "b ..."]:
    """Auto-PGD's start: at distance ε from x0 in a random direction (ℓ∞, ℓ2), then P_S; others as `start`."""
    shape, x0 = rows.x0.shape[1:], rows.x0
    if isinstance(rows.set, Linf):
        t = rows.random.uniform(shape, dtype=x0.dtype) * 2 - 1
        top = per_row(t.flatten(1).abs().amax(1).clamp_min(torch.finfo(x0.dtype).tiny), t)
        return project(rows, x0 + radius(rows, x0) * (t / top))
    if isinstance(rows.set, L2):
        return project(rows, x0 + radius(rows, x0) * unit(rows.random.normal(shape, dtype=x0.dtype)))
    return start(rows, random=True)


def unit(g: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """g / ‖g‖₂ per row; 0 stays 0. The largest entry is scaled to 1 first, so tiny gradients do not underflow."""
    flat = g.flatten(1)
    flat = flat / flat.abs().amax(1, keepdim=True).clamp_min(torch.finfo(g.dtype).tiny)
    norm = torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp_min(torch.finfo(g.dtype).tiny)
    return (flat / norm).reshape(g.shape)


def dual_norm(rows: Rows, g: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """‖g‖_* = max of <g, d> over ‖d‖ ≤ 1: how fast a function with gradient g grows along the steepest step.

    ℓ∞: Σ|g|   ℓ2: ‖g‖₂   ℓ1, ℓ0: max |g|   other sets: the growth of a linear function over the whole set.
    """
    flat = g.flatten(1)
    if isinstance(rows.set, Linf):
        return flat.abs().sum(1)
    if isinstance(rows.set, L2):
        return torch.linalg.vector_norm(flat, dim=1)
    if isinstance(rows.set, (L1, L0)):
        return flat.abs().amax(1)
    return (g * (rows.set.lmo(rows.x0, g) - rows.x0)).flatten(1).sum(1)


def _sparse(rows: Rows, x: Tensor, g: Tensor) -> Tensor:
    """±1/k on the k largest |g| among the coordinates that the data box lets move in the direction of g."""
    lower, upper = rows.set.hull(rows.x0)  # a coordinate at its limit cannot move further
    free = torch.where(g > 0, x < upper, x > lower)
    weight = torch.where(free, g.abs(), 0).flatten(1)
    k = max(1, int(_SPARSITY * weight.shape[1]))
    top = weight.topk(k, dim=1)
    moved = (top.values > 0).to(g.dtype)
    step = moved / moved.sum(1, keepdim=True).clamp_min(1)
    return torch.zeros_like(weight).scatter_(1, top.indices, step).reshape(g.shape) * g.sign()
