"""FMN: fast minimum-norm attack in ℓ0, ℓ1, ℓ2 and ℓ∞, with a radius that follows the decision boundary.

    x_{k+1} = P_ε(x_k + α_k g / ‖g‖₂),   g = ∇L(x_k),   L = max_{j≠y} z_j − z_y  (> 0: broken)
    ε ← (1 − γ_k) min(ε, ‖δ*‖)               where x_k is broken, δ* the smallest broken offset so far
    ε ← min((1 + γ_k) ε, ‖δ*‖)               where it is not, and some x_i was
    ε = (1 + γ_k) (‖x_k − x0‖ + |L| / ‖g‖_*) where none was: the distance to the boundary of L's first-order model

‖·‖_* is the dual norm of the **gradient** (trap 42). P_ε: onto ball ∩ box around x0 in one map. α_k and γ_k fall along
cosines. In ℓ0 the radius moves by one pixel at least. Pintor et al. 2021, Algorithm 1 and eq. 5–8, but for two things:
the last line goes γ_k beyond the boundary, which an affine model would else approach from the inside for ever; and the
radius never exceeds ‖δ*‖, since outside that ball nothing is left to find. The engine keeps the smallest point seen
(trap 41). Cost of an item: steps + 1 forwards, `steps` backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from saddlepoint.attack.minimum.common import ball, box, broken, cosine, lead, nearest, norm
from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.attack.steps import dual_norm, unit
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import L0
from saddlepoint.spec.access import Access


@dataclass(frozen=True)
class Descent:
    """A descent in progress: its point, its ball's radius, the smallest broken size, and whether it broke yet."""

    x: Tensor
    radius: Tensor
    best: Tensor
    found: Tensor


@dataclass(frozen=True)
class State:
    """The descent, and how many asks were answered."""

    rows: Rows
    descent: Descent
    asked: int


@dataclass(frozen=True)
class FMN(Attack[State]):
    """`alpha` and `gamma`: step length (ℓ2, input units) and radius change, at first; `last_…` at the end."""

    name: ClassVar[str] = "fmn"
    minimum: ClassVar[bool] = True
    steps: int = 1000
    restarts: int = 1
    alpha: float = 1.0
    last_alpha: float = 0.01
    gamma: float = 0.05
    last_gamma: float = 1e-3

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise InputError(f"{self.steps} steps and {self.restarts} restarts must be at least 1.")
        if not (self.alpha > 0 and self.last_alpha >= 0 and 0 < self.gamma < 1 and 0 <= self.last_gamma < 1):
            raise InputError(f"alpha {self.alpha} must be above 0, gamma {self.gamma} in (0, 1).")

    @property
    def forwards(self) -> int:
        return self.steps + 1

    @property
    def backwards(self) -> int:
        return self.steps

    def init(self, rows: Rows) -> tuple[State, Ask]:
        ball(rows, self.name)
        far = torch.full_like(rows.x0.flatten(1)[:, 0], torch.inf)
        return State(rows, descent(rows, rows.x0, far), -1), self._ask(rows, rows.x0, 0)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        rows, asked = state.rows, state.asked + 1
        if asked == self.steps:
            return state, None
        alpha = torch.full_like(state.descent.best, cosine(self.alpha, self.last_alpha, asked, self.steps))
        gamma = cosine(self.gamma, self.last_gamma, asked, self.steps)
        path = descended(rows, state.descent, answers, (alpha, gamma))
        return State(rows, path, asked), self._ask(rows, path.x, asked + 1)

    def _ask(self, rows: Rows, x: Tensor, asked: int) -> Ask:
        if asked == self.steps:
            return Ask(x, Access.SCORES)
        return Ask(x, Access.GRADIENT, lead(rows))


def descent(rows: Rows, x: Tensor, best: Tensor) -> Descent:
    """A descent that starts at x; `best` (b,) is the smallest size known, inf without one."""
    return Descent(x, norm(rows, x - rows.x0), best, torch.zeros_like(best, dtype=torch.bool))


def descended(rows: Rows, path: Descent, answers: Answers, how: tuple[Tensor, float | Tensor]) -> Descent:
    """One step; `how` is (α per row, γ or one per row)."""
    alpha, gamma = how
    path = resized(rows, path, answers, gamma)
    step = per_row(alpha, path.x) * unit(answers.grad)
    x = nearest(rows, torch.clamp(path.x + step, *box(rows)), path.radius)
    return Descent(x, path.radius, path.best, path.found)


def resized(rows: Rows, path: Descent, answers: Answers, gamma: float | Tensor) -> Descent:
    """Shrink the balls of broken rows below their best size, widen the others."""
    hit = broken(answers.margin)
    here = norm(rows, path.x - rows.x0)
    best = torch.where(hit, torch.minimum(here, path.best), path.best)
    slope = dual_norm(rows, answers.grad).clamp_min(torch.finfo(here.dtype).tiny)
    value = answers.loss.abs().nan_to_num(0.0).to(here.dtype)
    # a vanishing slope must not ask for more than the box holds
    ahead = (here + value / slope).clamp_max(norm(rows, _room(rows))) * (1 + gamma)
    smaller, larger = torch.minimum(path.radius, best) * (1 - gamma), path.radius * (1 + gamma)
    if isinstance(rows.set, L0):
        smaller = torch.minimum(smaller.floor(), best - 1).clamp_min(1)
        larger, ahead = torch.maximum(larger.ceil(), path.radius + 1), ahead.ceil()
    found = path.found | hit
    radius = torch.where(hit, smaller, torch.where(found, larger, ahead))
    return Descent(path.x, torch.minimum(radius, best), best, found)


def _room(rows: Rows) -> Tensor:
    """How far each coordinate can go inside the box, at most."""
    lower, upper = box(rows)
    return torch.maximum(rows.x0 - lower, upper - rows.x0).nan_to_num(posinf=1e6)
