"""Projected gradient ascent on a loss inside S(x0).

    x_{i+1} = P_S(x_i + α ε d(∇ loss(x_i))),   α = 2.5 / steps,   x_0 ~ uniform on S

d is the steepest direction of the set's norm (steps.py). Madry et al. 2018, §2.1 and appendix; step 2.5 ε / steps
as there. The engine records the margin at x0 and at every iterate, so the answer is the best point seen.
With `polish` the last ask is one Frank–Wolfe vertex, argmax over S of <∇ loss(x_{N−1}), z> (`set.lmo`): it is a
legitimate point of the set, exact for affine models in every norm, where fixed ℓ2 and ℓ1 steps only come close.
With `glances` the same vertex is looked at after those steps' gradients already, at the price of a forward each: where
most samples fall (a network that nobody trained for the threat) they leave early; where few do it only costs.
In boxes (ℓ∞) a row whose path repeats itself skips what it would see again and ends with the same verdict (cycles.py).
Cost of an item: steps + 1 forwards (one more with polish, and for each glance), `steps` backwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from saddlepoint.attack.fixed.cycles import Path, follow
from saddlepoint.attack.losses import objective
from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.attack.steps import ascend, project, start
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError
from saddlepoint.spec.access import Access


@dataclass(frozen=True)
class State:
    """The last iterate, the last gradient, whether the path repeats, how many iterates were answered, and whether the
    last ask was a glance."""

    rows: Rows
    x: Tensor
    grad: Tensor
    path: Path
    asked: int
    glancing: bool = False


@dataclass(frozen=True)
class PGD(Attack[State]):
    """`step_size` is α in units of ε (None: 2.5 / steps); `random_start` False starts every restart at x0; `glances`
    counts gradients from 1."""

    name: ClassVar[str] = "pgd"
    steps: int = 20
    restarts: int = 1
    loss: str = "ce"
    step_size: float | None = None
    random_start: bool = True
    polish: bool = True
    glances: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        objective(self.loss)  # an unknown name is refused here rather than in the middle of a run
        if self.steps < 1 or self.restarts < 1:
            raise InputError(f"{self.steps} steps and {self.restarts} restarts must be at least 1.")
        if any(not 1 <= g <= self.steps for g in self.glances):
            raise InputError(f"glances after gradients {self.glances}: there are gradients 1 to {self.steps}.")

    @property
    def forwards(self) -> int:
        return self.steps + 1 + self.polish + len(set(self.glances))

    @property
    def backwards(self) -> int:
        return self.steps

    @property
    def stream(self) -> str:
        return f"{self.name}-{self.loss}"

    def init(self, rows: Rows) -> tuple[State, Ask]:
        x = start(rows, self.random_start)
        return State(rows, x, x, Path.at(x), 0), self._ask(x, 0)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        if state.glancing:
            return self._move(replace(state, glancing=False))
        rows, asked = state.rows, state.asked + 1
        if asked <= self.steps:
            state = replace(state, grad=answers.grad, asked=asked)
            if asked not in self.glances:
                return self._move(state)
            return replace(state, glancing=True), Ask(rows.set.lmo(rows.x0, state.grad), Access.SCORES, values=False)
        if asked == self.steps + 1 and self.polish:
            x = rows.set.lmo(rows.x0, state.grad)
            return replace(state, x=x, asked=asked), Ask(x, Access.SCORES)
        return state, None

    def _move(self, state: State) -> tuple[State, Ask]:
        """One step along the gradient at hand."""
        rows, asked = state.rows, state.asked
        alpha = 2.5 / self.steps if self.step_size is None else self.step_size
        x = project(rows, ascend(rows, state.x, state.grad, alpha))
        if rows.limits is None:
            return replace(state, x=x), self._ask(x, asked)
        path = follow(state.path, x, asked, self.steps - 1) if asked < self.steps else state.path
        x, done = self._ended(rows, x, state.grad, path, asked)
        return replace(state, x=x, path=path), replace(self._ask(x, asked), done=done)

    def _ended(self, rows: Rows, x: Tensor, grad: Tensor, path: Path, asked: int) -> tuple[Tensor, Tensor]:
        """The next points, and which rows end with them: repeating ones, at the vertex where one is wanted."""
        if not self.polish:
            return x, path.due >= 0
        last = path.due == asked - 1  # the gradient is that of x_{N−1}
        if bool(last.any()):
            x = torch.where(per_row(last, x), rows.set.lmo(rows.x0, grad), x)
        return x, last

    def _ask(self, x: Tensor, asked: int) -> Ask:
        """Gradients for the first `steps` points; the last iterate is only looked at."""
        if asked == self.steps:
            return Ask(x, Access.SCORES)
        return Ask(x, Access.GRADIENT, objective(self.loss), scale_free=True, values=False)
