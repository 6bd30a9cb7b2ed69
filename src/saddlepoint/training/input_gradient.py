"""Input-gradient regularisation: small slopes of the loss.

    min over θ  E  ℓ(x) + λ ‖∇_x ℓ(x)‖²,      ℓ = −log softmax(f_θ(x))_y            Ross & Doshi-Velez, AAAI 2018

To first order the worst loss in an ℓ2 ball is ℓ(x) + ε ‖∇_x ℓ‖: the penalty buys robustness at small ε, without a
search. The price is a second derivative, and nothing is promised where the loss is curved (CURE looks there).
Cost of a step: 1 forward, 1 backward, and 1 backward through both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from saddlepoint.core.rng import Draws
from saddlepoint.training.adversarial import cross_entropy
from saddlepoint.training.checks import check


def loss_and_slope(
    net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"]
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b *shape"]]:
    """ℓ and ∇_x ℓ per row, both differentiable by the weights."""
    points = x.detach().requires_grad_()
    losses = cross_entropy(net(points), y)
    (slopes,) = torch.autograd.grad(losses.sum(), points, create_graph=True)
    return losses, slopes


@dataclass(frozen=True)
class GradientPenalty:
    """Cross-entropy and λ times the squared ℓ2 norm of its input gradient."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        check("weight", self.weight)

    def at(self, fraction: Fraction) -> GradientPenalty:
        """With λ at `fraction` of its value."""
        return replace(self, weight=self.weight * float(fraction))

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean of loss and penalty."""
        del draws
        losses, slopes = loss_and_slope(net, x, y)
        return (losses + self.weight * slopes.flatten(1).square().sum(1)).mean()
