"""Objectives whose ascent rides on the outer step: one backward pass yields the gradients by θ and by the input.

The loop shows a batch m times. It asks for the loss at z, differentiates by the weights and by z at once, steps the
weights, moves z, and carries z − x over to the next showing and to the next batch.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor, nn


@runtime_checkable
class Replays(Protocol):
    """What the loop asks of such an objective, beside `at`."""

    replays: int

    def at(self, fraction: Fraction) -> Replays:
        """The objective early in training."""
        ...

    def begin(self, x: Float[Tensor, "b *shape"], carried: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
        """Where the batch starts, given z − x of the batch before."""
        ...

    def loss_at(self, net: nn.Module, z: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"]) -> Float[Tensor, ""]:
        """Mean loss at z, differentiable by the weights and by z."""
        ...

    def move(
        self, x: Float[Tensor, "b *shape"], z: Float[Tensor, "b *shape"], gradient: Float[Tensor, "b *shape"]
    ) -> Float[Tensor, "b *shape"]:
        """The next z."""
        ...
