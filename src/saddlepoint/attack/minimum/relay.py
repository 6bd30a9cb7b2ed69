"""Relay: a far search and a near one, and per sample the one that found the smaller point goes on.

    1  far, from x0, for `first` of the steps:    σ-zero's sparse search (sigma_zero.py) for ℓ0, ℓ1 and ℓ2;
                                                  x ← P_ε(x + η ε clip(d, ±1)) for ℓ∞, d Adam's direction, ε as in FMN
    2  near, from x0:                             FMN (fmn.py), at first for `second` of the steps
    3  where near won, it goes on to the end. Elsewhere two more rounds of the far search with longer steps, each from
       the smallest point so far, then FMN from the smallest of all, with steps in units of that point's own length

Steepest descents find the nearest valley, and where gradients mislead (networks trained against ℓ∞, thresholds in the
first layer) a bad one; a point that differs in few coordinates is small in ℓ1 and ℓ2 too, and Adam's steps, equal in
all coordinates, reach it. Where a far search ends is a matter of luck: rounds from the best point are worth more than
one long round. On smooth networks the near search is in the better valley from the start. All climb the log-odds of
"not y", which weighs all classes where the margin sees one. For ℓ0 the rounds of the far search are the whole attack.
The last point is x0's shortest way, inside the box, to where the last linearisation vanishes (hyperplane.py): exact for
affine models, for which, with many classes, `count` > 0 gives one item to each of the likeliest wrong ones.
Uses Cinà et al. 2024 and Pintor et al. 2021. Cost of an item: steps + 1 forwards, `steps` backwards.
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
_LAST = 0.1  # the share of it that is left at the end of the round
_TAU, _RATE, _SIGMA = 0.3, 0.01, 1e-3
_GAMMA, _LAST_GAMMA = 0.05, 1e-3
_LENGTH = 0.3  # first step of the last descent, in units of the best offset's ℓ2 length; falls to a hundredth
_DESCENT = 0.35  # of the steps after the comparison: the last descent
_OVER = 1.0005  # of the way from x0 to the plane: rounding must not lose the point


@dataclass(frozen=True)
class State:
    """The path (its point is the one asked for), the far search's own state, the smallest point so far with its size,
    and which rows the near search has won; how many asks were answered."""

    rows: Rows
    path: Descent
    far: Sparse
    best: Tensor
    size: Tensor
    near: Tensor
    asked: int


@dataclass(frozen=True)
class Relay(Attack[State]):
    """`first`, `second`: parts of `steps` before the comparison; `count` targets, 0: untargeted."""

    name: ClassVar[str] = "relay"
    minimum: ClassVar[bool] = True
    steps: int = 1000
    first: float = 0.25
    second: float = 0.12
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
        size = torch.full_like(rows.x0.flatten(1)[:, 0], torch.inf)
        far, near = sparse_start(rows, _TAU), torch.zeros_like(size, dtype=torch.bool)
        return self._asking(State(rows, descent(rows, rows.x0, size), far, rows.x0, size, near, -1))

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        state = _noted(replace(state, asked=state.asked + 1), answers)
        rows, asked = state.rows, state.asked
        if asked == self.steps:
            return state, None
        if asked == self.steps - 1 and not isinstance(rows.set, L0):
            return self._asking(replace(state, path=replace(state.path, x=_on_the_plane(state, answers))))
        marks = self._marks(rows)
        part = next(i for i, (a, b) in enumerate(pairwise(marks)) if a <= asked < b)
        if asked == marks[part] > 0:
            return self._asking(self._turn(state, answers, part))
        if part in (1, 4):
            return self._asking(replace(state, path=self._descended(state, answers, part == 4)))
        fade = cosine(1.0, _LAST, asked - marks[part], marks[part + 1] - marks[part])
        far = _far(state, answers, _ETAS[max(0, part - 1)], fade)
        if part == 0:
            return self._asking(far)
        return self._asking(replace(far, path=_chosen(state.near, self._descended(state, answers), far.path)))

    def _marks(self, rows: Rows) -> tuple[int, ...]:
        """Begin of: far search, near search, second and third round, last descent; the end."""
        if isinstance(rows.set, L0):
            shares = (0, 1 / 3, 1 / 3, 2 / 3, 1, 1)
        else:
            split = self.first + self.second
            rest = 1 - split
            shares = (0, self.first, split, split + rest * (1 - _DESCENT) / 2, split + rest * (1 - _DESCENT), 1)
        return tuple(round(share * self.steps) for share in shares)

    def _turn(self, state: State, answers: Answers, part: int) -> State:
        """The first point of another part; rows that the near search has won stay on their path."""
        rows = state.rows
        if part == 1:
            nothing = torch.full_like(state.size, torch.inf)
            return replace(state, path=descent(rows, rows.x0, nothing))
        near = state.path.found & (state.path.best <= state.size) if part == 2 else state.near
        start = descent(rows, state.best, state.size)
        path = _chosen(near, self._descended(state, answers), start)
        return replace(state, near=near, path=path, far=replace(sparse_start(rows, _TAU), x=state.best))

    def _descended(self, state: State, answers: Answers, last: bool = False) -> Descent:
        """A step of FMN: on the near search's schedule, or (`last`, for the other rows) on that of the last descent."""
        begin, final = self._marks(state.rows)[1], self._marks(state.rows)[4]
        place = state.asked - begin, self.steps - begin
        alpha = torch.full_like(state.size, cosine(1.0, 0.01, *place))
        gamma = torch.full_like(state.size, cosine(_GAMMA, _LAST_GAMMA, *place))
        if last:
            place = state.asked - final, self.steps - final
            length = torch.linalg.vector_norm((state.best - state.rows.x0).flatten(1), dim=1)
            length = torch.where(length > 0, length, 1) * cosine(_LENGTH, 0.01 * _LENGTH, *place)
            alpha = torch.where(state.near, alpha, length)
            gamma = torch.where(state.near, gamma, cosine(_GAMMA, _LAST_GAMMA, *place))
        return descended(state.rows, state.path, answers, (alpha, gamma))

    def _asking(self, state: State) -> tuple[State, Ask]:
        asked, rows, x = state.asked + 1, state.rows, state.path.x
        if asked == self.steps:
            return state, Ask(x, Access.SCORES)
        odds = asked < self.steps - 1 and not isinstance(rows.goal, Targeted)  # the last plane is the margin's
        return state, Ask(x, Access.GRADIENT, ce if odds else lead(rows))


def _noted(state: State, answers: Answers) -> State:
    """Keep the smallest broken point."""
    size = norm(state.rows, state.path.x - state.rows.x0)
    better = broken(answers.margin) & (size < state.size)
    best = torch.where(per_row(better, state.best), state.path.x, state.best)
    return replace(state, best=best, size=torch.where(better, size, state.size))


def _far(state: State, answers: Answers, eta: float, fade: float) -> State:
    """A step of the far search; `fade` falls from 1 within a round."""
    rows, path = state.rows, state.path
    if not isinstance(rows.set, Linf):
        far = sparser(rows, state.far, answers, (eta * fade, _RATE, _SIGMA))
        return replace(state, far=far, path=replace(path, x=far.x))
    moments = state.far.moments.after(scaled(answers.grad))
    path = resized(rows, path, answers, torch.full_like(state.size, _GAMMA * fade))
    known = path.best.isfinite()
    length = fade * torch.where(known, path.radius, eta)
    wish = torch.clamp(path.x + per_row(length, path.x) * moments.direction.clamp(-1, 1), *box(rows))
    x = nearest(rows, wish, torch.where(known, path.radius, torch.inf))
    return replace(state, far=replace(state.far, moments=moments), path=replace(path, x=x))


def _chosen(near: Tensor, a: Descent, b: Descent) -> Descent:
    """a where `near`, else b."""
    return Descent(
        torch.where(per_row(near, a.x), a.x, b.x),
        torch.where(near, a.radius, b.radius),
        torch.where(near, a.best, b.best),
        torch.where(near, a.found, b.found),
    )


def _on_the_plane(state: State, answers: Answers) -> Tensor:
    """x0 moved to the linearised boundary at the last point, and a hair beyond."""
    rows, x0 = state.rows, state.rows.x0
    gap = gap_to_boundary(state.path.x, answers.loss, answers.grad, x0)
    (way,) = way_to(rows, (x0,), answers.grad, (gap,))
    return torch.clamp(torch.add(x0, way, alpha=_OVER), *box(rows))
