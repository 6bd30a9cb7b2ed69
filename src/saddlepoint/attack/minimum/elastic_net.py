"""EAD: elastic-net perturbations, sparse ones among them, by iterative shrinkage.

    minimise  c · max(m(x), −κ) + β ‖x − x0‖₁ + ‖x − x0‖₂²   over x in the box

    x_{k+1} = S_β(y_k − α_k ∇g(y_k)),   y_{k+1} = x_{k+1} + k / (k + 3) · (x_{k+1} − x_k),   α_k = α_0 √(1 − k / steps)
    S_β(z) = x0 where |z − x0| ≤ β, else z ∓ β, cut by the box

g is all but the ℓ1 term. Chen et al. 2018, eq. 5 to 8 and Algorithm 1 (FISTA; `momentum` False is ISTA, y = x). c by
search per row (constant.py). There y gives the gradient and x is judged, two forwards; here y, cut by the box, is both:
it is as sparse as x_k and x_{k+1} together. The paper's decision rule says by which norm the best point is chosen: here
it is the set's, so L1(…) is the rule "L1".
Cost of an item: at most constants × steps forwards and backwards; rows that stall leave a constant early.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from saddlepoint.attack.minimum.carlini_wagner import hinge
from saddlepoint.attack.minimum.common import ball, box
from saddlepoint.attack.minimum.constant import ConstantSearch, begin, counted
from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import L1, L2
from saddlepoint.spec.access import Access


@dataclass(frozen=True)
class State:
    """x_k, the point y_k that is asked, and the search."""

    rows: Rows
    x: Tensor
    y: Tensor
    search: ConstantSearch
    asked: int


@dataclass(frozen=True)
class EAD(Attack[State]):
    """`beta`: weight of the ℓ1 part, `rate`: α_0; `constants`: how many c are tried, from `constant` on."""

    name: ClassVar[str] = "ead"
    minimum: ClassVar[bool] = True
    steps: int = 1000
    constants: int = 9
    constant: float = 1e-3
    beta: float = 1e-3
    rate: float = 0.01
    kappa: float = 0.0
    momentum: bool = True

    def __post_init__(self) -> None:
        if min(self.steps, self.constants) < 1:
            raise InputError(f"{self.steps} steps and {self.constants} constants must be at least 1.")
        if not min(self.constant, self.rate) > 0 or min(self.beta, self.kappa) < 0:
            raise InputError(
                f"constant {self.constant} and rate {self.rate} must be above 0, "
                f"beta {self.beta} and kappa {self.kappa} at least 0."
            )

    @property
    def forwards(self) -> int:
        return self.constants * self.steps

    @property
    def backwards(self) -> int:
        return self.constants * self.steps

    def init(self, rows: Rows) -> tuple[State, Ask]:
        ball(rows, self.name, (L1, L2))
        flat = torch.zeros_like(rows.x0.flatten(1)[:, 0])
        state = State(rows, rows.x0, rows.x0, begin(flat, self.constant), 0)
        return state, self._ask(state)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        if state.asked + 1 >= self.constants * self.steps:
            return state, None
        x0, search = state.rows.x0, state.search
        k, offset = search.step.to(state.x.dtype), state.y - x0
        flat = offset.flatten(1)
        loss = flat.square().sum(1) + self.beta * flat.abs().sum(1) - search.c * answers.loss
        slope = 2 * offset - per_row(search.c, offset) * answers.grad
        alpha = self.rate * (1 - k / self.steps).clamp_min(0).sqrt()
        moved = torch.nn.functional.softshrink(offset - per_row(alpha, offset) * slope, self.beta)
        lower, upper = box(state.rows)
        x = torch.clamp(x0 + moved, lower, upper)
        pull = per_row(k / (k + 3), x) if self.momentum else 0.0
        y = torch.clamp(x + pull * (x - state.x), lower, upper)
        search, over = counted(search, answers.loss >= self.kappa, loss, self.steps, max(1, self.steps // 10))
        wide = per_row(over, x)
        state = State(state.rows, torch.where(wide, x0, x), torch.where(wide, x0, y), search, state.asked + 1)
        return state, self._ask(state)

    def _ask(self, state: State) -> Ask:
        done = state.search.ends(self.constants, self.steps)
        return Ask(state.y, Access.GRADIENT, hinge(state.rows, self.kappa), done=done)
