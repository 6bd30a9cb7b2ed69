"""DDN: decouple the direction of the ℓ2 perturbation from its norm.

    δ ← δ_k + α_k g / ‖g‖₂,  g = ∇ loss(x0 + δ_k)          α_k from 1 to 0.01 along a cosine
    ε_{k+1} = (1 − γ) ε_k  if x0 + δ_k breaks the sample, else (1 + γ) ε_k
    δ_{k+1} = clip(x0 + ε_{k+1} δ / ‖δ‖₂) − x0

The path stays on spheres, so it slides along the decision boundary while the radius swings around it: every inward
swing is a smaller adversarial point. Rony et al. 2019, Algorithm 1 (γ = 0.05, ε_0 = 1; the quantisation step is left
out: sizes are not rounded to grey levels here). The engine keeps the smallest point seen, not the last (trap 41).
Cost of an item: steps + 1 forwards, `steps` backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from saddlepoint.attack.losses import objective
from saddlepoint.attack.minimum.common import ball, box, broken, cosine
from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.attack.steps import unit
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import L2
from saddlepoint.spec.access import Access


@dataclass(frozen=True)
class State:
    """The point asked for, its sphere's radius, and how many asks were answered."""

    rows: Rows
    x: Tensor
    radius: Tensor
    asked: int


@dataclass(frozen=True)
class DDN(Attack[State]):
    """`gamma`: by how much the radius swings; `radius`: the first one, in input units."""

    name: ClassVar[str] = "ddn"
    minimum: ClassVar[bool] = True
    steps: int = 1000
    restarts: int = 1
    loss: str = "ce"
    gamma: float = 0.05
    radius: float = 1.0

    def __post_init__(self) -> None:
        objective(self.loss)
        if self.steps < 1 or self.restarts < 1:
            raise InputError(f"{self.steps} steps and {self.restarts} restarts must be at least 1.")
        if not 0 < self.gamma < 1 or not self.radius > 0:
            raise InputError(f"gamma {self.gamma} must lie in (0, 1), the first radius {self.radius} above 0.")

    @property
    def forwards(self) -> int:
        return self.steps + 1

    @property
    def backwards(self) -> int:
        return self.steps

    def init(self, rows: Rows) -> tuple[State, Ask]:
        ball(rows, self.name, (L2,))
        radius = torch.full_like(rows.x0.flatten(1)[:, 0], self.radius)
        return State(rows, rows.x0, radius, -1), self._ask(rows.x0, 0)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        rows, asked = state.rows, state.asked + 1
        if asked == self.steps:
            return state, None
        alpha = cosine(1.0, 0.01, asked, self.steps)
        offset = state.x - rows.x0 + alpha * unit(answers.grad)
        swing = torch.where(broken(answers.margin), 1 - self.gamma, 1 + self.gamma)
        radius = state.radius * swing.to(state.radius.dtype)
        x = torch.clamp(rows.x0 + per_row(radius, offset) * unit(offset), *box(rows))
        return State(rows, x, radius, asked), self._ask(x, asked + 1)

    def _ask(self, x: Tensor, asked: int) -> Ask:
        if asked == self.steps:
            return Ask(x, Access.SCORES)
        return Ask(x, Access.GRADIENT, objective(self.loss), scale_free=True)
