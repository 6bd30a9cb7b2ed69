"""The examination of a ledger: its own record, then the model again on samples that it holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from saddlepoint.core.errors import InputError
from saddlepoint.data import Data
from saddlepoint.evaluation.doctor.case import Effort
from saddlepoint.evaluation.doctor.examine import examine
from saddlepoint.evaluation.doctor.record import batch_of, record, remembered
from saddlepoint.geometry.registry import from_canonical
from saddlepoint.ledger import Ledger
from saddlepoint.spec import Access, Model, Targeted, Threat
from saddlepoint.spec.finding import Finding


@dataclass(frozen=True)
class Diagnosis:
    """What was found about one model under one threat."""

    model: str
    threat: str
    findings: list[Finding]


def diagnose(
    ledger: Ledger, model_of: Callable[[str], Model], data: Data | None = None, effort: Effort | None = None
) -> Iterator[Diagnosis]:
    """Examine every (model, threat) of a ledger. `model_of` loads the model with a digest; nothing is written.

    Raises InputError where the model given is another one.
    """
    effort = effort or Effort()
    for digest, threat in ledger.threats():
        model = model_of(digest)
        if model.digest != digest:
            raise InputError(
                f"the model given has digest {model.digest[:12]}, the evidence is about {digest[:12]}.",
                "It is not the model of this ledger: give that one with --model, and the options it was loaded with.",
            )
        known = remembered(ledger, digest, threat, data, effort.samples)
        if not known:
            detail = "no sample that stands or fell has its input in the ledger"
            none = Finding("samples", "There is something to examine", "unknown", 0.0, detail, "Give --data.")
            yield Diagnosis(digest, threat, [none])
            continue
        batch, broken = batch_of(known)
        found = examine(model, batch, threat_of(threat), effort, broken)
        if not any(k.stands for k in known):
            found = [_harmless(finding) for finding in found]
        yield Diagnosis(digest, threat, [*record(ledger, model, threat, known), *found])


def _harmless(finding: Finding) -> Finding:
    """Where no sample stands on the word of an attack, a weak attack has overstated nothing."""
    if finding.verdict != "fail":
        return finding
    return replace(finding, verdict="warn", detail=f"{finding.detail}; every sample is decided all the same")


def threat_of(text: str) -> Threat:
    """The threat that a canonical text describes."""
    told = json.loads(text)
    goal = told["goal"]
    rest = {"goal": Targeted(goal["label"])} if goal["kind"] == "targeted" else {}
    return Threat(from_canonical(told["set"]), Access[told["access"]], told["queries"], **rest)
