"""PGD adversarial training.

    min over θ  E  max over x' in S(x)  −log softmax(f_θ(x'))_y            Madry et al., ICLR 2018, eq. 2.1

Danskin: where the inner maximiser is unique, the gradient of the max by θ is the gradient at that maximiser.
So the inner problem is ascended with θ held fixed, and the outer step differentiates the loss at the point found.
The ascent step is taken in the set's own geometry, without knowing which set it is:

    z ← project(z + η (lmo_{S(z)}(g) − z))        (ℓ∞: η ε sign g;  ℓ2: η ε g/‖g‖;  parameters: η · lmo(g))

The highest point visited is returned, x itself included: the inner value is never below the clean loss, and an
ascent that fails (masked gradients, label leaking) shows as standard training, not as easy robustness.
Cost of a step of training: steps + 3 forwards, steps + 1 backwards.
"""

from __future__ import annotations

from collections.abc import Callable
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
from saddlepoint.training.checks import check
from saddlepoint.training.state import mode

_TRAVEL = 2.5  # sizes of the set that all steps together could cross (Madry et al.: 2.5 ε / steps)
Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(z: Float[Tensor, "b k"], y: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
    """−log softmax(z)_y per row."""
    return functional.cross_entropy(z, y, reduction="none")


@dataclass(frozen=True)
class Search:
    """The inner maximisation: which set, how many ascent steps, which loss (per row) is to be made large."""

    set: PerturbationSet
    steps: int = 7
    loss: Loss = cross_entropy

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"{self.steps} ascent steps search nothing.", "Give steps of at least 1.")


def worst_points(
    net: Callable[[Tensor], Tensor],
    search: Search,
    x: Float[Tensor, "b *shape"],
    y: Int64[Tensor, " b"],
    draws: Draws,
    start: Tensor | None = None,
) -> Float[Tensor, "b *shape"]:
    """The highest-loss points that projected ascent visits, x itself included; from a random start if none is given.

    Only input gradients are asked for; the flags of `net` are the caller's business. steps + 2 forwards.
    """
    with torch.no_grad():
        best, highest = x.clone(), search.loss(net(x), y)
        z = search.set.sample(x, draws) if start is None else start
    for step in range(search.steps + 1):
        last = step == search.steps
        with torch.set_grad_enabled(not last):
            z = z.detach().requires_grad_(not last)
            points = search.set.render(x, z)
            values = search.loss(net(points), y)
        with torch.no_grad():
            higher = values > highest  # false for NaN
            highest = torch.where(higher, values, highest)
            best = torch.where(per_row(higher, x), points, best)
        if not last:
            (gradient,) = torch.autograd.grad(values.sum(), z)
            z = ascend(search, x, z.detach(), gradient)
    return best


def ascend(search: Search, x: Tensor, z: Tensor, gradient: Tensor) -> Tensor:
    """One step of length η sizes along the set's steepest direction, back onto S(x)."""
    ball = search.set
    # parameters are centred at 0, so their lmo is a direction already; a point's lmo is taken in the set around it
    direction = ball.lmo(x, gradient) if ball.parametric else ball.lmo(z, gradient) - z
    return ball.project(x, z + _TRAVEL / search.steps * direction)


def shrunk(ball: PerturbationSet, fraction: Fraction) -> PerturbationSet:
    """The set at `fraction` of its size."""
    if fraction == 1:
        return ball
    return ball.resized(ball.size * float(fraction) if isinstance(ball.size, Tensor) else ball.size * fraction)


@dataclass(frozen=True)
class Adversarial:
    """Cross-entropy at the worst points found.

    `inner` is the mode in which the ascent sees the network. "eval" is deterministic and moves no running statistics;
    "train" ascends on the batch's own statistics, and each inner forward then counts in the running ones too.
    """

    set: PerturbationSet
    steps: int = 7
    inner: Literal["eval", "train"] = "eval"

    def __post_init__(self) -> None:
        check("steps", self.steps, 1)

    def at(self, fraction: Fraction) -> Self:
        """With the set at `fraction` of its size."""
        return replace(self, set=shrunk(self.set, fraction))

    def points(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, "b *shape"]:
        """Where the loss is taken; no gradient flows through the search."""
        with mode(net, self.inner == "train"):
            return worst_points(net, Search(self.set, self.steps), x, y, draws)

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
