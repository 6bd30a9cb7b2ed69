"""What an epoch minimises: a scalar of (network, batch), and the plain cross-entropy.

standard:   E −log softmax(f_θ(x))_y
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.core.rng import Draws


@runtime_checkable
class Objective(Protocol):
    """A frozen dataclass. The loop calls it with the network in train mode and differentiates by the weights.

    An objective of bounds says so by the class attribute `exact = True`: rounded to bfloat16 they would bound nothing.
    `draws` are the batch's own random numbers, keyed by (seed, sample id, epoch): the loss must take no others.
    """

    def at(self, fraction: Fraction) -> Objective:
        """The objective early in training, with its set at `fraction` of its size (0 < fraction ≤ 1)."""
        ...

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean loss of the batch. Leaves the weights, their gradients and the flags as found."""
        ...


@dataclass(frozen=True)
class Standard:
    """Cross-entropy on the data as they are: one forward, one backward a step."""

    def at(self, fraction: Fraction) -> Standard:
        """Itself: there is no set to shrink."""
        del fraction
        return self

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy."""
        del draws
        return functional.cross_entropy(net(x), y)
