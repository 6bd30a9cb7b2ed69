"""Carlini–Wagner, ℓ2: the perturbation and a hinge on the margin in one objective, the box by a change of variables.

    minimise over w   ‖x(w) − x0‖₂² + c · max(m(x(w)), −κ),   x(w) = lower + (upper − lower) (1 + tanh w) / 2

m is the margin under the goal, max_{j≠y} taken over the others alone (−∞ in y's place: the 0 of a product with a mask
wins where all others are negative, trap 37). Adam on w; c by search per row (constant.py).
w starts at artanh((1 − 1e-6) u), u the position of x0 in the box from −1 to 1: artanh(±1) would hold black and white
pixels for good (trap 38). There ∂x/∂w is 1e-6, so Adam's ε is far below its usual 1e-8, which would do the same.
Carlini & Wagner 2017, §V-A to V-D and §VI-A.
Cost of an item: at most constants × steps forwards and backwards; rows that stall leave a constant early.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from saddlepoint.attack.minimum.common import ball, box
from saddlepoint.attack.minimum.constant import ConstantSearch, begin, counted
from saddlepoint.attack.protocol import Answers, Ask, Attack, Objective
from saddlepoint.attack.rows import Rows
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.geometry import L2
from saddlepoint.spec.access import Access

_INSIDE = 1 - 1e-6
_FIRST, _SECOND, _EPS = 0.9, 0.999, 1e-12  # Adam's


@dataclass(frozen=True)
class State:
    """w and Adam's moments, the start that every constant goes back to, and the search."""

    rows: Rows
    w: Tensor
    start: Tensor
    first: Tensor
    second: Tensor
    search: ConstantSearch
    asked: int


@dataclass(frozen=True)
class CarliniWagner(Attack[State]):
    """`rate`: Adam's; `constants`: how many c are tried, from `constant` on; `kappa`: the confidence asked for."""

    name: ClassVar[str] = "cw"
    minimum: ClassVar[bool] = True
    steps: int = 1000
    constants: int = 9
    constant: float = 1e-3
    rate: float = 0.01
    kappa: float = 0.0

    def __post_init__(self) -> None:
        if min(self.steps, self.constants) < 1:
            raise InputError(f"{self.steps} steps and {self.constants} constants must be at least 1.")
        if not min(self.constant, self.rate) > 0 or self.kappa < 0:
            raise InputError(
                f"constant {self.constant} and rate {self.rate} must be above 0, kappa {self.kappa} at least 0."
            )

    @property
    def forwards(self) -> int:
        return self.constants * self.steps

    @property
    def backwards(self) -> int:
        return self.constants * self.steps

    def init(self, rows: Rows) -> tuple[State, Ask]:
        ball(rows, self.name, (L2,))
        lower, upper = box(rows)
        if not bool((lower.isfinite() & upper.isfinite()).all()):
            raise NotAvailable(f"{self.name} needs a bounded box: tanh maps onto it.", "Use ddn or fmn.")
        place = 2 * (rows.x0 - lower) / torch.where(upper > lower, upper - lower, 1) - 1
        w = torch.atanh(_INSIDE * place)
        zero = torch.zeros_like(w)
        state = State(rows, w, w, zero, zero, begin(zero.flatten(1)[:, 0], self.constant), 0)
        return state, self._ask(state)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        if state.asked + 1 >= self.constants * self.steps:
            return state, None
        rows, t = state.rows, state.search.step + 1
        offset = _points(state) - rows.x0
        c = state.search.c
        loss = offset.flatten(1).square().sum(1) - c * answers.loss
        lower, upper = box(rows)
        slope = (2 * offset - per_row(c, offset) * answers.grad) * ((upper - lower) / 2 * (1 - state.w.tanh().square()))
        first = torch.lerp(slope, state.first, _FIRST)
        second = torch.lerp(slope.square(), state.second, _SECOND)
        scale = per_row(self.rate / (1 - _FIRST**t), offset)
        w = state.w - scale.to(first.dtype) * first / ((second / per_row(1 - _SECOND**t, second)).sqrt() + _EPS)
        search, over = counted(state.search, answers.loss >= self.kappa, loss, self.steps, max(1, self.steps // 10))
        wide = per_row(over, w)
        state = State(
            rows,
            w=torch.where(wide, state.start, w),
            start=state.start,
            first=torch.where(wide, 0, first),
            second=torch.where(wide, 0, second),
            search=search,
            asked=state.asked + 1,
        )
        return state, self._ask(state)

    def _ask(self, state: State) -> Ask:
        done = state.search.ends(self.constants, self.steps)
        return Ask(_points(state), Access.GRADIENT, hinge(state.rows, self.kappa), done=done)


def hinge(rows: Rows, kappa: float) -> Objective:
    """min(−m, κ): to be maximised, and flat once the goal is reached with margin κ."""
    return lambda z, y, target: (-rows.goal.margin(z, y)).clamp_max(kappa)


def _points(state: State) -> Tensor:
    """x(w)."""
    lower, upper = box(state.rows)
    return torch.clamp(lower + (upper - lower) * ((1 + state.w.tanh()) / 2), lower, upper)
