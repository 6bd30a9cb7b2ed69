"""Margins of a 1-Lipschitz network, trained to be as wide as a certified ℓ2 radius asks.

    min over θ  E  −log softmax(τ (f_θ(x) + √2 ε (1 − e_y)))_y / τ,      f_θ 1-Lipschitz    Tsuzuku et al., 2018, §4

e_y − e_j has length √2, so a margin above √2 ε holds everywhere within ε of x: the other logits are lifted by what an
adversary could gain, and the loss (times τ) is an upper bound of the worst cross-entropy in the ball. A 1-Lipschitz
network cannot grow its logits, so the temperature τ says how sharply the loss sees them: a larger one cares more about
the samples near the boundary (accuracy), a smaller one about wide margins (radius).
The network's layers must be 1-Lipschitz by construction (`--arch lipschitz-s`). Evaluation does not rely on that: the
bound `lipschitz` computes the constants of the trained weights, rounded up.
Cost of a step: 1 forward, 1 backward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.core.errors import InputError, UnsupportedModel
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import L2, PerturbationSet
from saddlepoint.training.adversarial import shrunk
from saddlepoint.training.checks import check_above


@dataclass(frozen=True)
class LipschitzMargin:
    """Cross-entropy of logits that are worse by what the ball of radius ε can do to them."""

    set: PerturbationSet
    temperature: float = 10.0

    def __post_init__(self) -> None:
        check_above("temperature", self.temperature)
        if not isinstance(self.set, L2):
            raise InputError(
                f"margins of a network that is 1-Lipschitz in l2 certify no {self.set.kind} set.", "Give l2:0.5, say."
            )

    def at(self, fraction: Fraction) -> LipschitzMargin:
        """With the set at `fraction` of its size."""
        return replace(self, set=shrunk(self.set, fraction))

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean loss at the widened margin. Raises UnsupportedModel for layers that may stretch."""
        del draws
        stretch = stretching(net)
        z = net(x)
        others = 1 - functional.one_hot(y, z.shape[1]).to(z.dtype)
        size = self.set.size
        lift = stretch * (float(size) if isinstance(size, Fraction) else size.to(z)[:, None])
        worst = z + math.sqrt(2) * lift * others
        return functional.cross_entropy(self.temperature * worst, y) / self.temperature


def stretching(net: nn.Module) -> float:
    """The Lipschitz constant of what may stretch: the normalisation in front of the network; 1.0 without one.

    Raises UnsupportedModel, with its name, for a module that owns weights and does not say `lipschitz = 1.0`, and for
    one that owns other tensors and does not say its constant.
    """
    constant = 1.0
    for name, module in net.named_modules():
        trained = next(module.parameters(recurse=False), None) is not None
        fixed = next(module.buffers(recurse=False), None) is not None
        said = getattr(module, "lipschitz", None)
        if isinstance(said, float):
            constant *= said
        if (trained and said != 1.0) or (fixed and said is None):
            raise UnsupportedModel(
                f"{name or 'the network'} ({type(module).__name__}) may stretch: margins certify nothing.",
                "Build from OrthogonalLinear, OrthogonalConv2d and GroupSort (--arch lipschitz-s); a layer of your own "
                "that is 1-Lipschitz says so by the class attribute lipschitz = 1.0.",
            )
    return constant
