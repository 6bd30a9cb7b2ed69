"""Free adversarial training: every backward pass moves the weights and the perturbation.

    m times a batch:   (g_θ, g_z) = ∇ ℓ(f_θ(z), y),   θ ← θ − rate · g_θ,   z ← project(z + lmo_S(g_z) − z)
    Shafahi et al., NeurIPS 2019, Alg. 1                                  (ℓ∞: δ ← clip(δ + ε sign g))

δ is carried over from batch to batch. An epoch here costs m epochs of standard training, so that E / m epochs compare
with E of another method (the paper's convention). The first showing of the first batch is at δ = 0; later there is no
promise that the loss at z is above the loss at x: the ascent is one step behind the weights.
Cost of a step: 1 forward, 1 backward (by weights and input), m times a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.core.errors import InputError
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import PerturbationSet
from saddlepoint.training.adversarial import Search, ascend, shrunk
from saddlepoint.training.checks import check_count


@dataclass(frozen=True)
class Free:
    """Cross-entropy at points that move with every step. `replays` is the paper's m."""

    set: PerturbationSet
    replays: int = 4

    def __post_init__(self) -> None:
        check_count("replays", self.replays)
        if self.set.parametric:
            raise InputError(f"free moves points; {self.set.kind} moves parameters.", "Use pgd or worst-of-k.")

    def at(self, fraction: Fraction) -> Free:
        """With the set at `fraction` of its size."""
        return replace(self, set=shrunk(self.set, fraction))

    def begin(self, x: Float[Tensor, "b *shape"], carried: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
        """x + the perturbation of the batch before, back in the set."""
        return self.set.project(x, x + carried)

    def loss_at(self, net: nn.Module, z: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"]) -> Float[Tensor, ""]:
        """Mean cross-entropy at z."""
        return functional.cross_entropy(net(z), y)

    def move(
        self, x: Float[Tensor, "b *shape"], z: Float[Tensor, "b *shape"], gradient: Float[Tensor, "b *shape"]
    ) -> Float[Tensor, "b *shape"]:
        """One step of a whole size."""
        with torch.no_grad():
            return ascend(Search(self.set, 1, travel=1.0), x, z, gradient)

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """The loss at x: what the first showing of the first batch sees."""
        del draws
        return self.loss_at(net, x, y)
