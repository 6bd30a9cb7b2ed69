"""TRADES: the clean loss, and how far predictions can be moved within the set.

    min over θ  E  CE(f_θ(x), y) + β max over x' in S(x)  KL(p_θ(x) ‖ p_θ(x'))        Zhang et al., ICML 2019, eq. 5

The clean error and the distance to the boundary are bounded apart (eq. 3), and β trades them. Labels play no part in
the search. KL has its minimum, 0, at x' = x and a gradient of 0 there: an ascent from x itself would never leave, so it
starts a small Gaussian step away (10⁻³, as the authors do). Both distributions are differentiated by θ.
Cost of a step: steps + 5 forwards, steps + 2 backwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.core.rng import Draws
from saddlepoint.geometry import PerturbationSet
from saddlepoint.training.adversarial import Adversarial, Search, worst_points
from saddlepoint.training.checks import check
from saddlepoint.training.state import mode

_STEP = 1e-3  # of the Gaussian start


def divergence(clean: Float[Tensor, "b k"], moved: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """KL(softmax(clean) ‖ softmax(moved)) per row, from logits."""
    p, q = functional.log_softmax(clean, 1), functional.log_softmax(moved, 1)
    return functional.kl_div(q, p, reduction="none", log_target=True).sum(1)


def near(ball: PerturbationSet, x: Float[Tensor, "b *shape"], draws: Draws) -> Tensor:
    """x, or the unmoved parameters, plus a small Gaussian step, back in the set."""
    unmoved = torch.zeros_like(ball.sample(x, draws)) if ball.parametric else x
    return ball.project(x, unmoved + _STEP * draws.normal(unmoved.shape[1:], dtype=x.dtype))


@dataclass(frozen=True)
class TRADES(Adversarial):
    """Cross-entropy on x and β times the divergence at the points found. β = 0 is standard training."""

    steps: int = 10
    beta: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check("beta", self.beta)

    def points(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, "b *shape"]:
        """Where the predictions are farthest from those at x."""
        with mode(net, self.inner == "train"):
            with torch.no_grad():
                clean = net(x)
            search = Search(self.set, self.steps, lambda z, _: divergence(clean, z))
            return worst_points(net, search, x, y, draws, near(self.set, x, draws))

    def loss(
        self,
        net: nn.Module,
        x: Float[Tensor, "b *shape"],
        points: Float[Tensor, "b *shape"],
        y: Int64[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """Mean of cross-entropy + β KL."""
        clean = net(x)
        return functional.cross_entropy(clean, y) + self.beta * divergence(clean, net(points)).mean()
