"""The JSON contract: schema 1. Keys stay; additions are welcome. NaN and infinities become null.

    certified = CERTIFIED / n,  attacked = 1 − (BROKEN + MISCLASSIFIED) / n,
    ci95 = [2.5 % Clopper–Pearson limit of certified, 97.5 % limit of attacked].

With one threat its keys also stand at the top level. With several models, "models" holds one such object
each and the first of them is the top level.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from saddlepoint.core.digests import canonical_json
from saddlepoint.ledger.claims import Claim, ModelRow, RunRow, SampleResult
from saddlepoint.report.record import Record
from saddlepoint.spec.bracket import Verdict

SCHEMA = 1


def json_report(record: Record) -> str:
    """The whole record as JSON text that ends in a newline."""
    return json.dumps(report_object(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def report_object(record: Record) -> dict[str, Any]:
    """The contract as plain dictionaries and lists, ready for `json.dumps(…, allow_nan=False)`."""
    claims, runs = record.claims(), record.runs()
    objects = [
        _model_object(model, [claim for claim in claims if claim.model.digest == model.digest], runs, record)
        for model in record.models()
    ]
    if not objects:
        return {"schema": SCHEMA, **_body([], runs, record)}
    top = {"schema": SCHEMA, **objects[0]}
    if len(objects) > 1:
        top["models"] = objects
    return _finite(top)


def _model_object(model: ModelRow, claims: Sequence[Claim], runs: Sequence[RunRow], record: Record) -> dict[str, Any]:
    described = {
        "name": model.name,
        "spec": model.spec,
        "digest": model.digest,
        "access": model.access,
        "classes": model.classes,
        "shape": list(model.shape),
        "domain": model.domain,
        "notes": list(model.notes),
    }
    return {**_body(claims, runs, record), "model": described}


def _body(claims: Sequence[Claim], runs: Sequence[RunRow], record: Record) -> dict[str, Any]:
    largest = max(claims, key=lambda claim: claim.n, default=None)
    threats = [_threat_object(claim) for claim in claims]
    methods = [method for claim in claims for method in claim.methods]
    latest = runs[-1] if runs else None
    body = {
        "n": largest.n if largest else 0,
        "clean": _clean(largest) if largest else {"k": 0, "n": 0, "ci95": [0.0, 1.0]},
        "threats": threats,
        "cost": {
            "seconds": math.fsum(method.seconds for method in methods),
            "forwards": sum(method.forwards for method in methods),
            "backwards": sum(method.backwards for method in methods),
        },
        "doctor": _doctor(claims, record),
        "adapted": latest.spec.get("adapted", []) if latest else [],
        "versions": dict(latest.versions) if latest else {},
        "seed": latest.spec.get("seed") if latest else None,
        "untested": list(dict.fromkeys(item for run in runs for item in run.untested)),
    }
    # with one threat its keys also stand at the top level
    return {**threats[0], **body} if len(threats) == 1 else body


def _doctor(claims: Sequence[Claim], record: Record) -> list[dict[str, Any]] | None:
    """The findings of the latest examinations, each with its threat; null where nothing was examined."""
    found = [
        {"threat": claim.label, **finding.described()}
        for claim in claims
        for finding in record.findings(claim.model.digest, canonical_json(claim.threat))
    ]
    return found or None


def _threat_object(claim: Claim) -> dict[str, Any]:
    return {
        "threat": claim.label,
        "bracket": {"certified": claim.certified, "attacked": claim.attacked, "ci95": list(claim.ci95)},
        "verdicts": {verdict.value: claim.counts.get(verdict, 0) for verdict in Verdict},
        "samples": [_sample_object(sample) for sample in claim.samples],
        "n": claim.n,
        "clean": _clean(claim),
        "canonical": claim.threat,
        "failure_probability": claim.failure_probability,
        "methods": [
            {
                "name": method.name,
                "version": method.version,
                "parameters": method.parameters,
                "seed": method.seed,
                "side": method.side,
                "rows": method.rows,
                "decided": method.decided,
                "failed": method.failed,
                "seconds": method.seconds,
                "forwards": method.forwards,
                "backwards": method.backwards,
            }
            for method in claim.methods
        ],
    }


def _clean(claim: Claim) -> dict[str, Any]:
    return {"k": claim.clean_k, "n": claim.clean_n, "ci95": list(claim.clean_ci95)}


def _sample_object(sample: SampleResult) -> dict[str, Any]:
    return {
        "id": sample.id,
        "label": sample.label,
        "verdict": sample.verdict.value,
        "lower": sample.lower,
        "upper": sample.upper,
        "by": sample.by,
        "seconds": sample.seconds,
        "forwards": sample.forwards,
        "backwards": sample.backwards,
        "gauge": sample.gauge,
        "tie": sample.tie,
    }


def _finite(value: Any) -> Any:
    """The same structure with null for every NaN and infinity, which JSON has no words for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
