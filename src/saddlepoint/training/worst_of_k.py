"""Worst-of-k training: the inner maximum over k random points of the set, or over a grid of its parameters.

    min over θ  E  max over x' in {x, x_1, …, x_k}  −log softmax(f_θ(x'))_y        x_i ~ S(x)     Engstrom et al., 2019

For rotation + translation, where gradients by the parameters mislead (§4 of the paper) and a few random tries find more
than ascent does; it needs no gradient and so serves for any set that can be sampled. With `grid` the candidates
are the set's own grid of (angles, shifts) in place of random draws, and the maximum over it is exact.
Cost of a step: k + 2 forwards, 1 backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import PerturbationSet, RotationTranslation
from saddlepoint.training.adversarial import cross_entropy, shrunk
from saddlepoint.training.checks import check_count
from saddlepoint.training.state import mode


@dataclass(frozen=True)
class WorstOfK:
    """Cross-entropy at the worst of k random points and x itself."""

    set: PerturbationSet
    k: int = 10
    grid: tuple[int, int] | None = None
    inner: Literal["eval", "train"] = "eval"

    def __post_init__(self) -> None:
        check_count("k", self.k)
        if self.grid is not None and not isinstance(self.set, RotationTranslation):
            raise InputError(f"{type(self.set).__name__} has no grid of parameters.", "Leave grid out: k random draws.")

    def at(self, fraction: Fraction) -> WorstOfK:
        """With the set at `fraction` of its size."""
        return replace(self, set=shrunk(self.set, fraction))

    def points(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, "b *shape"]:
        """The candidate of the highest loss per row."""
        with mode(net, self.inner == "train"), torch.no_grad():
            best, highest = x, cross_entropy(net(x), y)
            for candidate in self._candidates(x, draws):
                values = cross_entropy(net(candidate), y)
                higher = values > highest  # false for NaN
                highest = torch.where(higher, values, highest)
                best = torch.where(per_row(higher, x), candidate, best)
        return best

    def _candidates(self, x: Tensor, draws: Draws) -> Iterator[Tensor]:
        if isinstance(self.set, RotationTranslation) and self.grid is not None:
            for params in self.set.params_grid(*self.grid).to(x):
                yield self.set.render(x, params.expand(len(x), -1))
        else:
            for number in range(self.k):
                yield self.set.render(x, self.set.sample(x, draws.fork(number)))

    def loss(
        self,
        net: nn.Module,
        x: Float[Tensor, "b *shape"],
        points: Float[Tensor, "b *shape"],
        y: Int64[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy at given points."""
        del x
        return functional.cross_entropy(net(points), y)

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy at the worst points."""
        return self.loss(net, x, self.points(net, x, y, draws), y)
