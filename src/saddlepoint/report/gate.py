"""Policy against claims: passed, failed, or not yet known.

A requirement `at_least t` is judged on the conservative end of the 95 % interval [lo, hi] of its quantity:

    lo ≥ t  → passed        hi < t → failed        lo < t ≤ hi → undecided

and `at_most t` in mirror image. With open = "allow", OPEN samples count as if they held (as if they broke, for
at_most) and the interval is taken of that count: it excuses what no method could decide, never a small sample,
a crash or a sample that was not run. Fewer samples than asked is unknown.

The worst class is min over classes; its limits are the minima over the C classes of Clopper–Pearson limits at
level 1 − 0.05 / C (Bonferroni), so that they hold together. A class without samples has the interval [0, 1].

Exit codes: 3 CONTRADICTION · 1 failed · 4 undecided or unknown · 0 passed, the first that applies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from saddlepoint.ledger.claims import Claim, Interval, ModelRow, SampleResult
from saddlepoint.report.policy import Policy, Requirement, threat_key
from saddlepoint.report.tally import Advice, Tally, advice, class_tallies, clean_tally, robust_tally
from saddlepoint.report.wording import interval
from saddlepoint.spec.bracket import Verdict

WORST = 5  # witnesses shown with a requirement


class Status(StrEnum):
    """What became of a requirement."""

    PASSED = "PASSED"
    ALLOWED = "ALLOWED"  # would pass if the open samples hold, and the policy allows them to be open
    FAILED = "FAILED"
    UNDECIDED = "UNDECIDED"
    UNKNOWN = "UNKNOWN"  # no such claim or finding, or too few samples
    CONTRADICTION = "CONTRADICTION"  # some method is unsound: nothing it says is believed


@dataclass(frozen=True)
class Judgement:
    """One requirement against one claim. `bracket` and `ci95` are None where nothing is known."""

    requirement: Requirement
    status: Status
    message: str
    model: ModelRow | None = None
    claim: Claim | None = None
    bracket: Interval | None = None
    ci95: Interval | None = None
    n: int = 0
    witnesses: tuple[SampleResult, ...] = ()
    more_certified: int | None = None
    more_broken: int | None = None
    samples_needed: int | None = None
    key: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The requirement and the model it was held against."""
        return self.requirement.title + (f" [{self.model.name}]" if self.model else "")

    @property
    def good(self) -> bool:
        """Whether the gate opens as far as this requirement goes."""
        return self.status in (Status.PASSED, Status.ALLOWED)


def judge(claims: Sequence[Claim], policy: Policy, findings: Sequence[Mapping[str, Any]] = ()) -> list[Judgement]:
    """Every requirement against every claim (or finding) it speaks of, in the order of the policy.

    `findings`: objects of `audit --json`, each with "id", "value" and, if measured on samples, "ci95" and "n".
    """
    judgements: list[Judgement] = []
    for requirement in policy.requirements:
        if requirement.metric in ("robust_accuracy", "worst_class_robust_accuracy", "clean_accuracy"):
            judgements += _judge_claims(requirement, claims)
        else:
            judgements += _judge_findings(requirement, findings)
    return judgements


def gate_exit_code(judgements: Iterable[Judgement], claims: Iterable[Claim] = ()) -> int:
    """3, 1, 4 or 0, the first that applies. A contradiction anywhere in `claims` counts."""
    statuses = {judgement.status for judgement in judgements}
    if Status.CONTRADICTION in statuses or any(c.counts.get(Verdict.CONTRADICTION, 0) for c in claims):
        return 3
    if Status.FAILED in statuses:
        return 1
    return 4 if statuses & {Status.UNDECIDED, Status.UNKNOWN} else 0


def _judge_claims(requirement: Requirement, claims: Sequence[Claim]) -> list[Judgement]:
    named = [c for c in claims if requirement.model in (None, c.model.name, c.model.spec, c.model.digest)]
    if not named:
        about = f"the model {requirement.model!r}" if requirement.model else "any model"
        return [_unknown(requirement, None, f"the ledger holds no claim about {about}")]
    judgements: list[Judgement] = []
    for digest in dict.fromkeys(claim.model.digest for claim in named):
        own = [claim for claim in named if claim.model.digest == digest]
        if requirement.threat is not None:
            own = [claim for claim in own if threat_key(claim.label) == threat_key(requirement.threat)]
        elif own:
            own = [max(own, key=lambda claim: claim.n)]  # clean accuracy: the largest sample speaks
        if own:
            judgements += [_judge_claim(requirement, claim) for claim in own]
        else:
            model = next(claim.model for claim in named if claim.model.digest == digest)
            why = f"the ledger holds nothing about {requirement.threat} for {model.name}"
            judgements.append(_unknown(requirement, model, why))
    return judgements


def _judge_claim(requirement: Requirement, claim: Claim) -> Judgement:
    tallies = _tallies(requirement, claim)
    low, high = min(t.limits[0] for t in tallies), min(t.limits[1] for t in tallies)
    status = _compare(requirement, low, high)
    if status is Status.UNDECIDED and requirement.allow_open and _allowed(requirement, tallies):
        status = Status.ALLOWED
    contradictions = claim.counts.get(Verdict.CONTRADICTION, 0)
    if contradictions and requirement.metric != "clean_accuracy":
        status = Status.CONTRADICTION
    elif claim.n < requirement.samples:
        status = Status.UNKNOWN
    open_ = status is Status.UNDECIDED
    hints = advice(tallies, requirement.threshold, requirement.at_least) if open_ else Advice("")
    words = _facts(requirement, claim, status, tallies) + (f"; {hints.words}" if hints.words else "")
    return Judgement(
        requirement,
        status,
        message=f"{words}; 95 % interval {interval((low, high))}, n = {claim.n}",
        model=claim.model,
        claim=claim,
        bracket=_bracket(tallies),
        ci95=(low, high),
        n=claim.n,
        witnesses=_witnesses(claim) if requirement.metric != "clean_accuracy" else (),
        more_certified=hints.more_certified,
        more_broken=hints.more_broken,
        samples_needed=hints.samples_needed,
        key={**_key(requirement), "model": claim.model.digest, "threat": claim.threat},
    )


def _tallies(requirement: Requirement, claim: Claim) -> list[Tally]:
    if requirement.metric == "clean_accuracy":
        return [clean_tally(claim)]
    if requirement.metric == "robust_accuracy":
        return [robust_tally(claim)]
    return class_tallies(claim)


def _compare(requirement: Requirement, low: float, high: float) -> Status:
    t = requirement.threshold
    if requirement.at_least:
        return Status.PASSED if low >= t else Status.FAILED if high < t else Status.UNDECIDED
    return Status.PASSED if high <= t else Status.FAILED if low > t else Status.UNDECIDED


def _allowed(requirement: Requirement, tallies: Sequence[Tally]) -> bool:
    if requirement.at_least:
        return min(tally.if_open_hold for tally in tallies) >= requirement.threshold
    return min(tally.if_open_break for tally in tallies) <= requirement.threshold


def _bracket(tallies: Sequence[Tally]) -> Interval:
    return min(tally.certified_share for tally in tallies), min(tally.attacked_share for tally in tallies)


def _facts(requirement: Requirement, claim: Claim, status: Status, tallies: Sequence[Tally]) -> str:
    facts = f"{requirement.metric.replace('_', ' ')} in {interval(_bracket(tallies))}"
    if len(tallies) > 1:
        names = claim.model.class_names
        worst = min(tallies, key=lambda tally: (tally.limits[0], tally.certified_share, tally.name))
        label = names[int(worst.name)] if names and int(worst.name) < len(names) else worst.name
        facts += f" (worst class {label!r}, n = {worst.n} of its own)"
    if status is Status.UNKNOWN:
        return f"{facts}; only {claim.n} of {requirement.samples} samples: unknown"
    if status is Status.CONTRADICTION:
        return f"{facts}; {claim.counts[Verdict.CONTRADICTION]} contradictions: some method is unsound"
    if status is Status.ALLOWED:
        open_ = sum(tally.open for tally in tallies)
        way = "hold" if requirement.at_least else "break"
        return f"{facts}; met if the {open_} open samples {way}, which the policy allows"
    return facts


def _judge_findings(requirement: Requirement, findings: Sequence[Mapping[str, Any]]) -> list[Judgement]:
    found = [finding for finding in findings if finding.get("id") == requirement.metric]
    if not found:
        return [_unknown(requirement, None, f"the ledger holds no finding {requirement.metric!r}")]
    return [_judge_finding(requirement, finding) for finding in found]


def _judge_finding(requirement: Requirement, finding: Mapping[str, Any]) -> Judgement:
    value, n = finding.get("value"), int(finding.get("n") or 0)
    ends = [float(end) for end in finding.get("ci95") or (value, value) if isinstance(end, (int, float))]
    if len(ends) != 2 or not all(map(math.isfinite, ends)) or n < requirement.samples:
        why = f"the finding {requirement.metric!r} has value {value} from {n} samples"
        return _unknown(requirement, None, why)
    low, high = ends
    message = f"{finding.get('title', requirement.metric)}: {value}; 95 % interval {interval((low, high))}, n = {n}"
    return Judgement(
        requirement,
        _compare(requirement, low, high),
        message,
        bracket=(float(value), float(value)) if isinstance(value, (int, float)) else None,
        ci95=(low, high),
        n=n,
        key=_key(requirement),
    )


def _unknown(requirement: Requirement, model: ModelRow | None, why: str) -> Judgement:
    key = {**_key(requirement), "model": model.digest if model else requirement.model}
    message = f"{why}: unknown; 95 % interval [0.000, 1.000], n = 0"
    return Judgement(requirement, Status.UNKNOWN, message, model=model, key=key)


def _key(requirement: Requirement) -> dict[str, Any]:
    """What the evidence is about, without its value: stable while the numbers move."""
    threat = requirement.threat
    return {"metric": requirement.metric, "threat": threat, "side": "at_least" if requirement.at_least else "at_most"}


def _witnesses(claim: Claim) -> tuple[SampleResult, ...]:
    """The broken samples with the nearest witnesses, then those with the lowest margins."""
    broken = [sample for sample in claim.samples if sample.verdict is Verdict.BROKEN]
    far = math.inf

    def nearness(sample: SampleResult) -> tuple[float, float, str]:
        gauge = far if sample.gauge is None else sample.gauge
        return gauge, far if sample.upper is None else sample.upper, sample.id

    return tuple(sorted(broken, key=nearness)[:WORST])
