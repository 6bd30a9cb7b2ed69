"""N-FGSM: one step from noise that is wider than the set, and no clipping afterwards.

    z = x + η,  η ~ U over k S(x) − x,   x' = z + α (lmo_S(∇ℓ(z)) − z)     de Jorge et al., NeurIPS 2022, Alg. 1, eq. 4

k = 2 and α = 1 (their §4). The larger noise and the missing projection keep single-step training from catastrophic
overfitting at sizes where a random start inside the set does not. x' may lie outside S(x) (in ℓ∞ by up to k ε): the
inner value is no lower bound of the maximum over S(x), and the trained network is judged by what the set allows.
Points stay inside the data's box. Cost of a step: 2 forwards, 2 backwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from saddlepoint.core.arithmetic import exact
from saddlepoint.core.errors import InputError
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import Linf, sizes
from saddlepoint.geometry.sizes import Size
from saddlepoint.training.adversarial import Adversarial, cross_entropy, shrunk
from saddlepoint.training.checks import check_above
from saddlepoint.training.one_channel import OneChannel
from saddlepoint.training.precision import search_precision
from saddlepoint.training.state import mode


@dataclass(frozen=True)
class NFGSM(Adversarial):
    """Cross-entropy after one unprojected step of α sizes from noise of `noise` sizes."""

    steps: int = 1
    alpha: float = 1.0
    noise: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above("alpha", self.alpha)
        check_above("noise", self.noise)
        if self.steps != 1:
            raise InputError(f"n-fgsm takes one step, not {self.steps}.", "Use pgd for several.")
        if self.set.parametric:
            raise InputError(f"n-fgsm adds noise to points; {self.set.kind} moves parameters.", "Use pgd.")
        if not isinstance(self.set, Linf):
            shrunk(self.set, exact(self.noise))  # said now, not in the first step

    def points(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, "b *shape"]:
        """One step from noise. One forward, one backward."""
        with torch.no_grad():
            z = self._noisy(x, draws)
        z.requires_grad_()
        with mode(net, self.inner == "train"), search_precision(x):
            with OneChannel():
                loss = cross_entropy(net(z), y).sum()
            (gradient,) = torch.autograd.grad(loss, z)
        with torch.no_grad():
            return self._stepped(x, z.detach(), gradient)

    def _noisy(self, x: Tensor, draws: Draws) -> Tensor:
        ball = self.set
        if not isinstance(ball, Linf):
            return ball.resized(_times(ball.size, self.noise)).sample(x, draws)
        ball.check_center(x)
        width = self.noise * sizes.below(ball.size, x).to(x.dtype)
        u = draws.uniform(x.shape[1:], dtype=x.dtype).to(x.device)
        return _boxed(ball, x, x + width * (2 * u - 1))

    def _stepped(self, x: Tensor, z: Tensor, gradient: Tensor) -> Tensor:
        ball = self.set
        if not isinstance(ball, Linf):
            return ball.resized(_times(ball.size, self.alpha)).lmo(z, gradient)  # the set around z, in the data's box
        return _boxed(ball, x, z + self.alpha * sizes.below(ball.size, x).to(x.dtype) * gradient.sign())


def _boxed(ball: Linf, x: Tensor, z: Tensor) -> Tensor:
    return z if ball.box is None else torch.clamp(z, *ball.box.limits(x, "in"))


def _times(size: Size, factor: float) -> Size:
    return size * factor if isinstance(size, Tensor) else size * exact(factor)
