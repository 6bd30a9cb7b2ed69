"""Random search: `tries` independent points of the set, or of its parameters.

    min over i < tries of m(x_i),   x_i ~ set.sample(x0)

The weakest honest attack and the baseline of every other: what chance alone finds. Needs scores only, no
gradients; works on every set that can be sampled, parametric ones (rotation + translation) included.
Cost of an item: `tries` forwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.core.rng import Draws
from saddlepoint.spec.access import Access

_ODD = 0x9E3779B97F4A7C15 >> 1  # spreads the try's number over the key; any constant keeps keys distinct


@dataclass(frozen=True)
class State:
    """How many points were asked."""

    rows: Rows
    asked: int


@dataclass(frozen=True)
class RandomSearch(Attack[State]):
    """`tries` points per restart."""

    name: ClassVar[str] = "random"
    needs: ClassVar[Access] = Access.SCORES
    tries: int = 100
    restarts: int = 1

    @property
    def forwards(self) -> int:
        return self.tries

    @property
    def backwards(self) -> int:
        return 0

    def init(self, rows: Rows) -> tuple[State, Ask]:
        return State(rows, 1), Ask(_point(rows, 0), Access.SCORES)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        if state.asked >= self.tries:
            return state, None
        return replace(state, asked=state.asked + 1), Ask(_point(state.rows, state.asked), Access.SCORES)


def _point(rows: Rows, number: int) -> Tensor:
    """The row's point of that number: its key is the row's key xor a function of the number."""
    keys = rows.random.keys ^ (number * _ODD % 2**63)
    return rows.set.sample(rows.x0, Draws(keys))
