"""What breaks a sample at one size breaks it at every larger one: S_ε(x0) ⊂ S_ε'(x0) for ε ≤ ε'.

    x' in S_ε(x0), m(x') ≤ 0   ⟹   m* ≤ m(x') ≤ 0 under every threat of the family with ε' ≥ ε

So a curve over sizes pays for a fallen sample once. The rows are copied with their witness and without their cost;
the checker replays them under the larger threat like any other. Only such rows travel: a margin above 0 found at ε is a
weak bound at ε', where the attack itself should look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from saddlepoint.spec import Cost, Evidence, Threat


def smallest_first(threats: Sequence[Threat]) -> list[Threat]:
    """Families in their order, sizes of a family ascending."""
    families: dict[str, list[Threat]] = {}
    for threat in threats:
        families.setdefault(repr(_family(threat)), []).append(threat)
    return [threat for family in families.values() for threat in sorted(family, key=_size)]


def larger(threat: Threat, threats: Sequence[Threat]) -> list[Threat]:
    """The other threats that differ from this one by a larger size alone."""
    if not isinstance(threat.set.size, Fraction):
        return []
    return [t for t in threats if _family(t) == _family(threat) and _size(t) > _size(threat)]


def carried(rows: Sequence[Evidence], to: Threat) -> list[Evidence]:
    """The rows that show a fall, as evidence under the larger threat."""
    text = to.canonical()
    fell = (row for row in rows if row.side == "upper" and row.status == "checked" and row.value <= 0)
    return [replace(row, threat=text, cost=Cost()) for row in fell]


def _family(threat: Threat) -> tuple[Any, ...]:
    described = {key: value for key, value in threat.set.canonical().items() if key != "size"}
    return described, threat.access, threat.queries, threat.goal


def _size(threat: Threat) -> Fraction:
    size = threat.set.size
    return size if isinstance(size, Fraction) else Fraction(0)
