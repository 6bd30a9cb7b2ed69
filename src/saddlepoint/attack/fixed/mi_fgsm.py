"""MI-FGSM: steepest steps along a momentum of normalised gradients.

    m_{i+1} = μ m_i + g_i / ‖g_i‖₁,    x_{i+1} = P_S(x_i + α ε d(m_{i+1})),    g_i = ∇ loss(x_i),  x_0 = x0

d is the steepest direction of the set's norm (steps.py). ‖·‖₁ is that of the row, never of the batch (trap 44): then
a sample's path does not depend on who stands beside it. Momentum carries the path past small ripples of one model's
loss, which is what makes its points transfer to others. α = 1 / steps and μ = 1 as in Dong et al. 2018, Algorithm 1.
Cost of an item: steps + 1 forwards, `steps` backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.attack.losses import objective
from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.attack.steps import ascend, project, start
from saddlepoint.core.errors import InputError
from saddlepoint.spec.access import Access


@dataclass(frozen=True)
class State:
    """The last iterate, the momentum, and how many asks were answered."""

    rows: Rows
    x: Tensor
    momentum: Tensor
    asked: int


@dataclass(frozen=True)
class MIFGSM(Attack[State]):
    """`decay` is μ, `step_size` α in units of ε (None: 1 / steps)."""

    name: ClassVar[str] = "mi-fgsm"
    steps: int = 10
    decay: float = 1.0
    loss: str = "ce"
    step_size: float | None = None

    def __post_init__(self) -> None:
        objective(self.loss)
        if self.steps < 1:
            raise InputError(f"{self.steps} steps must be at least 1.")
        if not self.decay >= 0:
            raise InputError(f"a momentum of {self.decay} runs backwards.", "Choose 0 (none) or more; 1 is usual.")

    @property
    def forwards(self) -> int:
        return self.steps + 1

    @property
    def backwards(self) -> int:
        return self.steps

    def init(self, rows: Rows) -> tuple[State, Ask]:
        x = start(rows, random=False)
        return State(rows, x, torch.zeros_like(x), 0), self._ask(x, 0)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        rows, asked = state.rows, state.asked + 1
        if asked > self.steps:
            return state, None
        momentum = self.decay * state.momentum + normalised(answers.grad)
        alpha = 1 / self.steps if self.step_size is None else self.step_size
        x = project(rows, ascend(rows, state.x, momentum, alpha))
        return State(rows, x, momentum, asked), self._ask(x, asked)

    def _ask(self, x: Tensor, asked: int) -> Ask:
        if asked == self.steps:
            return Ask(x, Access.SCORES)
        return Ask(x, Access.GRADIENT, objective(self.loss), scale_free=True, values=False)


def normalised(g: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """g / ‖g‖₁ per row; 0 stays 0. The largest entry is scaled to 1 first, so tiny gradients do not underflow."""
    flat = g.flatten(1)
    flat = flat / flat.abs().amax(1, keepdim=True).clamp_min(torch.finfo(g.dtype).tiny)
    return (flat / flat.abs().sum(1, keepdim=True).clamp_min(torch.finfo(g.dtype).tiny)).reshape(g.shape)
