"""SmoothAdv: adversarial training of the smoothed classifier.

    x' = argmax over S(x)  −log (1/m) Σ_i softmax(f_θ(x' + η_i))_y,        η_i ~ N(0, σ² I)
    min over θ  E  (1/m) Σ_i −log softmax(f_θ(x' + η_i))_y                       Salman et al., NeurIPS 2019, §2.2

The points that fool f are not those that fool g, so the search goes against the mean probabilities over m draws; the
same draws serve the search and the outer step. The published sets are ℓ2 balls. S warms up, σ does not.
Cost of a step: m (steps + 3) forwards, m (steps + 1) backwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.core.rng import Draws
from saddlepoint.training.adversarial import Adversarial, Search, worst_points
from saddlepoint.training.checks import check_above, check_count
from saddlepoint.training.state import mode


@dataclass(frozen=True)
class SmoothAdv(Adversarial):
    """Cross-entropy under noise at points that are the worst for the smoothed classifier."""

    steps: int = 4
    sigma: float = 0.25
    samples: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above("sigma", self.sigma)
        check_count("samples", self.samples)

    def points(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, "bm *shape"]:
        """The worst points of the smoothed classifier, each under its m draws of noise."""
        noise = self.sigma * draws.fork(0).normal((self.samples, *x.shape[1:]), dtype=x.dtype)

        def smoothed(points: Tensor) -> Tensor:
            """log of the mean probabilities: cross-entropy on it is −log of the mean probability of y."""
            z = net(_noisy(points, noise)).unflatten(0, noise.shape[:2])
            return z.log_softmax(2).logsumexp(1) - math.log(self.samples)

        with mode(net, self.inner == "train"):
            return _noisy(worst_points(smoothed, Search(self.set, self.steps), x, y, draws), noise)

    def loss(
        self,
        net: nn.Module,
        x: Float[Tensor, "b *shape"],
        points: Float[Tensor, "bm *shape"],
        y: Int64[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy over samples and draws."""
        del x
        return functional.cross_entropy(net(points), y.repeat_interleave(self.samples))


def _noisy(x: Float[Tensor, "b *shape"], noise: Float[Tensor, "b m *shape"]) -> Float[Tensor, "bm *shape"]:
    return (x[:, None] + noise).flatten(0, 1)
