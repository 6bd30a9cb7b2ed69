"""The JSON contract, key by key."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_example import MemoryRecord, counted, model_row, run_row

from saddlepoint.check.counts import clopper_pearson
from saddlepoint.report.json_report import json_report
from saddlepoint.spec.bracket import Verdict

TOP = {"schema", "n", "clean", "threats", "cost", "doctor", "versions", "seed"}
THREAT = {"threat", "bracket", "verdicts", "samples"}
SAMPLE = {"id", "label", "verdict", "lower", "upper", "by", "seconds", "forwards", "backwards"}


def read(record):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(json_report(record), parse_constant=refuse)


def check_threat(threat):
    assert threat.keys() >= THREAT
    verdicts, n = threat["verdicts"], len(threat["samples"])
    assert verdicts.keys() == {v.value for v in Verdict}
    assert sum(verdicts.values()) == n
    bracket = threat["bracket"]
    assert bracket.keys() == {"certified", "attacked", "ci95"}
    lost = verdicts["BROKEN"] + verdicts["MISCLASSIFIED"]
    assert bracket["certified"] == pytest.approx(verdicts["CERTIFIED"] / n)
    assert bracket["attacked"] == pytest.approx(1 - lost / n)
    assert bracket["ci95"][0] == clopper_pearson(verdicts["CERTIFIED"], n)[0]
    assert bracket["ci95"][1] == clopper_pearson(n - lost, n)[1]
    for sample in threat["samples"]:
        assert sample.keys() >= SAMPLE


def test_the_whole_contract(record):
    found = read(record)
    assert found.keys() >= TOP
    assert found["schema"] == 1
    assert found["n"] == 300
    assert found["clean"].keys() == {"k", "n", "ci95"}
    assert found["cost"].keys() == {"seconds", "forwards", "backwards"}
    assert found["seed"] == 0
    assert found["versions"]["torch"] == "2.13.0"
    assert [model["model"]["name"] for model in found["models"]] == ["standard", "adversarial"]
    assert found["threats"] == found["models"][0]["threats"]
    for model in found["models"]:
        assert model.keys() >= TOP - {"schema"}
        assert len(model["threats"]) == 4
        for threat in model["threats"]:
            check_threat(threat)


def test_with_one_threat_its_keys_stand_at_the_top():
    claim = counted({Verdict.CERTIFIED: 3, Verdict.BROKEN: 1})
    found = read(MemoryRecord([claim.model], [claim], calls=[run_row()]))
    assert "models" not in found
    for key in THREAT:
        assert found[key] == found["threats"][0][key]
    assert found["cost"] == {"seconds": 2.0, "forwards": 44, "backwards": 20}
    two = read(MemoryRecord([claim.model], [claim, counted({Verdict.OPEN: 1}, kind="l2", size="1")]))
    assert not THREAT - {"n", "clean"} & two.keys()


def test_absent_bounds_are_null_and_nothing_is_nan():
    claim = counted({Verdict.OPEN: 2})
    bounds = [replace(claim.samples[0], lower=float("-inf"), upper=float("nan")), claim.samples[1]]
    found = read(MemoryRecord([claim.model], [replace(claim, samples=bounds)]))
    assert [(s["lower"], s["upper"]) for s in found["samples"]] == [(None, None), (None, None)]


def test_an_empty_ledger_and_a_model_without_claims():
    assert read(MemoryRecord())["n"] == 0
    found = read(MemoryRecord([model_row()]))
    assert found["threats"] == []
    assert found["clean"] == {"k": 0, "n": 0, "ci95": [0.0, 1.0]}
    assert found["seed"] is None


@given(st.text(max_size=20))
def test_any_text_survives(text):
    model = model_row(text, class_names=(text,))
    claim = counted({Verdict.OPEN: 1}, model)
    claim = replace(claim, samples=[replace(claim.samples[0], id=text)])
    found = read(MemoryRecord([model], [claim]))
    assert found["model"]["name"] == text
    assert found["samples"][0]["id"] == text
