"""Random augmentation: cross-entropy at one random point of the set.

    min over θ  E  E over x' ~ S(x)  −log softmax(f_θ(x'))_y

The average case in the place of the worst one: noise in a ball, random rotations and translations. What is learned
holds on average over the set and says little about its worst point (Engstrom et al., ICML 2019, §5): the baseline that
worst-of-k training is compared with.
Cost of a step: 1 forward, 1 backward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.core.rng import Draws
from saddlepoint.geometry import PerturbationSet
from saddlepoint.training.adversarial import shrunk


@dataclass(frozen=True)
class RandomAugmentation:
    """Cross-entropy at a point that the set's own `sample` draws."""

    set: PerturbationSet

    def at(self, fraction: Fraction) -> RandomAugmentation:
        """With the set at `fraction` of its size."""
        return replace(self, set=shrunk(self.set, fraction))

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy at the random points."""
        with torch.no_grad():
            points = self.set.render(x, self.set.sample(x, draws))
        return functional.cross_entropy(net(points), y)
