"""Relay: searches that hand over their smallest point; the house's own minimum-size attack.

    1  three rounds of a search that goes far, the first from x0, the others from the smallest point so far:
       σ-zero's sparse search (sigma_zero.py) for ℓ0, ℓ1 and ℓ2; for ℓ∞ x ← P_ε(x + η ε clip(d, ±1)), d Adam's direction,
       ε as in FMN. It climbs the log-odds of "not y", which weighs all classes where the margin sees one
    2  FMN from x0 (fmn.py), its radius never above the best size so far
    3  FMN from the smallest point of all, with steps in units of that point's own length

Steepest descents find the nearest valley, and where gradients mislead (networks trained against ℓ∞, thresholds in the
first layer) a bad one; a point that differs in few coordinates is small in ℓ1 and ℓ2 too, and Adam's steps, equal in
all coordinates, reach it. Where such a search ends is a matter of luck: rounds with larger and larger steps, each from
the best point, are worth more than one long round. On smooth networks search 2 starts in the better valley. For ℓ0
search 1 is the whole attack. The last point is x0's shortest way, inside the box, to where the last linearisation
vanishes (hyperplane.py): exact for affine models, for which, with many classes, `count` > 0 gives one item to each of
the likeliest wrong ones. Uses Cinà et al. 2024 and Pintor et al. 2021.
Cost of an item: steps + 1 forwards, `steps` backwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saddlepoint.attack.losses import ce
from saddlepoint.attack.minimum.common import ball, box, broken, cosine, lead, likeliest, nearest, norm
from saddlepoint.attack.minimum.fmn import Descent, descended, descent, resized
from saddlepoint.attack.minimum.hyperplane import gap_to_boundary, way_to
from saddlepoint.attack.minimum.moments import scaled
from saddlepoint.attack.minimum.sigma_zero import Sparse, sparse_start, sparser
from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import L0, Linf
from saddlepoint.spec.access import Access
from saddlepoint.spec.goal import Targeted

_ETAS = (0.3, 0.4, 0.5)  # first step of each round of the far search
_ROUNDS = len(_ETAS)
_LAST = 0.1  # the share of it that is left at the end of the round
_TAU, _RATE, _SIGMA = 0.3, 0.01, 1e-3
_GAMMA, _LAST_GAMMA = 0.05, 1e-3
_LENGTH = 0.3  # first step of search 3, in units of the best offset's ℓ2 length; falls to a hundredth
_OVER = 1.0005  # of the way from x0 to the plane: rounding must not lose the point


@dataclass(frozen=True)
class State:
    """The smallest broken point so far, the searches in progress (one is at work), and how many asks were answered."""

    rows: Rows
    best: Tensor
    sparse: Sparse
    path: Descent
    asked: int


@dataclass(frozen=True)
class Relay(Attack[State]):
    """`first`, `second`: parts of `steps` for searches 1 and 2, 3 has the rest; `count` targets, 0: untargeted."""

    name: ClassVar[str] = "relay"
    minimum: ClassVar[bool] = True
    steps: int = 1000
    first: float = 0.6
    second: float = 0.15
    count: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.count < 0:
            raise InputError(f"{self.steps} steps must be at least 1, {self.count} targets at least 0.")
        if min(self.first, self.second) < 0 or self.first + self.second > 1:
            raise InputError(f"the shares {self.first} and {self.second} must be ≥ 0 and sum to 1 at most.")

    @property
    def forwards(self) -> int:
        return self.steps + 1

    @property
    def backwards(self) -> int:
        return self.steps

    def targets(
        self, clean: Float[Tensor, "b k"], y: Int64[Tensor, " b"], slopes: Float[Tensor, "b k"] | None = None
    ) -> Int64[Tensor, "b t"] | None:
        """The `count` largest clean logits' classes without y; None for one untargeted item."""
        return likeliest(clean, y, self.count) if self.count else None

    def init(self, rows: Rows) -> tuple[State, Ask]:
        ball(rows, self.name)
        far = torch.full_like(rows.x0.flatten(1)[:, 0], torch.inf)
        state = State(rows, rows.x0, sparse_start(rows, _TAU), descent(rows, rows.x0, far), -1)
        return state, self._ask(rows, rows.x0, 0)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        rows, asked = state.rows, state.asked + 1
        if asked == self.steps:
            return state, None
        state = _noted(replace(state, asked=asked), answers)
        if asked == self.steps - 1 and not isinstance(rows.set, L0):
            x = _on_the_plane(state, answers)
            return self._asking(replace(state, path=replace(state.path, x=x)))
        number, begin, end = self._search(rows, asked)
        if asked == begin > 0:  # this answer ended the search before; the next point is the start of this one
            start = rows.x0 if number == _ROUNDS else state.best
            sparse = replace(sparse_start(rows, _TAU), x=start)
            return self._asking(replace(state, sparse=sparse, path=descent(rows, start, state.path.best)))
        if number < _ROUNDS:
            return self._asking(_far(state, answers, number, cosine(1.0, _LAST, asked - begin, end - begin)))
        how = _lengths(state, number, (asked - begin, end - begin))
        return self._asking(replace(state, path=descended(rows, state.path, answers, how)))

    def _search(self, rows: Rows, asked: int) -> tuple[int, int, int]:
        """The number of the search at work, rounds of the far one first; the asks with which it begins and ends."""
        far = 1.0 if isinstance(rows.set, L0) else self.first
        shares = [far * i / _ROUNDS for i in range(_ROUNDS + 1)] + [1.0 if far == 1 else far + self.second, 1.0]
        marks = [round(share * self.steps) for share in shares]
        return next((i, a, b) for i, (a, b) in enumerate(pairwise(marks)) if a <= asked < b)

    def _asking(self, state: State) -> tuple[State, Ask]:
        return state, self._ask(state.rows, state.path.x, state.asked + 1)

    def _ask(self, rows: Rows, x: Tensor, asked: int) -> Ask:
        if asked == self.steps:
            return Ask(x, Access.SCORES)
        far = self._search(rows, asked)[0] < _ROUNDS and not isinstance(rows.goal, Targeted)
        return Ask(x, Access.GRADIENT, ce if far else lead(rows))


def _far(state: State, answers: Answers, number: int, fade: float) -> State:
    """A step of the far search's round `number`; `fade` falls from 1 within the round."""
    rows = state.rows
    if not isinstance(rows.set, Linf):
        sparse = sparser(rows, state.sparse, answers, (_ETAS[number] * fade, _RATE, _SIGMA))
        return replace(state, sparse=sparse, path=replace(state.path, x=sparse.x))
    moments = state.sparse.moments.after(scaled(answers.grad))
    path = resized(rows, state.path, answers, _GAMMA * fade)
    eta = fade * torch.where(path.best.isfinite(), path.radius, _ETAS[number])
    wish = path.x + per_row(eta, path.x) * moments.direction.clamp(-1, 1)
    x = nearest(rows, torch.clamp(wish, *box(rows)), torch.where(path.best.isfinite(), path.radius, torch.inf))
    return replace(state, sparse=replace(state.sparse, moments=moments), path=replace(path, x=x))


def _lengths(state: State, number: int, place: tuple[int, int]) -> tuple[Tensor, float]:
    """(α per row, γ) of FMN: α in input units from x0, in units of the best offset's length from the best point."""
    gamma = cosine(_GAMMA, _LAST_GAMMA, *place)
    if number == _ROUNDS:
        return torch.full_like(state.path.best, cosine(1.0, 0.01, *place)), gamma
    length = torch.linalg.vector_norm((state.best - state.rows.x0).flatten(1), dim=1)
    return torch.where(length > 0, length, 1) * cosine(_LENGTH, 0.01 * _LENGTH, *place), gamma


def _noted(state: State, answers: Answers) -> State:
    """Keep the smallest broken point, with its size where the descents read it."""
    size = norm(state.rows, state.path.x - state.rows.x0)
    better = broken(answers.margin) & (size < state.path.best)
    best = torch.where(per_row(better, state.best), state.path.x, state.best)
    return replace(state, best=best, path=replace(state.path, best=torch.where(better, size, state.path.best)))


def _on_the_plane(state: State, answers: Answers) -> Tensor:
    """x0 moved to the linearised boundary at the last point, and a hair beyond."""
    rows, x0 = state.rows, state.rows.x0
    gap = gap_to_boundary(state.path.x, answers.loss, answers.grad, x0)
    (way,) = way_to(rows, (x0,), answers.grad, (gap,))
    return torch.clamp(torch.add(x0, way, alpha=_OVER), *box(rows))
