"""What the evidence does not say: as much a part of the report as the bracket."""

from __future__ import annotations

from collections.abc import Sequence

from saddlepoint.ledger.claims import Claim
from saddlepoint.report.record import Record
from saddlepoint.report.wording import threat_name
from saddlepoint.spec.bracket import Verdict

_FAMILIES = {
    "linf": "ℓ∞ (every pixel a little)",
    "l2": "ℓ2 (small Euclidean distance)",
    "l1": "ℓ1 (little in sum)",
    "l0": "ℓ0 (few pixels, any amount)",
    "spatial": "rotation and translation",
    "patch": "a visible patch",
}
_ALWAYS = (
    "The physical world: prints, cameras, lighting, viewpoints, and sensors that differ from those of the data.",
    "Other data: the intervals speak of draws from where these samples came from, not of a shifted or later world.",
    "Training data: poisoning, backdoors and duplicates were not looked for.",
    "Access: what an outsider can copy or learn about the training data by asking the model was not measured.",
    "Adaptive attacks by a person who studies this very model: automatic attacks can be weak against a defence that "
    "hides its gradients. A certificate does not have this weakness; the attacked end of a bracket does.",
)


def untested(record: Record) -> list[str]:
    """Sentences, from the particular to the general. Never empty."""
    claims, runs = record.claims(), record.runs()
    found = [item for run in runs for item in run.untested]
    found += [line for claim in claims for line in _undecided(claim)]
    found += _one_sided(claims)
    found += _families(claims)
    found += _interrupted(len([run for run in runs if run.interrupted]), len(runs))
    return list(dict.fromkeys([*found, *_ALWAYS]))


def _undecided(claim: Claim) -> list[str]:
    where = f"{claim.model.name} at {threat_name(claim.label)}"
    words = (
        (Verdict.OPEN, "are open, they may hold or not"),
        (Verdict.NOT_RUN, "were not run: the budget ended before them"),
        (Verdict.ERROR, "ended with an error. They count neither as broken nor as certified"),
    )
    return [
        f"{where}: {claim.counts[verdict]} of n = {claim.n} samples {text}."
        for verdict, text in words
        if claim.counts.get(verdict, 0)
    ]


def _one_sided(claims: Sequence[Claim]) -> list[str]:
    lines = []
    for claim in claims:
        where = f"{claim.model.name} at {threat_name(claim.label)}"
        sides = {method.side for method in claim.methods if method.rows}
        if claim.n and "lower" not in sides:
            lines.append(f"{where}: nothing was certified; the bracket says only how low the accuracy is known to be.")
        elif claim.n and not any(m.side == "upper" and m.name != "clean" for m in claim.methods if m.rows):
            lines.append(f"{where}: nothing attacked it beyond reading the clean samples.")
    return lines


def _families(claims: Sequence[Claim]) -> list[str]:
    kinds = {claim.threat.get("set", {}).get("kind") for claim in claims}
    missing = [words for kind, words in _FAMILIES.items() if kind not in kinds]
    lines = [f"Other perturbations: {', '.join(missing)}."] if missing else []
    largest: dict[str, Claim] = {}
    for claim in claims:
        if claim.family not in largest or claim.size > largest[claim.family].size:
            largest[claim.family] = claim
    if largest:
        names = ", ".join(threat_name(claim.label) for claim in largest.values())
        lines.append(f"Larger perturbations than {names}, and several kinds of perturbation at once.")
    return lines


def _interrupted(count: int, total: int) -> list[str]:
    if not count:
        return []
    return [f"{count} of {total} runs were interrupted; the same command again goes on where they stopped."]
