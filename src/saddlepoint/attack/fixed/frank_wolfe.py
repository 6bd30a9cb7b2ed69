"""Frank–Wolfe: walk towards the vertex that the gradient points to. Needs no step size in ε, and no norm.

    v_i = argmax over z in S of <g_i, z>  (set.lmo),    x_{i+1} = x_i + γ_i (v_i − x_i),    g_i = ∇ loss(x_i)

    step "open"  γ_i = 2 / (i + 2)
    step "gap"   γ_i = min(1, G_i / (M_i ‖v_i − x_i‖²)),    G_i = <g_i, v_i − x_i>, the Frank–Wolfe gap
                 M ← 2 M and back to x_i where f(x_{i+1}) < f(x_i) + γ_i G_i − ½ γ_i² M_i ‖v_i − x_i‖², else M ← 0.9 M

"open" is the default: it travels, where "gap" settles on the nearest stationary point. Either way the first step goes
all the way to the vertex (M_0 = G_0 / ‖v_0 − x_0‖²), so an affine loss is solved by it, in every norm and with the box
active. Between vertices the path stays in a convex set; it is projected for the sake of rounding, and because ℓ0 balls,
patches and unions are not convex.
Frank & Wolfe 1956; attacks: Chen et al. 2020, "A Frank–Wolfe framework …", Algorithm 1; "gap" with backtracking:
Pedregosa et al. 2020, Algorithm 2 (η = 0.9, τ = 2). A step that is taken back costs a forward like any other.
Cost of an item: steps + 1 forwards, `steps` backwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.attack.losses import objective
from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.attack.steps import project, start
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError
from saddlepoint.spec.access import Access

_SMOOTHER, _ROUGHER = 0.9, 2.0


@dataclass(frozen=True)
class State:
    """Per row: the point held, its gradient and loss, the candidate, what it promised, and the curvature M."""

    rows: Rows
    x: Tensor
    grad: Tensor
    loss: Tensor
    tried: Tensor
    promised: Tensor
    curvature: Tensor
    asked: int


@dataclass(frozen=True)
class FrankWolfe(Attack[State]):
    """`step_rule`: "open" (2 / (i + 2)) or "gap" (adaptive). Without `random_start` every restart is the first."""

    name: ClassVar[str] = "frank-wolfe"
    steps: int = 20
    restarts: int = 1
    loss: str = "margin"
    step_rule: str = "open"
    random_start: bool = False

    def __post_init__(self) -> None:
        objective(self.loss)
        if self.steps < 1 or self.restarts < 1:
            raise InputError(f"{self.steps} steps and {self.restarts} restarts must be at least 1.")
        if self.step_rule not in ("gap", "open"):
            raise InputError(f"there is no step rule {self.step_rule!r}.", 'Choose "gap" or "open".')

    @property
    def forwards(self) -> int:
        return self.steps + 1

    @property
    def backwards(self) -> int:
        return self.steps

    def init(self, rows: Rows) -> tuple[State, Ask]:
        x = start(rows, self.random_start)
        lowest = torch.full(x.shape[:1], -torch.inf, dtype=torch.float64, device=x.device)
        return State(rows, x, x, lowest, x, lowest, torch.zeros_like(lowest), 0), self._ask(x, 0)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        rows, asked = state.rows, state.asked + 1
        if asked > self.steps:
            return state, None
        state = self._open(state, answers) if self.step_rule == "open" else self._judged(state, answers)
        vertex = rows.set.lmo(rows.x0, state.grad)
        way = vertex - state.x
        gap = (state.grad * way).flatten(1).double().sum(1)
        length = way.flatten(1).double().square().sum(1)
        curvature, gamma = state.curvature, torch.full_like(gap, 2 / (asked + 1))
        if self.step_rule == "gap":
            ideal = gap / length.clamp_min(torch.finfo(torch.float64).tiny)
            curvature = ideal if asked == 1 else curvature
            gamma = torch.where(curvature > 0, ideal / curvature, 1).clamp(0, 1)
        x = project(rows, torch.addcmul(state.x, way, per_row(gamma.to(way.dtype), way)))
        promised = state.loss + gamma * gap - gamma**2 * curvature * length / 2
        state = replace(state, tried=x, promised=promised, curvature=curvature, asked=asked)
        return state, self._ask(x, asked)

    def _open(self, state: State, answers: Answers) -> State:
        """Always go on from the candidate."""
        return replace(state, x=state.tried, grad=answers.grad)

    def _judged(self, state: State, answers: Answers) -> State:
        """Go on from the candidate where it kept its promise, else from where it came from, more carefully."""
        value = answers.loss.double()
        # rounding of f must not look like a broken promise: an affine loss keeps it with equality
        slack = 1e-6 * (1 + state.promised.abs())
        kept = (value >= state.promised - slack) if state.asked else torch.ones_like(value, dtype=torch.bool)
        wide = per_row(kept, state.x)
        return replace(
            state,
            x=torch.where(wide, state.tried, state.x),
            grad=torch.where(wide, answers.grad, state.grad),
            loss=torch.where(kept, value, state.loss),
            curvature=state.curvature * torch.where(kept, _SMOOTHER, _ROUGHER),
        )

    def _ask(self, x: Float[Tensor, "b ..."], asked: int) -> Ask:
        if asked == self.steps:
            return Ask(x, Access.SCORES)
        scale_free = self.step_rule == "open"  # the gap rule compares slopes with values
        return Ask(x, Access.GRADIENT, objective(self.loss), scale_free=scale_free, values=not scale_free)
