"""MACER: the certified radius of the smoothed classifier, maximised directly.

    min over θ  E  −log p̂_y + λ σ/2 max(γ − (Φ⁻¹(p_A) − Φ⁻¹(p_B)), 0) · [x is right]        Zhai et al., ICLR 2020, §4

    p̂ = mean_i softmax(f_θ(x + η_i)),  p_A, p_B: the two largest of mean_i softmax(β f_θ(x + η_i)),  η_i ~ N(0, σ² I)

σ/2 (Φ⁻¹(p_A) − Φ⁻¹(p_B)) is the ℓ2 radius of Cohen et al.; the inverse temperature β brings soft probabilities near the
counted ones and keeps a gradient. A hinge stops at γ, where Φ⁻¹ would explode. No attack is run.
Cost of a step: m forwards, m backwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from saddlepoint.core.rng import Draws
from saddlepoint.training.checks import check, check_above, check_count

_EDGE = 1e-6  # probabilities are kept so far from 0 and 1; beyond, Φ⁻¹ has no gradient worth following


def radius(p_a: Float[Tensor, " b"], p_b: Float[Tensor, " b"], sigma: float) -> Float[Tensor, " b"]:
    """σ/2 (Φ⁻¹(p_A) − Φ⁻¹(p_B))."""
    high, low = (torch.special.ndtri(p.clamp(_EDGE, 1 - _EDGE)) for p in (p_a, p_b))
    return sigma / 2 * (high - low)


@dataclass(frozen=True)
class MACER:
    """Cross-entropy of the mean probabilities and a hinge on the radius of samples that are classified right."""

    sigma: float = 0.25
    weight: float = 12.0
    margin: float = 8.0
    sharpness: float = 16.0
    samples: int = 16

    def __post_init__(self) -> None:
        check_above("sigma", self.sigma)
        check("weight", self.weight)
        check_above("margin", self.margin)
        check_above("sharpness", self.sharpness)
        check_count("samples", self.samples)

    def at(self, fraction: Fraction) -> MACER:
        """With λ at `fraction` of its value; the noise is part of the classifier and stays."""
        return replace(self, weight=self.weight * float(fraction))

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean of both terms."""
        noise = self.sigma * draws.normal((self.samples, *x.shape[1:]), dtype=x.dtype)
        z = net((x[:, None] + noise).flatten(0, 1)).unflatten(0, noise.shape[:2]).to(x.dtype)
        log_soft = z.log_softmax(2).logsumexp(1) - math.log(self.samples)
        sharp = (self.sharpness * z).softmax(2).mean(1)
        top, who = sharp.topk(2, dim=1)
        short = self.sigma / 2 * self.margin - radius(top[:, 0], top[:, 1], self.sigma)
        hinge = torch.where(who[:, 0] == y, short.clamp_min(0), 0)
        return (self.weight * hinge - log_soft.gather(1, y[:, None])[:, 0]).mean()
