"""From a ledger on disk to every format, with nothing in between."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from report_example import model_row, run_row, threat_of

from saddlepoint.core.digests import canonical_json
from saddlepoint.ledger import Ledger
from saddlepoint.report.console import summary_lines
from saddlepoint.report.gate import gate_exit_code, judge
from saddlepoint.report.html import html_report
from saddlepoint.report.json_report import json_report
from saddlepoint.report.junit import junit_report
from saddlepoint.report.policy import parse_policy
from saddlepoint.report.record import Record
from saddlepoint.report.sarif import sarif_report
from saddlepoint.spec import Cost, Evidence, Method, Subject

THREAT = canonical_json(threat_of(kind="linf", size="2/255"))
# per sample: clean margin, margin of the attack, certified margin
MARGINS = [(1.0, 0.5, 0.2), (1.0, -0.5, None), (-0.1, None, None), (2.0, 0.4, -0.3)]


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger(tmp_path / "a.ledger") as book:
        with book.transaction():
            fill(book)
        yield book


def fill(book: Ledger) -> None:
    book.add_model(model_row(classes=3, shape=(1, 4, 4)))
    subjects = [Subject("d0", str(i), i % 3, f"content{i}") for i in range(len(MARGINS))]
    book.ask(THREAT, [(subject, i) for i, subject in enumerate(subjects)])
    for subject, margins in zip(subjects, MARGINS, strict=True):
        sides = (("clean", "upper"), ("apgd", "upper"), ("crown", "lower"))
        for (name, side), value in zip(sides, margins, strict=True):
            if value is not None:
                details = canonical_json({"gauge": 0.004}) if value <= 0 and name == "apgd" else "{}"
                cost = Cost(10, 5, 10, 0.25)
                book.add(
                    [
                        Evidence(
                            "margin", side, value, subject, THREAT, Method(name), status="checked", cost=cost,
                            details=details,
                        )
                    ]
                )  # fmt: skip
    x0 = torch.linspace(0, 1, 16).reshape(1, 4, 4)
    pictures = {"x0": x0, "adversarial": x0 * 0.99, "random": x0.flip(1), "logits": torch.eye(3)}
    book.add_exhibit(THREAT, subjects[1], 0.004, book.add_blob(pictures), {"survives_8bit": False})
    book.add_event({"kind": "epoch", "run": "net", "epoch": 0, "clean": 0.5, "robust": 0.1})
    book.add_event({"kind": "epoch", "run": "net", "epoch": 1, "clean": 0.7, "robust": 0.2})
    book.put_run("first", run_row())


def test_every_format_reads_the_ledger(ledger):
    assert isinstance(ledger, Record)
    found = json.loads(json_report(ledger))
    assert found["verdicts"] == {
        "CERTIFIED": 1,
        "BROKEN": 1,
        "OPEN": 1,
        "MISCLASSIFIED": 1,
        "NOT_RUN": 0,
        "ERROR": 0,
        "CONTRADICTION": 0,
    }
    assert found["bracket"]["certified"] == 0.25
    assert found["bracket"]["attacked"] == 0.5
    assert found["clean"]["k"] == 3
    assert found["samples"][1]["gauge"] == 0.004
    assert "n = 4" in summary_lines(ledger.claims())[1]
    page = html_report(ledger)
    assert page.count("data:image/png;base64,") == 4
    assert "broken at 1.02/255" in page
    assert "no longer broken when stored" in page
    assert "2 epochs" in page


def test_the_gate_reads_the_ledger(ledger):
    policy = parse_policy('[[require]]\nthreat = "linf:2/255"\nmetric = "robust_accuracy"\nat_least = 0.99\n')
    claims = ledger.claims()
    judgements = judge(claims, policy)
    assert gate_exit_code(judgements, claims) == 1
    body = ElementTree.fromstring(junit_report(judgements)).findtext(".//failure")
    assert body is not None
    assert "sample 1 (label 1) is broken by apgd, at size 1.02/255, worst margin ≤ -0.5" in body
    assert json.loads(sarif_report(judgements, "policy.toml", "0.1.0"))["runs"][0]["results"]
