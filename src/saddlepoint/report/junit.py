"""JUnit XML: one testcase per requirement and claim, never per sample.

Failed requirements are `<failure>`, those that nobody could decide `<error>`; the body lists the worst witnesses.
The dialect is the one that Jenkins, GitLab and GitHub actions read (testsuites > testsuite > testcase).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from xml.etree import ElementTree

from saddlepoint.ledger.claims import Claim, SampleResult
from saddlepoint.report.gate import Judgement, Status
from saddlepoint.report.wording import gauge

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production [2]


def junit_report(judgements: Sequence[Judgement], suite: str = "saddlepoint gate") -> bytes:
    """The judgements as UTF-8 XML. `suite` names the test suite, for example the ledger's file name."""
    failures = sum(item.status is Status.FAILED for item in judgements)
    errors = sum(not item.good for item in judgements) - failures
    total = math.fsum(_seconds(item) for item in judgements)
    counts = {
        "name": _clean(suite),
        "tests": str(len(judgements)),
        "failures": str(failures),
        "errors": str(errors),
        "time": f"{total:.3f}",
    }
    root = ElementTree.Element("testsuites", counts)
    element = ElementTree.SubElement(root, "testsuite", {**counts, "skipped": "0"})
    for item in judgements:
        _testcase(element, item)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _testcase(parent: ElementTree.Element, item: Judgement) -> None:
    attributes = {
        "classname": _clean(item.model.name if item.model else "policy"),
        "name": _clean(item.requirement.title),
        "time": f"{_seconds(item):.3f}",
    }
    case = ElementTree.SubElement(parent, "testcase", attributes)
    if item.good:
        ElementTree.SubElement(case, "system-out").text = _clean(f"{item.status.value}: {item.message}")
        return
    tag = "failure" if item.status is Status.FAILED else "error"
    outcome = ElementTree.SubElement(case, tag, {"type": item.status.value, "message": _clean(item.message)})
    outcome.text = _clean("\n".join([item.message, *witness_lines(item)]))


def witness_lines(item: Judgement) -> list[str]:
    """The worst witnesses, one line each."""
    return [_witness_line(item.claim, witness) for witness in item.witnesses if item.claim]


def _witness_line(claim: Claim, sample: SampleResult) -> str:
    parts = [f"sample {sample.id} (label {sample.label}) is broken by {sample.by}"]
    if sample.gauge is not None:
        parts.append(f"at size {gauge(claim, sample.gauge)}")
    if sample.upper is not None:
        parts.append(f"worst margin ≤ {sample.upper:.6g}")
    return ", ".join(parts)


def _seconds(item: Judgement) -> float:
    return math.fsum(method.seconds for method in item.claim.methods) if item.claim else 0.0


def _clean(text: str) -> str:
    """Without the characters that XML cannot hold, escaped or not."""
    return _FORBIDDEN.sub("�", text)
