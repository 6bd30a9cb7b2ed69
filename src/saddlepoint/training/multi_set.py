"""Adversarial training against several sets: the worst of them, or their average.

    max:      min over θ  E  max_i  max over S_i(x)  ℓ
    average:  min over θ  E  mean_i  max over S_i(x)  ℓ

Tramèr & Boneh, NeurIPS 2019, §2; Maini, Wong, Kolter, ICML 2020, §4 (who take a third way: msd.py). A model that is
robust in one set need not be in another; "max" trains on the union, "average" on every set for every sample.
Cost of a step with n sets: n times that of PGD's search; one (max) or n (average) forwards and backwards outside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import PerturbationSet
from saddlepoint.training.adversarial import Search, cross_entropy, shrunk, worst_points
from saddlepoint.training.checks import check_count
from saddlepoint.training.state import mode


@dataclass(frozen=True)
class SeveralSets(ABC):
    """What objectives over several sets share: the sets shrink together, the loss is cross-entropy at the points."""

    sets: tuple[PerturbationSet, ...]
    steps: int = 7
    inner: Literal["eval", "train"] = "eval"

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        if not self.sets:
            raise InputError("No set to train against.", "Give at least one.")

    def at(self, fraction: Fraction) -> Self:
        """With every set at `fraction` of its size."""
        return replace(self, sets=tuple(shrunk(ball, fraction) for ball in self.sets))

    @abstractmethod
    def points(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, "n *shape"]:
        """Where the loss is taken: one point per row, or one per row and set, set after set."""

    def loss(
        self,
        net: nn.Module,
        x: Float[Tensor, "b *shape"],
        points: Float[Tensor, "n *shape"],
        y: Int64[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy at given points."""
        return functional.cross_entropy(net(points), y.repeat(len(points) // len(x)))

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """`loss` at `points`."""
        return self.loss(net, x, self.points(net, x, y, draws), y)

    def each(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> list[Float[Tensor, "b *shape"]]:
        """The worst points of every set."""
        searches = [Search(ball, self.steps) for ball in self.sets]
        return [worst_points(net, search, x, y, draws.fork(i)) for i, search in enumerate(searches)]


@dataclass(frozen=True)
class MaxOfSets(SeveralSets):
    """Per sample, the worst point over all sets."""

    def points(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, "n *shape"]:
        """One point per row."""
        with mode(net, self.inner == "train"):
            found = self.each(net, x, y, draws)
            with torch.no_grad():
                best, highest = found[0], cross_entropy(net(found[0]), y)
                for points in found[1:]:
                    values = cross_entropy(net(points), y)
                    best = torch.where(per_row(values > highest, x), points, best)
                    highest = torch.maximum(highest, values)
        return best


@dataclass(frozen=True)
class AverageOfSets(SeveralSets):
    """Per sample, the worst point in each set, all with equal weight."""

    def points(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, "n *shape"]:
        """One point per row and set."""
        with mode(net, self.inner == "train"):
            return torch.cat(self.each(net, x, y, draws))
