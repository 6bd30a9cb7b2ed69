"""SARIF 2.1.0: what the gate found, at the line of policy.toml that asked for it.

A result is shown by code hosts only with a place in a file, so the place is the threshold's line. Results are
recognised again by rule, path and `partialFingerprints`: the fingerprint is the digest of what the evidence is
about, without its value, so that an alert stays the same alert while the numbers move.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from saddlepoint.core.digests import digest_json
from saddlepoint.report.gate import Judgement, Status
from saddlepoint.report.junit import witness_lines
from saddlepoint.report.policy import ACCURACIES

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {
    Status.FAILED: "error",
    Status.CONTRADICTION: "error",
    Status.UNDECIDED: "warning",
    Status.UNKNOWN: "warning",
}
_RULES = {
    "robust_accuracy": "The share of samples that no point of the threat can turn",
    "clean_accuracy": "The share of unperturbed samples classified correctly",
    "worst_class_robust_accuracy": "The robust accuracy of the class where it is lowest",
}


def sarif_report(judgements: Sequence[Judgement], policy_path: str, version: str) -> str:
    """SARIF text with one result for every requirement that is not met.

    `policy_path` is the policy's path relative to the repository's root, `version` that of this toolkit.
    """
    failing = [item for item in judgements if not item.good]
    metrics = sorted({item.requirement.metric for item in judgements})
    driver = {
        "name": "saddlepoint",
        "semanticVersion": version,
        "rules": [_rule(metric) for metric in metrics],
    }
    log = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "unicodeCodePoints",
                "results": [_result(item, metrics, policy_path) for item in failing],
            }
        ],
    }
    return json.dumps(log, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _rule(metric: str) -> dict[str, Any]:
    text = _RULES.get(metric, f"The finding {metric}")
    return {"id": metric, "shortDescription": {"text": text}, "properties": {"accuracy": metric in ACCURACIES}}


def _result(item: Judgement, metrics: Sequence[str], policy_path: str) -> dict[str, Any]:
    text = "\n".join([f"{item.title} is {item.status.value}: {item.message}", *witness_lines(item)])
    return {
        "ruleId": item.requirement.metric,
        "ruleIndex": metrics.index(item.requirement.metric),
        "level": _LEVELS[item.status],
        "message": {"text": text},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(policy_path.replace("\\", "/"), safe="/:~")},
                    "region": {"startLine": item.requirement.line},
                }
            }
        ],
        "partialFingerprints": {"saddlepointEvidence/v1": digest_json(dict(item.key))},
        "properties": {
            "status": item.status.value,
            "n": item.n,
            "bracket": list(item.bracket) if item.bracket else None,
            "ci95": list(item.ci95) if item.ci95 else None,
        },
    }
