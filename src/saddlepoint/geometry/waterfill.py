"""Water filling: the largest level λ with  Σᵢ min(λ aᵢ, cᵢ)² ≤ ε²,   a, c ≥ 0.

The KKT points of ℓ2 ∩ box: z − x₀ = clip(λ u, lo, hi) projects u (λ ≤ 1) and maximises <u, z> (λ unbounded).
In s = λ² the sum is concave, increasing and piecewise linear, so Newton from the left is monotone: every step solves
the line through the coordinates that are still free, saturates a few more, and the last step is exact.
Dinkelbach's argument makes it superlinear. Cost: usually 3–8 passes; no sorting, no loop over rows.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def water_fill(
    a: Float[Tensor, "*rows n"], c: Float[Tensor, "*rows n"], radius: Float[Tensor, "*#rows 1"]
) -> tuple[Float[Tensor, "*rows n"], Float[Tensor, "*rows 1"]]:
    """(m, λ): mᵢ = min(λ aᵢ, cᵢ) with ‖m‖₂ = radius, or λ = inf and mᵢ = cᵢ (where aᵢ > 0) if that fits. float64.

    c may be inf. Coordinates with a = 0 stay 0.
    """
    scale, unit = _positive(a.amax(-1, keepdim=True)), _positive(radius)
    slope, cap = a / scale, c / unit  # now the radius is 1 (or 0, mended at the end) and the largest slope 1
    moving = slope > 0
    full = torch.where(moving, cap, torch.zeros_like(cap))
    fits = full.square().sum(-1, keepdim=True) <= 1
    saturated = torch.zeros_like(moving)
    level = torch.zeros_like(unit.expand_as(scale))
    while True:
        free = torch.where(saturated, torch.zeros_like(slope), slope).square().sum(-1, keepdim=True)
        used = torch.where(saturated, cap, torch.zeros_like(cap)).square().sum(-1, keepdim=True)
        # concavity: this level never exceeds the root, so what saturates now is saturated at the root
        level = torch.where(free > 0, ((1 - used).clamp(min=0) / free).sqrt(), torch.full_like(free, torch.inf))
        more = (moving & (level * slope >= cap) & ~fits) | saturated
        if torch.equal(more, saturated):
            break
        saturated = more
    level = torch.where(fits, torch.full_like(level, torch.inf), level)
    bent = torch.minimum(torch.where(moving, level * slope, torch.zeros_like(slope)), full)
    return bent * radius, level * radius / scale


def _positive(v: Tensor) -> Tensor:
    return torch.where(v > 0, v, torch.ones_like(v))
