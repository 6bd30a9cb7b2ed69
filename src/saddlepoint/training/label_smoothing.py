"""Label smoothing: targets that are never certain.

    min over θ  E  −Σ_j t_j log softmax(f_θ(x))_j,      t = (1 − α) e_y + α / k          Szegedy et al., CVPR 2016, §7

It bounds how far logits drift apart, which calibrates and helps a little against small one-step perturbations. It is
no defence: what it gains against weak attacks is largely lost to strong ones.
Cost of a step: 1 forward, 1 backward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.core.rng import Draws
from saddlepoint.training.checks import check


@dataclass(frozen=True)
class LabelSmoothing:
    """Cross-entropy against targets that give the share α to all classes alike."""

    alpha: float = 0.1

    def __post_init__(self) -> None:
        check("alpha", self.alpha, 0, 1)

    def at(self, fraction: Fraction) -> LabelSmoothing:
        """With α at `fraction` of its value."""
        return replace(self, alpha=self.alpha * float(fraction))

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy against the smoothed targets."""
        del draws
        return functional.cross_entropy(net(x), y, label_smoothing=self.alpha)
