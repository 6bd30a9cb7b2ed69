"""One perturbation for all samples, by ascent on the mean of a capped loss.

    max over δ of 1/n Σ_i min(loss(f(x_i(δ)), y_i), β)        δ⁺ = P(δ + α_t ε d(Σ_i ∇_i)),   α_t = α (1 − t/T)

Shafahi et al. 2020 (Universal Adversarial Training), eq. 3 and Algorithm 2: a cap β keeps samples that fell long ago
from ruling the sum. There the ascent is stochastic (mini-batches); here all rows are asked at every step, which is the
same mean without its noise and draws nothing at random. The loss is the cross-entropy softplus(u), u the log-odds
against y (losses.py), or the margin. d is the steepest step of the set's norm (steps.py); gradients pass the cut to the
data box unchanged. For masks and patches, `pasted` shares the content instead of the difference: Brown et al. 2017.
The problem, with its fooling rate on other samples, is Moosavi-Dezfooli et al. 2017; their own method is sequential.py.

Rows share state, so nothing is dropped. Each sample's record is its best point over all steps, a witness in its own
set; for one δ and its rate use `find_universal` (find.py). Cost of an item: steps + 1 forwards, `steps` backwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from saddlepoint.attack.losses import objective
from saddlepoint.attack.protocol import Answers, Ask, Attack, Objective
from saddlepoint.attack.rows import Rows
from saddlepoint.attack.steps import ascend, project
from saddlepoint.attack.universal.shared import first, home, points
from saddlepoint.core.errors import InputError
from saddlepoint.spec.access import Access


@dataclass(frozen=True)
class State:
    """`delta` is the same in every row."""

    rows: Rows
    delta: Tensor
    asked: int


@dataclass(frozen=True)
class Universal(Attack[State]):
    """`step_size` is α in units of ε, `cap` is β (9 in the paper); `pasted` for masks and patches."""

    name: ClassVar[str] = "universal"
    coupled: ClassVar[bool] = True
    steps: int = 50
    step_size: float = 0.2
    loss: str = "ce"
    cap: float = 9.0
    pasted: bool = False

    def __post_init__(self) -> None:
        objective(self.loss)  # an unknown name is refused here rather than in the middle of a run
        if self.steps < 1 or not self.step_size > 0:
            raise InputError(f"{self.steps} steps of size {self.step_size}.", "At least 1 step, of a size above 0.")

    @property
    def forwards(self) -> int:
        return self.steps + 1

    @property
    def backwards(self) -> int:
        return self.steps

    def init(self, rows: Rows) -> tuple[State, Ask]:
        delta = first(rows, self.pasted)
        return self._at(State(rows, delta.expand(len(rows), *delta.shape[1:]), 0))

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        if state.asked == self.steps:
            return state, None
        one, delta = home(state.rows, self.pasted), state.delta[:1]
        alpha = self.step_size * (1 - state.asked / self.steps)
        delta = project(one, ascend(one, delta, answers.grad.mean(0, keepdim=True), alpha))
        return self._at(replace(state, delta=delta.expand_as(state.delta), asked=state.asked + 1))

    def _at(self, state: State) -> tuple[State, Ask]:
        x = points(state.rows, state.delta, self.pasted)
        if state.asked == self.steps:
            return state, Ask(x, Access.SCORES)
        return state, Ask(x, Access.GRADIENT, capped(self.loss, self.cap), values=False)


def capped(name: str, cap: float) -> Objective:
    """min(loss, cap), the log-odds turned back into the cross-entropy: here rows are compared with each other."""
    inner = objective(name)

    def loss(z: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        value = inner(z, y, target)
        if name == "ce":
            value = softplus(value) if target is None else -softplus(-value)
        return torch.clamp(value, max=cap)

    return loss
