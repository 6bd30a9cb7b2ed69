"""PGD adversarial training.

    min over θ  E  max over x' in S(x)  −log softmax(f_θ(x'))_y            Madry et al., ICLR 2018, eq. 2.1

Danskin: where the inner maximiser is unique, the gradient of the max by θ is the gradient at that maximiser.
So the inner problem is ascended with θ held fixed, and the outer step differentiates the loss at the point found.
The ascent step is taken in the set's own geometry, without knowing which set it is:

    z ← project(z + η (lmo_{S(z)}(g) − z))        (ℓ∞: η ε sign g;  ℓ2: η ε g/‖g‖;  parameters: η · lmo(g))

The highest point visited is returned, x itself included: the inner value is never below the clean loss, and an
ascent that fails (masked gradients, label leaking) shows as standard training, not as easy robustness.

What makes the search cheap: the hull of an ℓ∞ ball is worked out once a batch, not once a step; input gradients only
(one_channel.py); while the set still grows, the steps grow with it (1 … steps), since a small set is crossed by few;
and where the processor multiplies bfloat16 in hardware, the search runs in it (points are then ranked to about three
digits; the outer step stays in the precision of the weights).
Cost of a step of training: steps + 3 forwards, steps + 1 backwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import Linf, PerturbationSet, sizes
from saddlepoint.geometry.base import Interval
from saddlepoint.training.checks import check_count
from saddlepoint.training.one_channel import OneChannel
from saddlepoint.training.precision import search_precision
from saddlepoint.training.state import mode

_TRAVEL = 2.5  # sizes of the set that all steps together could cross (Madry et al.: 2.5 ε / steps)
Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(z: Float[Tensor, "b k"], y: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
    """−log softmax(z)_y per row."""
    return functional.cross_entropy(z, y, reduction="none")


@dataclass(frozen=True)
class Search:
    """The inner maximisation: which set, how many ascent steps, which loss (per row) is to be made large.

    All steps together could cross `travel` sizes. `random`: start at a random point of the set, not at x.
    `low`: in bfloat16 where the processor has it; for losses to which the fourth digit of x is nothing (not for a start
    that differs from x by 10⁻³).
    """

    set: PerturbationSet
    steps: int = 7
    loss: Loss = cross_entropy
    travel: float = _TRAVEL
    random: bool = True
    low: bool = False

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
    ball = search.set
    limits = _limits(ball, x)
    climb = _climber(search, x, limits)
    best = x
    with search_precision(x, search.low):
        with torch.no_grad():
            highest = search.loss(net(x), y).to(x.dtype)
            z = _begin(search, x, draws, limits) if start is None else start
        for step in range(search.steps + 1):
            last = step == search.steps
            with torch.set_grad_enabled(not last):
                z = z.detach().requires_grad_(not last)
                points = ball.render(x, z)
                with nullcontext() if last else OneChannel():
                    values = search.loss(net(points), y)
            higher = values.detach() > highest  # false for NaN
            highest = torch.where(higher, values.detach().to(x.dtype), highest)
            best = torch.where(per_row(higher, x), points.detach(), best)
            if not last:
                (gradient,) = torch.autograd.grad(values.sum(), z)
                z = climb(z.detach(), gradient)
    return best


def _begin(search: Search, x: Tensor, draws: Draws, limits: Interval | None) -> Tensor:
    if not (search.random or search.set.parametric):
        return x
    if limits is None:
        return search.set.sample(x, draws)
    u = draws.uniform(x.shape[1:], dtype=x.dtype).to(x.device)
    return torch.clamp(torch.lerp(*limits, u), *limits)


def _climber(search: Search, x: Tensor, limits: Interval | None) -> Callable[[Tensor, Tensor], Tensor]:
    """One ascent step as a function of (z, gradient), with what does not change from step to step done beforehand."""
    if limits is None:
        return lambda z, gradient: _along_lmo(search, x, z, gradient)
    length = sizes.below(search.set.size, x).to(x.dtype) * (search.travel / search.steps)
    return lambda z, gradient: torch.clamp(z + length * gradient.sign(), *limits)


def _limits(ball: PerturbationSet, x: Tensor) -> Interval | None:
    """A box inside an ℓ∞ ball, worked out once; None for other sets.

    fl(x ± r) and r itself are rounded, off by u (|x| + r) and u r at most: r = ε − 4u (max |x| + ε) stays inside, short
    of the ball's own hull by some 10⁻⁷ in float32, at a tenth of its time.
    """
    if not isinstance(ball, Linf):
        return None
    ball.check_center(x)
    size = sizes.below(ball.size, x)
    radius = (size - 2 * torch.finfo(x.dtype).eps * (size + x.abs().amax())).clamp_min(0).to(x.dtype)
    if ball.box is None:
        return Interval(x - radius, x + radius)
    lower, upper = ball.box.limits(x, "in")
    return Interval(torch.maximum(x - radius, lower), torch.minimum(x + radius, upper))


def ascend(search: Search, x: Tensor, z: Tensor, gradient: Tensor) -> Tensor:
    """One step of length η sizes along the set's steepest direction, back onto S(x)."""
    return _climber(search, x, _limits(search.set, x))(z, gradient)


def _along_lmo(search: Search, x: Tensor, z: Tensor, gradient: Tensor) -> Tensor:
    ball = search.set
    # parameters are centred at 0, so their lmo is a direction already; a point's lmo is taken in the set around it
    direction = ball.lmo(x, gradient) if ball.parametric else ball.lmo(z, gradient) - z
    return ball.project(x, z + search.travel / search.steps * direction)


def shrunk(ball: PerturbationSet, fraction: Fraction) -> PerturbationSet:
    """The set at `fraction` of its size. Raises NotAvailable for one that has no other sizes."""
    if fraction == 1:
        return ball
    try:
        return ball.resized(ball.size * float(fraction) if isinstance(ball.size, Tensor) else ball.size * fraction)
    except NotAvailable as error:
        raise NotAvailable(
            f"{type(ball).__name__} has one size; a warm-up, or a smaller set inside it, needs others.",
            "Train with a warm-up of 0, and by an objective that takes the set as it is (pgd).",
        ) from error


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
        check_count("steps", self.steps)
        if self.inner not in ("eval", "train"):
            raise InputError(f"inner={self.inner!r}.", "Write eval or train.")

    def at(self, fraction: Fraction) -> Self:
        """With the set at `fraction` of its size, and as many of the steps."""
        return replace(self, set=shrunk(self.set, fraction), steps=max(1, math.ceil(self.steps * fraction)))

    def search(self) -> Search:
        """The inner maximisation."""
        return Search(self.set, self.steps, low=True)

    def points(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, "b *shape"]:
        """Where the loss is taken; no gradient flows through the search."""
        with mode(net, self.inner == "train"):
            return worst_points(net, self.search(), x, y, draws)

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
