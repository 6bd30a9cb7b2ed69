"""Gaussian augmentation: the base classifier of randomised smoothing.

    min over θ  E  E over η ~ N(0, σ² I)  −log softmax(f_θ(x + η))_y        Cohen, Rosenfeld, Kolter, ICML 2019, §3.3

The smoothed classifier g(x) = argmax_c P(f(x + η) = c) is the one that gets certificates, so f must be right under the
noise it will be smoothed with. σ is in raw input units and does not warm up: another σ would be another g. Noisy
points are not clipped, for the theorem is about unclipped noise.
Cost of a step: 1 forward, 1 backward.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.core.rng import Draws
from saddlepoint.training.checks import check_above


@dataclass(frozen=True)
class GaussianAugmentation:
    """Cross-entropy at x + η, one draw per sample."""

    sigma: float = 0.25

    def __post_init__(self) -> None:
        check_above("sigma", self.sigma)

    def at(self, fraction: Fraction) -> GaussianAugmentation:
        """Itself: the noise is part of the classifier, not of the adversary."""
        del fraction
        return self

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy under noise."""
        return functional.cross_entropy(net(x + self.sigma * draws.normal(x.shape[1:], dtype=x.dtype)), y)
