"""Objectives that look for bad points first and take a loss there afterwards.

    loss(f_θ; x, x'),      x' = points(f_θ; x, y)       (θ held fixed in the search)

Kept apart so that a method that moves the weights (AWP) can go on from the points found instead of searching again.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor, nn

from saddlepoint.core.rng import Draws


@runtime_checkable
class Attacked(Protocol):
    """An objective in two parts: `__call__` is `loss` at `points`."""

    def at(self, fraction: Fraction) -> Attacked:
        """The objective early in training."""
        ...

    def points(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, "n *shape"]:
        """The points found, as constants: one a row, or several for every row."""
        ...

    def loss(
        self,
        net: nn.Module,
        x: Float[Tensor, "b *shape"],
        points: Float[Tensor, "n *shape"],
        y: Int64[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """Mean loss of the batch, differentiable by the weights."""
        ...

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """`loss` at `points`."""
        ...
