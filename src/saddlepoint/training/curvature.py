"""CURE: small curvature of the loss along the direction of an attack.

    min over θ  E  ℓ(x) + λ ‖∇ℓ(x + h z) − ∇ℓ(x)‖²,      z = s/‖s‖,  s = sign ∇ℓ(x)

Adversarial training flattens the loss around the data; this asks for the flatness directly, by a finite difference of
gradients over the length h in place of the Hessian (Moosavi-Dezfooli et al., CVPR 2019, §4). z is a constant.
The size of the gradient itself is left alone. h grows with the schedule, as the authors let it.
Cost of a step: 2 forwards, 2 backwards, and 1 backward through all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.core.rng import Draws
from saddlepoint.training.checks import check, check_above
from saddlepoint.training.input_gradient import loss_and_slope


@dataclass(frozen=True)
class CURE:
    """Cross-entropy and λ times the squared change of its gradient over a step of length h (input units, ℓ2)."""

    weight: float = 4.0
    length: float = 1.5

    def __post_init__(self) -> None:
        check("weight", self.weight)
        check_above("length", self.length)

    def at(self, fraction: Fraction) -> CURE:
        """With h at `fraction` of its length."""
        return replace(self, length=self.length * float(fraction))

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean of loss and penalty."""
        del draws
        losses, here = loss_and_slope(net, x, y)
        with torch.no_grad():
            z = functional.normalize(here.sign().flatten(1)).view_as(x)  # 0 where the gradient is
        _, there = loss_and_slope(net, x + self.length * z, y)
        return (losses + self.weight * (there - here).flatten(1).square().sum(1)).mean()
