"""The fold: evidence about one sample → one bracket and one verdict.

    lower = max of checked lower bounds ≤ m* ≤ min of checked upper bounds = upper

max and min are commutative, associative and idempotent, hence so is the fold: evidence from two runs,
machines or people merges by union. Only checked rows count. `lower > upper` can never be true of m*, so it
is a verdict of its own; if the witness's margin in float64 does agree with the proof, the two
differ by the rounding of the deployed network only: a numerical tie, OPEN if the two fall on both sides of 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from saddlepoint.spec.evidence import Evidence

CLEAN = "clean"  # the method whose witness is the sample itself


class Verdict(StrEnum):
    """What is known of one sample under one threat."""

    CERTIFIED = "CERTIFIED"
    BROKEN = "BROKEN"
    OPEN = "OPEN"
    MISCLASSIFIED = "MISCLASSIFIED"
    NOT_RUN = "NOT_RUN"
    ERROR = "ERROR"
    CONTRADICTION = "CONTRADICTION"


@dataclass(frozen=True, slots=True)
class Bracket:
    """lower ≤ m* ≤ upper (None: nothing known on that side) and the rows that say so."""

    verdict: Verdict
    lower: Evidence | None = None
    upper: Evidence | None = None
    tie: bool = False
    failure_probability: float = 0.0
    """That some row of this sample does not hold: the best of many rows may be the one that does not, so all count."""

    @property
    def by(self) -> str:
        """The method that decided, or that holds the best upper bound so far."""
        row = self.lower if self.verdict is Verdict.CERTIFIED else self.upper or self.lower
        return row.method.name if row else ""


def fold(rows: Iterable[Evidence], failed: bool = False) -> Bracket:
    """Fold the margin rows of one subject under one threat. `failed`: some method crashed on it."""
    rows = [row for row in rows if row.status == "checked" and row.quantity == "margin"]
    risky = {row.key: row.failure_probability for row in rows if row.failure_probability > 0}  # a repeated row is one
    bracket = _folded(rows, failed)
    return replace(bracket, failure_probability=sum(sorted(risky.values()))) if risky else bracket


def _folded(rows: list[Evidence], failed: bool) -> Bracket:
    # ties are broken by key so that the order of the rows never shows
    lower = max((r for r in rows if r.side == "lower"), key=lambda r: (r.value, r.key), default=None)
    upper = min((r for r in rows if r.side == "upper"), key=lambda r: (r.value, r.key), default=None)
    clean = min((r.value for r in rows if r.side == "upper" and r.method.name == CLEAN), default=None)
    crossed = [r for r in rows if r.side == "upper" and lower is not None and r.value < lower.value]
    if lower is not None and any(_real_margin(r) < lower.value for r in crossed):
        return Bracket(Verdict.CONTRADICTION, lower, upper)
    tie = bool(crossed)
    if tie and upper and lower and upper.value <= 0 < lower.value:
        verdict = Verdict.OPEN
    elif clean is not None and clean <= 0:
        verdict = Verdict.MISCLASSIFIED
    elif upper and upper.value <= 0:
        verdict = Verdict.BROKEN
    elif lower and lower.value > 0 and clean is not None:
        # a proof speaks of the real-valued network; that the deployed one answers at x0 must have been seen
        verdict = Verdict.CERTIFIED
    elif failed:
        verdict = Verdict.ERROR
    else:
        verdict = Verdict.OPEN if upper or lower else Verdict.NOT_RUN
    return Bracket(verdict, lower, upper, tie)


def _real_margin(row: Evidence) -> float:
    """The witness's margin in float64 plus its error bound, or −∞ where it was not measured."""
    return float(json.loads(row.details).get("margin_f64_upper", float("-inf")))
