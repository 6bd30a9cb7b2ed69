"""The report as plain lines. Every line ends in n and an interval; never a bare percentage."""

from __future__ import annotations

from collections.abc import Sequence

from saddlepoint.ledger.claims import Claim
from saddlepoint.report.gate import Judgement
from saddlepoint.report.wording import interval, threat_detail, threat_name, undecided
from saddlepoint.spec.bracket import Verdict


def summary_lines(claims: Sequence[Claim]) -> list[str]:
    """For each model its clean accuracy, then one line per threat."""
    lines: list[str] = []
    width = max((len(threat_name(claim.label)) for claim in claims), default=0)
    for digest in dict.fromkeys(claim.model.digest for claim in claims):
        own = [claim for claim in claims if claim.model.digest == digest]
        lines.append(_clean_line(max(own, key=lambda claim: claim.n), width))
        lines += [_claim_line(claim, width) for claim in own]
    return lines


def judgement_lines(judgements: Sequence[Judgement]) -> list[str]:
    """One line per requirement and claim, as the gate prints them."""
    return [f"{item.status.value:<9} {item.title}: {item.message}" for item in judgements]


def _clean_line(claim: Claim, width: int) -> str:
    share = f"{claim.clean_k / claim.clean_n:.3f}" if claim.clean_n else "unknown"
    return (
        f"{claim.model.name}: {'clean':<{width}}  accuracy {share}  "
        f"95 % interval {interval(claim.clean_ci95)}, n = {claim.clean_n}"
    )


def _claim_line(claim: Claim, width: int) -> str:
    counts = ", ".join(
        f"{verdict.value.lower()} {claim.counts.get(verdict, 0)}"
        for verdict in (Verdict.CERTIFIED, Verdict.BROKEN, Verdict.MISCLASSIFIED)
    )
    detail = threat_detail(claim)
    return (
        f"{claim.model.name}: {threat_name(claim.label):<{width}}  "
        f"robust accuracy in {interval((claim.certified, claim.attacked))}  "
        f"({f'{detail}; ' if detail else ''}{counts}, {undecided(claim)})  "
        f"95 % interval {interval(claim.ci95)}, n = {claim.n}"
    )
