"""Exhaustive search of a lattice of parameters: rotation + translation, the reliable spatial attack.

    min over the lattice p_1, …, p_G of m(render(x0, p_i)),    G = angles · shifts²

Loss surfaces of rotations are rugged, so first-order search stops early where a grid does not (Engstrom et al.
2019, §4; 31 angles × 5 × 5 shifts there). The unmoved image comes first; then the lattice is visited in strides of
about 0.618 G, so neighbours in time are far apart in the set and weak samples fall early. Rows leave as they fall.
The witness is the lattice point itself. Needs scores only. Cost of an item: at most G + 1 forwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.attack.steps import unmoved
from saddlepoint.core.errors import NotAvailable
from saddlepoint.geometry import RotationTranslation
from saddlepoint.spec.access import Access


@dataclass(frozen=True)
class State:
    """How many points were asked: the unmoved image, then the lattice in its order."""

    rows: Rows
    asked: int


@dataclass(frozen=True)
class Grid(Attack[State]):
    """`angles` × `shifts` × `shifts` parameters, evenly spaced, ends included. Deterministic, so one restart."""

    name: ClassVar[str] = "grid"
    needs: ClassVar[Access] = Access.SCORES
    angles: int = 31
    shifts: int = 5

    @property
    def forwards(self) -> int:
        return self.angles * self.shifts**2 + 1

    @property
    def backwards(self) -> int:
        return 0

    def init(self, rows: Rows) -> tuple[State, Ask]:
        self._lattice(rows)  # refuses other sets before anything is asked
        return State(rows, 1), Ask(unmoved(rows), Access.SCORES)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        lattice = self._lattice(state.rows)
        if state.asked > len(lattice):
            return state, None
        point = lattice[(state.asked - 1) * stride(len(lattice)) % len(lattice)]
        params = point.to(state.rows.x0).expand(len(state.rows), -1).contiguous()
        return replace(state, asked=state.asked + 1), Ask(params, Access.SCORES)

    def _lattice(self, rows: Rows) -> Float[Tensor, "g 3"]:
        if not isinstance(rows.set, RotationTranslation):
            raise NotAvailable(
                f"{type(rows.set).__name__} has no grid of parameters.",
                "Use an attack on points: PGD, APGD, RandomSearch.",
            )
        return rows.set.params_grid(self.angles, self.shifts)


def stride(count: int) -> int:
    """A step near 0.618 count that is coprime to it, so that its multiples visit everything once.

    >>> sorted(i * stride(775) % 775 for i in range(775)) == list(range(775))
    True
    """
    step = max(1, round(0.618 * count))
    while math.gcd(step, count) != 1:
        step += 1
    return step
