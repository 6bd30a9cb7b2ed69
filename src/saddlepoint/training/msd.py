"""Multi steepest descent (MSD): one search over the union of several sets.

    z_i = project_i(z + η (lmo_i(g) − z)),   z ← the z_i of the highest loss    Maini, Wong, Kolter, ICML 2020, Alg. 1

At every step each set proposes its own steepest step from the current point, and the best proposal is taken, so the
path may change sets. With one set it is PGD. Sets of parameters (rotation) have no common steps with sets of points:
use MaxOfSets for those.
Cost of a step with n sets: steps (n + 1) + 2 forwards, steps + 1 backwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError
from saddlepoint.core.rng import Draws
from saddlepoint.geometry.combine import Union
from saddlepoint.training.adversarial import Search, ascend, cross_entropy
from saddlepoint.training.multi_set import SeveralSets
from saddlepoint.training.one_channel import OneChannel
from saddlepoint.training.state import mode


@dataclass(frozen=True)
class MSD(SeveralSets):
    """Cross-entropy at the worst point that multi steepest descent visits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for ball in self.sets:
            if ball.parametric:
                raise InputError(
                    f"{type(ball).__name__} is searched in parameters, the others in points: MSD cannot mix them.",
                    "Use MaxOfSets (the worst of each set's own search).",
                )

    def points(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, "n *shape"]:
        """One point per row: the highest visited, x and the random start included."""
        with mode(net, self.inner == "train"):
            with torch.no_grad():
                start = Union(self.sets).sample(x, draws)
                best, highest = x, cross_entropy(net(x), y)
            z, values, slope = self._sloped(net, start, y)
            for step in range(self.steps + 1):
                higher = values > highest  # false for NaN
                highest = torch.where(higher, values, highest)
                best = torch.where(per_row(higher, x), z, best)
                if step < self.steps:
                    z, values = self._steepest(net, x, y, z, slope)
                if step + 1 < self.steps:
                    z, values, slope = self._sloped(net, z, y)
        return best

    def _steepest(self, net: nn.Module, x: Tensor, y: Tensor, z: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """The highest of the sets' own next points, and its loss."""
        chosen, highest = z, torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        with torch.no_grad():
            for ball in self.sets:
                proposed = ascend(Search(ball, self.steps), x, z, slope)
                values = cross_entropy(net(proposed), y)
                higher = values > highest
                chosen = torch.where(per_row(higher, x), proposed, chosen)
                highest = torch.where(higher, values, highest)
        return chosen, highest

    @staticmethod
    def _sloped(net: nn.Module, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z, the loss there and its gradient by z, as constants."""
        z = z.detach().requires_grad_()
        with OneChannel():
            values = cross_entropy(net(z), y)
        (slope,) = torch.autograd.grad(values.sum(), z)
        return z.detach(), values.detach(), slope
