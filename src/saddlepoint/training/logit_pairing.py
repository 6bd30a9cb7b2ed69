"""Adversarial logit pairing (ALP). A negative result that is kept to be studied, not a defence to rely on.

    min over θ  E  ½ CE(f_θ(x), y) + ½ CE(f_θ(x'), y) + λ ‖f_θ(x) − f_θ(x')‖²          Kannan et al., 2018, §3

x' is PGD's point. Warning: the pairing term is also small where the loss around x is bumpy, so that a weak search finds
nothing: it masks gradients. Engstrom, Ilyas, Athalye ("Evaluating and Understanding the Robustness of Adversarial Logit
Pairing", 2018) take the published ImageNet model from 27.9 % to 0.6 % with more PGD steps. Believe no number about an
ALP model that does not come from a strong plan with restarts and gradient-free stages.
Cost of a step: steps + 4 forwards, steps + 2 backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.training.adversarial import Adversarial
from saddlepoint.training.checks import check


@dataclass(frozen=True)
class ALP(Adversarial):
    """Mixed cross-entropy and λ times the squared distance of the logits. λ = 0 is the mixed-batch PGD of the paper."""

    warning: ClassVar[str] = (
        "ALP masks gradients: few-step attacks overstate its robustness (Engstrom et al. 2018). "
        "Use it for study, and judge it by a strong plan only."
    )
    weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check("weight", self.weight)

    def loss(
        self,
        net: nn.Module,
        x: Float[Tensor, "b *shape"],
        points: Float[Tensor, "b *shape"],
        y: Int64[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """Mean of the mixed loss and the pairing term."""
        clean, moved = net(x), net(points)
        mixed = (functional.cross_entropy(clean, y) + functional.cross_entropy(moved, y)) / 2
        return mixed + self.weight * (clean - moved).square().sum(1).mean()
