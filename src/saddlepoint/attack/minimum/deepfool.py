"""DeepFool: walk to the nearest linearised class boundary until the label changes.

    r_k = the shortest way from x_i to {f_k(x_i) + <∇f_k(x_i), · − x_i> = 0} ∩ box,   f_k = z_k − z_y
    r_tot += the shortest r_k;   x_{i+1} = clip(x0 + (1 + overshoot) r_tot)

Moosavi-Dezfooli et al. 2016, Algorithm 2 (and §3.3 for other norms). There r_k has the length |f_k| / ‖∇f_k‖_* and x is
clipped afterwards; here the way itself ends at the data box. y is the label, not the prediction (trap 43). k runs over
the `candidates` largest clean logits, as in the published code. A row whose label changed looks, for `search` forwards,
for the smallest factor in place of 1 + overshoot (segment.py; 0: as published): the overshoot alone costs 2 % of the
size. An answer carries one gradient, so a step asks `candidates` times at one point; a Jacobian would save forwards.
Cost of an item: at most candidates × steps + 1 + search forwards, candidates × steps backwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from saddlepoint.attack.minimum.common import ball, box, broken, lead, likeliest, norm
from saddlepoint.attack.minimum.hyperplane import gap_to_boundary, way_to
from saddlepoint.attack.minimum.segment import Bracket, unit_bracket
from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import L1, L2, Linf
from saddlepoint.spec.access import Access
from saddlepoint.spec.goal import Targeted

_ARRIVED = 1 - 1e-4
_LAST = 1e12


@dataclass(frozen=True)
class State:
    """The way so far; the nearest boundary of this step; the search's bracket in units of the way, and what is left."""

    rows: Rows
    classes: Tensor  # (b, c) candidates
    x: Tensor
    way: Tensor
    nearest: Tensor  # the shortest way to a boundary among the candidates seen in this step, and its length
    length: Tensor
    bracket: Bracket
    left: Tensor  # steps of the search to go, −1 while the row still walks
    asked: int


@dataclass(frozen=True)
class DeepFool(Attack[State]):
    """`overshoot` beyond the last boundary; `search` steps shorten the way afterwards."""

    name: ClassVar[str] = "deepfool"
    minimum: ClassVar[bool] = True
    steps: int = 50
    candidates: int = 9
    overshoot: float = 0.02
    search: int = 3

    def __post_init__(self) -> None:
        if min(self.steps, self.candidates) < 1 or min(self.search, self.overshoot) < 0:
            raise InputError(
                f"{self.steps} steps and {self.candidates} candidates must be at least 1, "
                f"search {self.search} and overshoot {self.overshoot} at least 0."
            )

    @property
    def forwards(self) -> int:
        return self.candidates * self.steps + 1 + self.search

    @property
    def backwards(self) -> int:
        return self.candidates * self.steps

    def init(self, rows: Rows) -> tuple[State, Ask]:
        ball(rows, self.name, (Linf, L2, L1))
        clean = rows.clean
        if clean is None:
            raise InputError("these rows carry no clean logits.", "Run the attack through attack.engine.run.")
        zero, far = torch.zeros_like(rows.x0), torch.full_like(rows.x0.flatten(1)[:, 0], torch.inf)
        bracket = unit_bracket(rows.goal.margin(clean, rows.y), far)
        walks = torch.zeros_like(rows.y) - 1
        state = State(rows, self._candidates(rows, clean), rows.x0, zero, zero, far, bracket, walks, -1)
        return state, self._ask(state, broken(bracket.low_margin))

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        state = replace(state, asked=state.asked + 1)
        rank = state.asked % state.classes.shape[1]
        state = self._searched(state, answers.margin, rank)
        last = state.classes.shape[1] * self.steps
        if state.asked >= last + self.search:
            return state, None
        if state.asked < last:
            state = _nearest(state, answers, first=rank == 0)
            if rank + 1 == state.classes.shape[1]:
                walks = per_row(state.left < 0, state.way)
                state = replace(state, way=torch.where(walks, state.way + state.nearest, state.way))
        state = replace(state, x=self._point(state))
        # a row's last ask: the end of its search, or nothing left to walk
        over = (state.left <= 1) & ((state.left >= 0) | (state.asked >= last))
        return state, self._ask(state, over)

    def _candidates(self, rows: Rows, clean: Tensor) -> Tensor:
        """(b, c) classes, likeliest first; a targeted goal's class alone."""
        if isinstance(rows.goal, Targeted):
            return torch.full_like(rows.y, rows.goal.label)[:, None]
        return likeliest(clean, rows.y, self.candidates)

    def _ask(self, state: State, over: Tensor) -> Ask:
        """The next candidate's gradient at x; after the last step x is only looked at."""
        number, count = state.asked + 1, state.classes.shape[1]
        if number >= count * self.steps:
            return Ask(state.x, Access.SCORES, done=over)
        target = state.classes[:, number % count]
        return Ask(state.x, Access.GRADIENT, lead(state.rows), done=over, target=target)

    def _searched(self, state: State, value: Tensor, rank: int) -> State:
        """Rows that search narrow their bracket; rows that walk begin to search where a new point breaks."""
        searching = state.left > 0
        narrowed = state.bracket.after(value)
        fresh = (state.left < 0) & broken(value) if rank == 0 else torch.zeros_like(searching)
        left = torch.where(searching, state.left - 1, torch.where(fresh, self.search, state.left))
        opened = unit_bracket(state.bracket.low_margin, value.to(state.length.dtype))
        bracket = _choose(searching, narrowed, _choose(fresh, opened, state.bracket))
        return replace(state, left=left, bracket=bracket)

    def _point(self, state: State) -> Tensor:
        """x0 + s (1 + overshoot) r_tot inside the box: s = 1 while walking, then the search's."""
        rows = state.rows
        s = torch.where(state.left > 0, state.bracket.aim, 1.0)
        return torch.clamp(rows.x0 + per_row(s, state.way) * (1 + self.overshoot) * state.way, *box(rows))


def _nearest(state: State, answers: Answers, first: bool) -> State:
    """Keep the shortest way to a candidate's linearised boundary; one that the box cuts short comes last."""
    w, x = answers.grad, state.x
    gap = gap_to_boundary(x, answers.loss.nan_to_num(0.0), w, x)
    (r,) = way_to(state.rows, (x,), w, (gap,))
    arrives = (r * w).flatten(1).sum(1).abs() >= _ARRIVED * gap.abs()
    length = norm(state.rows, r)
    length = torch.where(length > 0, length * torch.where(arrives, 1.0, _LAST), torch.inf)  # 0: a dead gradient
    known, step = (torch.full_like(length, torch.inf), torch.zeros_like(r)) if first else (state.length, state.nearest)
    better = length < known
    nearest = torch.where(per_row(better, r), r, step)
    return replace(state, length=torch.where(better, length, known), nearest=nearest)


def _choose(which: Tensor, one: Bracket, other: Bracket) -> Bracket:
    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(which, a, b)

    return Bracket(
        pick(one.low, other.low),
        pick(one.low_margin, other.low_margin),
        pick(one.high, other.high),
        pick(one.high_margin, other.high_margin),
    )
