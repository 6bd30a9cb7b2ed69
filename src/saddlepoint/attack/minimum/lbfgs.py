"""Box-constrained L-BFGS: the first attack there was, on one smooth problem per constant.

    minimise over x in the box  F(x) = ‖x − x0‖₂² − c · u_t(x),   u_t = z_t − log Σ_{j≠t} exp z_j

Szegedy et al. 2013, §4.1 (c ‖r‖ + loss(x0 + r, t), x0 + r in the box, "the minimum c for which the minimiser is
adversarial"; here c stands before the loss). u_t is the targeted cross-entropy up to an increasing function that does
not saturate (losses.py); loss "margin" takes z_t − z_y in its place. Projected limited-memory BFGS:

    d = −H ∇F on the free coordinates (those the box does not hold against −∇F), H from the last `memory` pairs
    x(α) = clip(x + α d);   accept if F(x(α)) ≤ F(x) + 1e-4 <∇F(x), x(α) − x>, else α ← α / 2

H by the two-loop recursion (Nocedal & Wright, Algorithm 7.4) on all rows at once, pairs cut to the free coordinates
(Bertsekas 1982: with them all, −H ∇F need not descend once a bound is active). c starts where the linear model reaches
u = 0, c = −2 u / ‖∇u‖², and is searched per row (constant.py), each minimisation from the last one's end.
Cost of an item: at most constants × steps + 1 forwards and backwards; targets are the `count` likeliest classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from saddlepoint.attack.losses import objective
from saddlepoint.attack.minimum.common import ball, box, broken, likeliest
from saddlepoint.attack.minimum.constant import ConstantSearch, begin, finished
from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import L2
from saddlepoint.spec.access import Access

_ARMIJO = 1e-4
_SHORTEST = 2.0**-10  # a step shorter than this ends the minimisation
_FLAT = 1e-5  # as does a relative decrease below this
_GROWTH = 2.0
_CURVED = 1e-10


@dataclass(frozen=True)
class State:
    """The accepted point with u, ∇u and whether it breaks; the trial x + α d; pairs (b, memory, n), newest last."""

    rows: Rows
    x: Tensor
    value: Tensor
    slope: Tensor
    hit: Tensor
    way: Tensor
    alpha: Tensor
    trial: Tensor
    steps: Tensor
    changes: Tensor
    search: ConstantSearch
    asked: int


@dataclass(frozen=True)
class LBFGS(Attack[State]):
    """`steps` evaluations for each of `constants` values of c; `count` targets by clean logit."""

    name: ClassVar[str] = "lbfgs"
    minimum: ClassVar[bool] = True
    steps: int = 20
    constants: int = 10
    memory: int = 5
    count: int = 1
    loss: str = "ce"

    def __post_init__(self) -> None:
        objective(self.loss)
        if min(self.steps, self.constants, self.memory, self.count) < 1:
            raise InputError(
                f"{self.steps} steps, {self.constants} constants, {self.memory} pairs and {self.count} targets "
                "must be at least 1."
            )

    @property
    def forwards(self) -> int:
        return self.constants * self.steps + 1

    @property
    def backwards(self) -> int:
        return self.constants * self.steps + 1

    def targets(
        self, clean: Float[Tensor, "b k"], y: Int64[Tensor, " b"], slopes: Float[Tensor, "b k"] | None = None
    ) -> Int64[Tensor, "b t"]:
        """The `count` largest clean logits' classes without y, (b, min(count, K − 1))."""
        return likeliest(clean, y, self.count)

    def init(self, rows: Rows) -> tuple[State, Ask]:
        ball(rows, self.name, (L2,))
        flat = torch.zeros_like(rows.x0.flatten(1)[:, 0])
        zero = torch.zeros_like(rows.x0)
        pairs = torch.zeros_like(rows.x0.flatten(1))[:, None].repeat(1, self.memory, 1)
        hit = flat > 0
        state = State(rows, rows.x0, flat, zero, hit, zero, flat + 1, rows.x0, pairs, pairs, begin(flat, 1.0), -1)
        return state, self._ask(state)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        state = replace(state, asked=state.asked + 1)
        value = answers.loss.to(state.value.dtype).nan_to_num(nan=-torch.inf)
        if state.asked == 0:
            first = -2 * value / answers.grad.flatten(1).square().sum(1)
            usable = first.isfinite() & (first > 0)
            search = replace(state.search, c=torch.where(usable, first, 1.0))
            state = replace(state, value=value, slope=answers.grad, hit=broken(answers.margin), search=search)
            return self._go(_aimed(state, torch.ones_like(usable)))
        if state.asked >= self.constants * self.steps:
            return state, None
        state, fresh = self._judged(state, value, answers)
        return self._go(_aimed(state, fresh))

    def _go(self, state: State) -> tuple[State, Ask]:
        trial = torch.clamp(state.x + per_row(state.alpha, state.x) * state.way, *box(state.rows))
        state = replace(state, trial=trial)
        return state, self._ask(state)

    def _ask(self, state: State) -> Ask:
        return Ask(
            state.trial, Access.GRADIENT, objective(self.loss), done=state.search.ends(self.constants, self.steps)
        )

    def _judged(self, state: State, value: Tensor, answers: Answers) -> tuple[State, Tensor]:
        """Accept the trial or halve the step; next constant where nothing moves any more. And who needs a new way."""
        x, trial, search = state.x, state.trial, state.search
        before, slope_before = _total(state, x, state.value, state.slope)
        after, slope_after = _total(state, trial, value, answers.grad)
        s, change = (trial - x).flatten(1), (slope_after - slope_before).flatten(1)
        accepted = after <= before + _ARMIJO * (slope_before.flatten(1) * s).sum(1)  # NaN and inf are refused
        bends = accepted & ((s * change).sum(1) > _CURVED * change.square().sum(1))
        wide = per_row(accepted, x)
        hit = torch.where(accepted, broken(answers.margin), state.hit)
        flat = before - after <= _FLAT * torch.maximum(before.abs(), after.abs())
        step = search.step + 1
        over = (accepted & flat) | (~accepted & (state.alpha / 2 < _SHORTEST)) | (step >= self.steps)
        search = finished(replace(search, step=step, hit=hit), over, _GROWTH)
        forget = (~over)[:, None, None]  # the next F has another curvature
        state = replace(
            state,
            x=torch.where(wide, trial, x),
            value=torch.where(accepted, value, state.value),
            slope=torch.where(wide, answers.grad, state.slope),
            hit=hit,
            alpha=torch.where(accepted | over, 1.0, state.alpha / 2),
            steps=_push(state.steps, s, bends) * forget,
            changes=_push(state.changes, change, bends) * forget,
            search=search,
        )
        return state, accepted | over


def _total(state: State, x: Tensor, value: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """F and ∇F at x."""
    offset, c = x - state.rows.x0, state.search.c
    return offset.flatten(1).square().sum(1) - c * value, 2 * offset - per_row(c, x) * slope


def _aimed(state: State, fresh: Bool[Tensor, " b"]) -> State:
    """A new way for the rows that want one."""
    lower, upper = box(state.rows)
    _, g = _total(state, state.x, state.value, state.slope)
    free = ~(((state.x <= lower) & (g > 0)) | ((state.x >= upper) & (g < 0)))
    g = torch.where(free, g, 0).flatten(1)
    d = -_two_loops(g, *(pairs * free.flatten(1)[:, None] for pairs in (state.steps, state.changes)))
    d = torch.where(free.flatten(1), d, 0)
    uphill = ~((d * g).sum(1) < 0)
    d = torch.where(uphill[:, None], -g / 2, d)  # the Hessian of ‖x − x0‖² is 2
    return replace(state, way=torch.where(per_row(fresh, state.x), d.reshape(state.x.shape), state.way))


def _two_loops(g: Float[Tensor, "b n"], s: Float[Tensor, "b m n"], y: Float[Tensor, "b m n"]) -> Float[Tensor, "b n"]:
    """H g. Pairs without positive curvature are left out."""
    sy, yy = (s * y).sum(2), y.square().sum(2)
    usable = sy > _CURVED * yy
    rho = torch.where(usable, 1 / sy, 0)
    q, weights = g, []
    for i in reversed(range(s.shape[1])):
        weights.append(rho[:, i] * (s[:, i] * q).sum(1))
        q = q - weights[-1][:, None] * y[:, i]
    scale = torch.full_like(sy[:, 0], 0.5)
    for i in range(s.shape[1]):  # of the newest usable pair
        scale = torch.where(usable[:, i], sy[:, i] / yy[:, i], scale)
    r = scale[:, None] * q
    for i in range(s.shape[1]):
        back = rho[:, i] * (y[:, i] * r).sum(1)
        r = r + (weights[-1 - i] - back)[:, None] * s[:, i]
    return r


def _push(pairs: Tensor, new: Tensor, which: Tensor) -> Tensor:
    """Forget the oldest, append the new one, where asked."""
    return torch.where(which[:, None, None], torch.cat((pairs[:, 1:], new[:, None]), 1), pairs)
