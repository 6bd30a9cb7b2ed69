"""Auto-PGD: projected ascent with momentum and a step size that halves itself when progress stalls.

    z     = P_S(x_i + η ε d(g_i))
    x_i+1 = P_S(x_i + a (z − x_i) + (1 − a)(x_i − x_{i−1})),   a = 1 at i = 0, else 0.75;   η_0 = 2

At the checkpoints w_j = ⌈p_j N⌉, p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06), a row halves η
and goes back to its best point (with the gradient there) if
    1. f(x_{i+1}) > f(x_i) in at most 0.75 of the window's steps, f(x_0) counted like any other, or
    2. η was not halved at the last checkpoint and the best loss has not grown since.
Croce & Hein 2020, Algorithm 1 and §3; ball ∩ box is projected onto in one map instead of ball, then box.
Start: ε·t / max|t| with t uniform (ℓ∞), ε on the sphere (ℓ2), uniform on the set otherwise. ℓ1 has steps and a
schedule of its own: apgd_l1.py.
Cost of an item: steps + 1 forwards (one more with polish, see pgd.py), `steps` backwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from saddlepoint.attack.fixed.apgd_l1 import SparseState, SparseSteps, balls
from saddlepoint.attack.losses import objective
from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.attack.steps import ascend, extreme_start, project
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.geometry import L1
from saddlepoint.spec.access import Access

_RHO = 0.75
_MOMENTUM = 0.75


@dataclass(frozen=True)
class State:
    """Per row: the path (x, previous x, gradient at x), the best of it, and what the schedule counts."""

    rows: Rows
    x: Tensor
    before: Tensor
    grad: Tensor
    best: Tensor
    best_grad: Tensor
    best_loss: Tensor
    loss: Tensor  # of the last answer
    eta: Tensor  # step in units of ε
    rises: Tensor  # increases of the loss in this window
    halved: Tensor  # at the last checkpoint
    checked: Tensor  # best loss at the last checkpoint
    asked: int


@dataclass(frozen=True)
class APGD(Attack[State | SparseState]):
    """loss: a name of losses.py; `polish` adds the Frank–Wolfe vertex of the best point's gradient.

    `large_radii`, for ℓ1 only, searches the balls of 3ε and 2ε first.
    """

    name: ClassVar[str] = "apgd"
    steps: int = 100
    restarts: int = 1
    loss: str = "ce"
    polish: bool = False
    large_radii: bool = False

    def __post_init__(self) -> None:
        objective(self.loss)  # an unknown name is refused here rather than in the middle of a run
        if self.steps < 1 or self.restarts < 1:
            raise InputError(f"{self.steps} steps and {self.restarts} restarts must be at least 1.")

    @property
    def forwards(self) -> int:
        return self.steps + len(balls(self.steps, self.large_radii)) + self.polish

    @property
    def backwards(self) -> int:
        return self.steps

    @property
    def stream(self) -> str:
        return f"{self.name}-{self.loss}"

    def init(self, rows: Rows) -> tuple[State | SparseState, Ask]:
        if isinstance(rows.set, L1):
            return self._sparse.init(rows)
        if self.large_radii:
            raise NotAvailable(
                f"large radii belong to the ℓ1 schedule, not to {type(rows.set).__name__}.", "Leave large_radii False."
            )
        x = extreme_start(rows)
        lowest = torch.full(x.shape[:1], -torch.inf, dtype=torch.float64, device=x.device)
        zero = torch.zeros_like(rows.y)
        no = zero.to(torch.bool)
        eta = torch.full_like(lowest, 2.0, dtype=x.dtype)
        state = State(rows, x, x, x, x, torch.zeros_like(x), lowest, lowest, eta, zero, no, lowest, -1)
        return state, self._ask(x, 0)

    def step(self, state: State | SparseState, answers: Answers) -> tuple[State | SparseState, Ask | None]:
        if isinstance(state, SparseState):
            return self._sparse.step(state, answers)
        asked = state.asked + 1
        if asked == self.steps + 1:
            return state, None
        if asked == self.steps:
            if not self.polish:
                return state, None
            x = state.rows.set.lmo(state.rows.x0, state.best_grad)
            return replace(state, x=x, asked=asked), Ask(x, Access.SCORES)
        state = _note(replace(state, asked=asked, grad=answers.grad), answers.loss)
        window = self.windows.get(asked)
        if window is not None:
            state = _check(state, window)
        x = _move(state)
        return replace(state, x=x, before=state.x), self._ask(x, asked + 1)

    @property
    def _sparse(self) -> SparseSteps:
        """The step rule for ℓ1."""
        return SparseSteps(balls(self.steps, self.large_radii), objective(self.loss), self.polish)

    @property
    def windows(self) -> dict[int, int]:
        """Checkpoint → length of the window that ends there."""
        ends = checkpoints(self.steps)
        return {end: end - begin for begin, end in zip((0, *ends), ends, strict=False)}

    def _ask(self, x: Tensor, asked: int) -> Ask:
        if asked == self.steps:
            return Ask(x, Access.SCORES)
        return Ask(x, Access.GRADIENT, objective(self.loss), scale_free=True)


def checkpoints(steps: int) -> tuple[int, ...]:
    """w_1, w_2, … ≤ steps.

    >>> checkpoints(100)
    (22, 41, 57, 70, 80, 87, 93, 99)
    """
    before, p, ends = 0, 22, []  # in hundredths: ⌈0.41 · 100⌉ must not become 42 by rounding
    while p <= 100:
        ends.append(-(-p * steps // 100))
        before, p = p, p + max(p - before - 3, 6)
    return tuple(sorted(set(ends)))


def _note(state: State, loss: Tensor) -> State:
    """Count a rise against the point before, and keep the best point with its gradient. NaN is never better."""
    better = loss > state.best_loss
    wide = per_row(better, state.x)
    first = state.asked == 0
    return replace(
        state,
        loss=loss,
        rises=state.rises if first else state.rises + (loss > state.loss),
        best=torch.where(wide, state.x, state.best),
        best_grad=torch.where(wide, state.grad, state.best_grad),
        best_loss=torch.where(better, loss, state.best_loss),
        checked=loss.nan_to_num(nan=-torch.inf) if first else state.checked,
    )


def _check(state: State, window: int) -> State:
    """Halve the step of the rows that stall, and put them back on their best point."""
    stalls = state.rises <= _RHO * window
    stands = ~state.halved & (state.best_loss <= state.checked)
    halve = stalls | stands
    wide = per_row(halve, state.x)
    return replace(
        state,
        eta=torch.where(halve, state.eta / 2, state.eta),
        x=torch.where(wide, state.best, state.x),
        grad=torch.where(wide, state.best_grad, state.grad),
        rises=torch.zeros_like(state.rises),
        halved=halve,
        checked=state.best_loss,
    )


def _move(state: State) -> Tensor:
    """One step with momentum; both points are projected."""
    rows, x = state.rows, state.x
    z = project(rows, ascend(rows, x, state.grad, per_row(state.eta, x)))
    if state.asked == 0:
        return z
    # x + a (z − x) + (1 − a)(x − before)
    return project(rows, x + _MOMENTUM * (z - x) + (1 - _MOMENTUM) * (x - state.before))
