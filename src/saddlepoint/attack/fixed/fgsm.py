"""The fast gradient sign method, for every set: the maximiser of the loss's linearisation at x0.

    x = argmax over z in S(x0) of <∇ loss(x0), z>           ℓ∞: x0 + ε sign ∇ loss(x0), cut to the data box

Goodfellow, Shlens & Szegedy 2015, eq. 1; in other norms the same question has other answers (`set.lmo`), the data box
counted in. Exact where the loss is affine over S; a model that only FGSM fails to break may simply be bent (BIM, PGD).
Cost of an item: 2 forwards, 1 backward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from saddlepoint.attack.losses import objective
from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.attack.steps import start
from saddlepoint.spec.access import Access


@dataclass(frozen=True)
class State:
    """Whether the gradient came already."""

    rows: Rows
    x: Tensor
    moved: bool


@dataclass(frozen=True)
class FGSM(Attack[State]):
    """One linear step. Deterministic, so one restart."""

    name: ClassVar[str] = "fgsm"
    loss: str = "ce"

    def __post_init__(self) -> None:
        objective(self.loss)

    @property
    def forwards(self) -> int:
        return 2

    @property
    def backwards(self) -> int:
        return 1

    def init(self, rows: Rows) -> tuple[State, Ask]:
        x = start(rows, random=False)
        ask = Ask(x, Access.GRADIENT, objective(self.loss), scale_free=True, values=False)
        return State(rows, x, False), ask

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        if state.moved:
            return state, None
        x = state.rows.set.lmo(state.rows.x0, answers.grad)
        return replace(state, x=x, moved=True), Ask(x, Access.SCORES)
