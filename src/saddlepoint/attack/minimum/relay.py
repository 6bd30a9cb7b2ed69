"""Relay: three searches that hand over their smallest point; the house's own minimum-size attack.

    1  a search that goes far: σ-zero's sparse search for ℓ1 and ℓ2 (sigma_zero.py), signed steps for ℓ∞
    2  FMN from x0 (fmn.py), its radius never above the best size of search 1
    3  FMN from the smallest point of both, with steps in units of that point's own length

Steepest descents find the nearest valley, and where gradients mislead (networks trained against ℓ∞, thresholds in the
first layer) a bad one; a point that differs in few coordinates is small in ℓ1 and ℓ2 too, and Adam's steps, equal in
all coordinates, reach it. On smooth networks search 2 starts in the better valley, so both start and the third goes on
from whichever won. For ℓ∞ search 1 is x ← P_ε(x + η ε clip(d, ±1)), d Adam's direction, ε as in FMN. For ℓ0 search 1
is the whole attack. The last point is x0's shortest way, inside the box, to where the last linearisation vanishes
(hyperplane.py): exact for affine models. With `count` > 0 there is one item for each of the likeliest wrong classes,
which an affine model of many classes needs. Uses Cinà et al. 2024 and Pintor et al. 2021.
Cost of an item: steps + 1 forwards, `steps` backwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

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

_ETA, _LAST = 0.3, 0.1  # of the sparse search: its first step, the share of it that is left at the end
_TAU, _RATE, _SIGMA = 0.3, 0.01, 1e-3
_GAMMA, _LAST_GAMMA = 0.05, 1e-3
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
    first: float = 0.35
    second: float = 0.3
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
            return self._asking(replace(state, path=replace(state.path, x=x)), x)
        begin, end = self._leg(rows, asked)
        if asked == begin > 0:  # this answer belonged to the search before; the next point is the start of this one
            start = rows.x0 if begin < self._ends(rows)[1] else state.best
            path = descent(rows, start, state.path.best)
            return self._asking(replace(state, path=path), path.x)
        if begin == 0:
            return self._far(state, answers, end)
        alpha, gamma = self._lengths(state, (begin, end))
        path = descended(rows, state.path, answers, (alpha, gamma))
        return self._asking(replace(state, path=path), path.x)

    def _ends(self, rows: Rows) -> tuple[int, int]:
        """After how many asks the second and the third search begin."""
        if isinstance(rows.set, L0):
            return self.steps, self.steps
        return max(1, round(self.first * self.steps)), max(1, round((self.first + self.second) * self.steps))

    def _leg(self, rows: Rows, asked: int) -> tuple[int, int]:
        """Begin and end of the search that this ask belongs to."""
        marks = (0, *self._ends(rows), self.steps)
        return next((a, b) for a, b in pairwise(marks) if a <= asked < b)

    def _far(self, state: State, answers: Answers, end: int) -> tuple[State, Ask]:
        """A step of search 1."""
        rows, asked = state.rows, state.asked
        if not isinstance(rows.set, Linf):
            eta = _ETA * cosine(1.0, _LAST, asked, end)
            sparse = sparser(rows, state.sparse, answers, (eta, _RATE, _SIGMA))
            path = replace(state.path, x=sparse.x)
            return self._asking(replace(state, sparse=sparse, path=path), sparse.x)
        moments = state.sparse.moments.after(scaled(answers.grad))
        path = resized(rows, state.path, answers, cosine(_GAMMA, _LAST_GAMMA, asked, end))
        eta = cosine(1.0, 0.02, asked, end) * torch.where(path.found, path.radius, _ETA)
        wish = path.x + per_row(eta, path.x) * moments.direction.clamp(-1, 1)
        x = nearest(rows, torch.clamp(wish, *box(rows)), torch.where(path.found, path.radius, torch.inf))
        sparse = replace(state.sparse, moments=moments)
        return self._asking(replace(state, sparse=sparse, path=replace(path, x=x)), x)

    def _lengths(self, state: State, leg: tuple[int, int]) -> tuple[Tensor, float]:
        """(α per row, γ) of FMN: α in input units from x0, in units of the best offset's length from the best point."""
        done, whole = state.asked - leg[0], leg[1] - leg[0]
        gamma = cosine(_GAMMA, _LAST_GAMMA, done, whole)
        ones = torch.ones_like(state.path.best)
        if leg[1] < self.steps:
            return ones * cosine(1.0, 0.01, done, whole), gamma
        length = torch.linalg.vector_norm((state.best - state.rows.x0).flatten(1), dim=1)
        length = torch.where(length > 0, length, 1)
        return length * cosine(0.3, 0.003, done, whole), gamma

    def _asking(self, state: State, x: Tensor) -> tuple[State, Ask]:
        return state, self._ask(state.rows, x, state.asked + 1)

    def _ask(self, rows: Rows, x: Tensor, asked: int) -> Ask:
        if asked == self.steps:
            return Ask(x, Access.SCORES)
        return Ask(x, Access.GRADIENT, lead(rows))


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
