"""Counts behind a judgement, their exact limits, and how many more would decide.

A tally is a bracket of a proportion: at least `certified` of n hold, at most `attacked` of n do. Its limits are the
lower Clopper–Pearson limit of the one and the upper limit of the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from saddlepoint.check.counts import clopper_pearson
from saddlepoint.ledger.claims import Claim, Interval
from saddlepoint.spec.bracket import Verdict

_MOST = 10_000_000  # no advice asks for more samples than this


@dataclass(frozen=True)
class Tally:
    """certified ≤ number that hold ≤ attacked, of n; `open` of those between are OPEN."""

    certified: int
    attacked: int
    n: int
    open: int = 0
    confidence: float = 0.95
    name: str = ""

    @property
    def limits(self) -> Interval:
        """(lower limit of certified, upper limit of attacked)."""
        return self._low(self.certified), self._high(self.attacked)

    @property
    def certified_share(self) -> float:
        """certified / n; 0 when there is nothing."""
        return self.certified / self.n if self.n else 0.0

    @property
    def attacked_share(self) -> float:
        """attacked / n; 1 when there is nothing."""
        return self.attacked / self.n if self.n else 1.0

    @property
    def if_open_hold(self) -> float:
        """The lower limit, were every OPEN sample certified."""
        return self._low(self.certified + self.open)

    @property
    def if_open_break(self) -> float:
        """The upper limit, were every OPEN sample broken."""
        return self._high(self.attacked - self.open)

    def _low(self, k: int) -> float:
        return clopper_pearson(k, self.n, self.confidence)[0] if self.n else 0.0

    def _high(self, k: int) -> float:
        return clopper_pearson(k, self.n, self.confidence)[1] if self.n else 1.0


@dataclass(frozen=True)
class Advice:
    """What would decide: more certified or broken samples among the undecided ones, or a larger sample."""

    words: str
    more_certified: int | None = None
    more_broken: int | None = None
    samples_needed: int | None = None


def robust_tally(claim: Claim) -> Tally:
    """CERTIFIED ≤ · ≤ n − BROKEN − MISCLASSIFIED."""
    count = claim.counts.get
    lost = count(Verdict.BROKEN, 0) + count(Verdict.MISCLASSIFIED, 0)
    return Tally(count(Verdict.CERTIFIED, 0), claim.n - lost, claim.n, count(Verdict.OPEN, 0))


def clean_tally(claim: Claim) -> Tally:
    """Samples that were never run may still be right."""
    return Tally(claim.clean_k, claim.clean_k + claim.n - claim.clean_n, claim.n)


def class_tallies(claim: Claim) -> list[Tally]:
    """One tally per class of the model, at level 1 − 0.05 / C so that all limits hold together."""
    labels = range(max(claim.model.classes, 1 + max((s.label for s in claim.samples), default=0)))
    confidence = 1 - 0.05 / len(labels)
    tallies = []
    for label in labels:
        verdicts = [sample.verdict for sample in claim.samples if sample.label == label]
        lost = verdicts.count(Verdict.BROKEN) + verdicts.count(Verdict.MISCLASSIFIED)
        certified, n = verdicts.count(Verdict.CERTIFIED), len(verdicts)
        tallies.append(Tally(certified, n - lost, n, verdicts.count(Verdict.OPEN), confidence, str(label)))
    return tallies


def advice(tallies: Sequence[Tally], threshold: float, at_least: bool) -> Advice:
    """How an undecided requirement could be decided. For several tallies (the worst class) in words only."""
    if len(tallies) != 1:
        empty = [tally.name for tally in tallies if not tally.n]
        words = f"class {empty[0]} has no sample" if empty else "some class is undecided"
        return Advice(f"undecided: {words}")
    tally, between = tallies[0], tallies[0].attacked - tallies[0].certified

    def certify(j: int) -> Interval:
        return replace(tally, certified=tally.certified + j).limits

    def break_(j: int) -> Interval:
        return replace(tally, attacked=tally.attacked - j).limits

    if at_least:
        passes = _smallest(lambda j: certify(j)[0] >= threshold, between)
        fails = _smallest(lambda j: break_(j)[1] < threshold, between)
        certified, broken = ("PASS", passes), ("FAIL", fails)
    else:
        passes = _smallest(lambda j: break_(j)[1] <= threshold, between)
        fails = _smallest(lambda j: certify(j)[0] > threshold, between)
        certified, broken = ("FAIL", fails), ("PASS", passes)
    parts = []
    if broken[1] is not None:
        parts.append(f"{broken[1]} more broken ⇒ {broken[0]}")
    if certified[1] is not None:
        parts.append(f"{certified[1]} more certified ⇒ {certified[0]}")
    needed = None if parts else _larger_sample(tally, threshold)
    if needed:
        parts.append(f"about {needed} samples with these shares would settle it")
    words = "undecided: " + (", ".join(parts) or "no sample of this kind settles it")
    return Advice(f"{words}; {tally.open} open", certified[1], broken[1], needed)


def _smallest(decided: Callable[[int], bool], most: int) -> int | None:
    """The least j in 1..most with decided(j), which is monotone in j; None if there is none."""
    if most < 1 or not decided(most):
        return None
    low, high = 0, most  # decided(high), and either low = 0 or not decided(low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high


def _larger_sample(tally: Tally, threshold: float) -> int | None:
    """A sample size, least up to rounding of the counts, at which the same shares leave the threshold outside."""

    def decided(n: int) -> bool:
        low, high = replace(
            tally,
            n=n,
            certified=int(tally.certified_share * n),  # both counts rounded to the wider side
            attacked=min(n, math.ceil(tally.attacked_share * n)),
        ).limits
        return low > threshold or high < threshold

    size = tally.n
    while 0 < size <= _MOST and not decided(size):
        size *= 2
    if not 0 < size <= _MOST:
        return None
    found = _smallest(lambda j: decided(tally.n + j), size - tally.n)
    return tally.n + found if found else None
