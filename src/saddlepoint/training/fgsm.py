"""Single-step adversarial training: FGSM from a random start ("fast" adversarial training).

    z = a random point of S(x),   x' = project(z + α (lmo(∇ℓ(z)) − z))        Wong, Rice, Kolter, ICLR 2020, Alg. 3

ℓ∞: x' = clip(z + α ε sign ∇ℓ(z)), with α = 1.25. One gradient instead of seven. A network can learn to be robust to
this one step only (catastrophic overfitting); the loop's guard compares with a search of many steps and rolls back.
x' is taken only where its loss is above the loss at x: the inner value stays a maximum over a set that holds δ = 0.
Cost of a step: 4 forwards, 2 backwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from saddlepoint.training.adversarial import Adversarial, Search
from saddlepoint.training.checks import check_above


@dataclass(frozen=True)
class FastAdversarial(Adversarial):
    """Cross-entropy after one step of α sizes from a random start. `random=False`: from x, the plain FGSM."""

    steps: int = 1
    alpha: float = 1.25
    random: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above("alpha", self.alpha)

    def search(self) -> Search:
        """One step of length α."""
        return Search(self.set, self.steps, travel=self.alpha * self.steps, random=self.random, low=True)
