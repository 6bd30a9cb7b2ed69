"""Auto-PGD for ℓ1: the number of coordinates that a step moves follows how sparse the best point is.

    x_i+1 = P_S(x_i + η sign(g) 1[|g| among the k largest] / k),    S = ℓ1 ball ∩ box, projected onto exactly

    every w = max(⌊0.04 N⌋, 1) steps:   k ← max(1, ⌈‖x_best − x0‖₀ / 1.5⌉)
        if ‖x_best − x0‖₀ < 0.95 of what it was at the last checkpoint:   η ← ε and back to x_best
        else                                                              η ← max(η / 1.5, ε / 10)

η_0 = ε, k_0 = 20 % of the coordinates, and the count that the first checkpoint compares with is all of them. There is
no momentum. Why: the steepest ℓ1 step moves one coordinate, but inside a box that coordinate saturates at once; how
many of them a good step needs grows with ε and is learnt on the way. Ties at the k-th largest |g| all move. A row whose
k largest |g| all sit at the walls of the box takes the k largest of the others: it would stand still for good.
Large radii: N steps are shared by balls of 3ε, 2ε and ε, 30 : 30 : 40; each starts at the best point of the one
before, projected, with k and the count taken from there. Points outside S never count as found.
Start: x0 plus standard normal noise, projected.
Croce & Hein 2021, "Mind the box", Algorithm 1, §3 and §4; APGD and APGDTargeted (apgd.py) use it whenever S is ℓ1.
Cost of an item: steps + one forward per radius (one more with polish), `steps` backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.attack.protocol import Answers, Ask
from saddlepoint.attack.rows import Rows
from saddlepoint.core.arithmetic import per_row
from saddlepoint.geometry import L1
from saddlepoint.spec.access import Access

_FIRST_SHARE = 0.2
_SPARSER = 0.95
_FACTOR = 1.5  # of both k and η
_FLOOR = 0.1  # of ε
_EATEN = 0.01  # of a coordinate's step: with less room than that it is at the wall (projections round away from it)
_LARGE = ((3, 30), (2, 30), (1, 40))  # radius in ε, per cent of the steps


@dataclass(frozen=True)
class SparseState:
    """Per row: the point, the best of this ball, η in ε, k, non-zeros at the last checkpoint. `asked`: in this ball."""

    rows: Rows
    x: Tensor
    best: Tensor
    best_grad: Tensor
    best_loss: Tensor
    eta: Tensor
    k: Tensor
    support: Tensor
    ball: int
    asked: int


@dataclass(frozen=True)
class SparseSteps:
    """`balls`: (radius in ε, number of steps), in order."""

    balls: tuple[tuple[int, int], ...]
    loss: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    polish: bool

    def init(self, rows: Rows) -> tuple[SparseState, Ask]:
        """A point of the first ball."""
        noise = rows.random.normal(rows.x0.shape[1:], dtype=rows.x0.dtype)
        size = torch.full_like(rows.y, rows.x0[0].numel())
        x = _ball(rows, self.balls[0][0]).project(rows.x0, rows.x0 + noise)
        first = (_FIRST_SHARE * size).ceil().to(size.dtype)
        return self._begin(rows, x, (first, size), 0)

    def step(self, state: SparseState, answers: Answers) -> tuple[SparseState, Ask | None]:
        """Move within the ball, or on to the next one."""
        steps = self.balls[state.ball][1]
        if state.asked > steps:
            return state, None  # the vertex was looked at
        last = state.ball == len(self.balls) - 1
        if state.asked == steps and last:
            if not self.polish:
                return state, None
            x = state.rows.set.lmo(state.rows.x0, state.best_grad)
            return replace(state, x=x, asked=steps + 1), Ask(x, Access.SCORES)
        if state.asked == steps:
            return self._next_ball(_note(state, answers.loss, state.best_grad))
        grad = answers.grad
        state = _note(state, answers.loss, grad)
        x, window = state.x, max(steps * 4 // 100, 1)
        if state.asked and state.asked % window == 0:
            state, sparser = _check(state)
            x, grad = torch.where(sparser, state.best, x), torch.where(sparser, state.best_grad, grad)
        ball = _ball(state.rows, self.balls[state.ball][0])
        x = ball.project(state.rows.x0, x + _sparse_step(ball, state, grad))
        state = replace(state, x=x, asked=state.asked + 1)
        return state, self._ask(state)

    def _next_ball(self, state: SparseState) -> tuple[SparseState, Ask]:
        rows = state.rows
        x = _ball(rows, self.balls[state.ball + 1][0]).project(rows.x0, state.best)
        support = _support(rows, x)
        return self._begin(rows, x, (_wanted(support), support), state.ball + 1)

    def _begin(self, rows: Rows, x: Tensor, counts: tuple[Tensor, Tensor], ball: int) -> tuple[SparseState, Ask]:
        lowest = torch.full(x.shape[:1], -torch.inf, dtype=torch.float64, device=x.device)
        eta = torch.ones_like(lowest, dtype=x.dtype)
        state = SparseState(rows, x, x, torch.zeros_like(x), lowest, eta, *counts, ball, 0)
        return state, self._ask(state)

    def _ask(self, state: SparseState) -> Ask:
        """The last point of a ball is looked at, and measured where another ball starts from the best one."""
        if state.asked < self.balls[state.ball][1]:
            return Ask(state.x, Access.GRADIENT, self.loss, scale_free=True)
        return Ask(state.x, Access.SCORES, self.loss if state.ball < len(self.balls) - 1 else None)


def balls(steps: int, large: bool) -> tuple[tuple[int, int], ...]:
    """(radius in ε, steps) of the balls that have any.

    >>> balls(100, large=True)
    ((3, 30), (2, 30), (1, 40))
    """
    if not large:
        return ((1, steps),)
    counts = [(radius, steps * share // 100) for radius, share in _LARGE[:-1]]
    counts.append((1, steps - sum(n for _, n in counts)))
    return tuple((radius, n) for radius, n in counts if n)


def _ball(rows: Rows, radius: int) -> Any:
    """The rows' ball, `radius` times as large."""
    if not isinstance(rows.set, L1) or radius == 1:
        return rows.set
    return rows.set.resized(rows.set.size * radius)


def _note(state: SparseState, loss: Tensor, grad: Tensor) -> SparseState:
    """Keep the best point of this ball with its gradient. NaN is never better."""
    better = loss > state.best_loss
    wide = per_row(better, state.x)
    return replace(
        state,
        best=torch.where(wide, state.x, state.best),
        best_grad=torch.where(wide, grad, state.best_grad),
        best_loss=torch.where(better, loss.to(state.best_loss.dtype), state.best_loss),
    )


def _check(state: SparseState) -> tuple[SparseState, Tensor]:
    """The next k and η, and which rows became sparser (ready to broadcast)."""
    support = _support(state.rows, state.best)
    sparser = support < _SPARSER * state.support
    eta = torch.where(sparser, 1.0, (state.eta / _FACTOR).clamp_min(_FLOOR))
    return replace(state, eta=eta, k=_wanted(support), support=support), per_row(sparser, state.x)


def _support(rows: Rows, x: Tensor) -> Tensor:
    """‖x − x0‖₀."""
    return (x != rows.x0).flatten(1).sum(1)


def _wanted(support: Tensor) -> Tensor:
    return (support / _FACTOR).ceil().to(support.dtype).clamp_min(1)


def _sparse_step(ball: Any, state: SparseState, grad: Tensor) -> Float[Tensor, "b ..."]:
    """η on the k largest |g| of each row, shared evenly by them."""
    size = ball.size if isinstance(ball.size, Tensor) else torch.tensor(float(ball.size))
    length = state.eta * size.to(grad)
    flat, x = grad.flatten(1), state.x
    top = _largest(flat.abs(), state.k)
    if ball.box is not None:
        lower, upper = ball.box.limits(grad)
        room = torch.where(grad > 0, upper - x, x - lower).flatten(1)
        free = room > (_EATEN * length / state.k)[:, None]
        stuck = ~(top & free).any(1)  # all k of them at the walls: no gradient would ever get this row off again
        if bool(stuck.any()):
            top = torch.where(stuck[:, None], _largest(flat.abs() * free, state.k) & free, top)
    moved = torch.where(top, flat.sign(), 0)
    return (moved * (length / moved.abs().sum(1).clamp_min(1))[:, None]).reshape(grad.shape)


def _largest(weight: Tensor, k: Tensor) -> Tensor:
    """The k largest of each row, and their ties. As many are sorted as the densest row needs: none depends on that."""
    top = weight.topk(int(k.max()), dim=1).values
    return weight >= top.gather(1, k[:, None] - 1)
