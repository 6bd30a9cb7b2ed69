"""JUnit XML and SARIF against the parts of their schemas that readers rely on."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_example import counted, model_row

from saddlepoint.report.gate import judge
from saddlepoint.report.junit import junit_report
from saddlepoint.report.policy import parse_policy
from saddlepoint.report.sarif import sarif_report
from saddlepoint.spec.bracket import Verdict

POLICY = """[[require]]
threat = "linf:2/255"
metric = "robust_accuracy"
at_least = 0.5

[[require]]
metric = "D1"
at_most = 3
"""
# The XSD that Jenkins publishes, as far as we write it: element → (required, optional attributes, children)
JUNIT = {
    "testsuites": ({"name", "tests", "failures", "errors"}, {"time"}, {"testsuite"}),
    "testsuite": ({"name", "tests"}, {"failures", "errors", "skipped", "time"}, {"testcase"}),
    "testcase": ({"name", "classname"}, {"time"}, {"failure", "error", "system-out"}),
    "failure": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "system-out": (set(), set(), set()),
}
TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
MESSAGE = {"type": "object", "required": ["text"], "properties": {"text": TEXT}}
# Excerpt of sarif-schema-2.1.0: every property we write, closed where the schema is closed
RESULT = {
    "type": "object",
    "required": ["message"],
    "closed": True,
    "properties": {
        "ruleId": TEXT,
        "ruleIndex": {"type": "integer", "minimum": -1},
        "level": {"enum": ["none", "note", "warning", "error"]},
        "message": MESSAGE,
        "locations": {
            "type": "array",
            "items": {
                "type": "object",
                "closed": True,
                "properties": {
                    "physicalLocation": {
                        "type": "object",
                        "closed": True,
                        "properties": {
                            "artifactLocation": {
                                "type": "object",
                                "closed": True,
                                "properties": {"uri": {"type": "string", "pattern": r"^[\w.~:/%!$&'()*+,;=@?#-]+$"}},
                            },
                            "region": {
                                "type": "object",
                                "closed": True,
                                "properties": {"startLine": {"type": "integer", "minimum": 1}},
                            },
                        },
                    }
                },
            },
        },
        "partialFingerprints": {"type": "object", "values": TEXT},
        "properties": {"type": "object"},
    },
}
RULE = {
    "type": "object",
    "required": ["id"],
    "closed": True,
    "properties": {"id": TEXT, "shortDescription": MESSAGE, "properties": {"type": "object"}},
}
DRIVER = {
    "type": "object",
    "required": ["name"],
    "closed": True,
    "properties": {
        "name": TEXT,
        "semanticVersion": {"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
        "rules": {"type": "array", "unique": "id", "items": RULE},
    },
}
SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "closed": True,
    "properties": {
        "$schema": {"type": "string", "pattern": "^https://"},
        "version": {"enum": ["2.1.0"]},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool"],
                "closed": True,
                "properties": {
                    "tool": {"type": "object", "required": ["driver"], "properties": {"driver": DRIVER}},
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                    "results": {"type": "array", "items": RESULT},
                },
            },
        },
    },
}
TYPES = {"object": dict, "array": list, "string": str, "integer": int}


def conform(value: Any, schema: dict[str, Any], where: str = "$") -> None:
    """The part of JSON Schema that the excerpt needs."""
    if "enum" in schema:
        assert value in schema["enum"], where
    if "type" in schema:
        assert isinstance(value, TYPES[schema["type"]]), where
        assert not isinstance(value, bool), where
    if "minimum" in schema:
        assert value >= schema["minimum"], where
    if "pattern" in schema:
        assert re.search(schema["pattern"], value), (where, value)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        assert set(schema.get("required", ())) <= value.keys(), where
        if schema.get("closed"):
            assert value.keys() <= properties.keys(), (where, value.keys() - properties.keys())
        for key, item in value.items():
            conform(item, properties.get(key, schema.get("values", {})), f"{where}.{key}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            conform(item, schema.get("items", {}), f"{where}[{index}]")
        if key := schema.get("unique"):
            assert len({item[key] for item in value}) == len(value), where


def conform_xml(element: ElementTree.Element) -> None:
    required, optional, children = JUNIT[element.tag]
    assert required <= set(element.keys()) <= required | optional, element.attrib
    for child in element:
        assert child.tag in children
        conform_xml(child)


def judgements(counts=None, **changes):
    claim = counted(counts or {Verdict.BROKEN: 90, Verdict.CERTIFIED: 10}, model_row(**changes))
    near = [replace(s, gauge=i / 1e4, upper=-0.5) for i, s in enumerate(claim.samples)]
    return judge([replace(claim, samples=near)], parse_policy(POLICY))


def test_junit_has_one_testcase_per_requirement_and_claim():
    root = ElementTree.fromstring(junit_report(judgements(), "runs/a.ledger"))
    conform_xml(root)
    suite = root[0]
    assert (suite.get("name"), suite.get("tests"), suite.get("failures"), suite.get("errors")) == (
        "runs/a.ledger",
        "2",
        "1",
        "1",
    )
    failed, unknown = suite
    assert failed.get("classname") == "net"
    assert failed.get("name") == "R1: robust_accuracy at linf:2/255 ≥ 0.5"
    (failure,) = failed
    assert failure.get("type") == "FAILED"
    assert "n = 100" in failure.get("message", "")
    assert (failure.text or "").count("is broken by") == 5
    assert "at size 0.03/255, worst margin ≤ -0.5" in (failure.text or "")
    assert unknown[0].tag == "error"


def test_junit_of_a_passed_requirement_is_no_failure():
    root = ElementTree.fromstring(junit_report(judgements({Verdict.CERTIFIED: 100})))
    conform_xml(root)
    assert root.get("failures") == "0"
    assert root[0][0][0].tag == "system-out"


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_junit_holds_any_name(name):
    name = name.encode("utf-8", "replace").decode("utf-8")
    conform_xml(ElementTree.fromstring(junit_report(judgements(name=name), name)))


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=25)
def test_junit_counts_add_up(certified, broken, open_):
    counts = {Verdict.CERTIFIED: certified, Verdict.BROKEN: broken, Verdict.OPEN: open_}
    root = ElementTree.fromstring(junit_report(judgements(counts)))
    assert int(root.get("failures", "")) == len(root.findall(".//failure"))
    assert int(root.get("errors", "")) == len(root.findall(".//error"))
    assert int(root.get("tests", "")) == len(root.findall(".//testcase")) == 2


def test_sarif_points_at_the_line_of_the_policy():
    log = json.loads(sarif_report(judgements(), "ci/release policy.toml", "0.1.0"))
    conform(log, SARIF)
    (run,) = log["runs"]
    failed, unknown = run["results"]
    place = failed["locations"][0]["physicalLocation"]
    assert place["region"]["startLine"] == 4
    assert POLICY.splitlines()[3] == "at_least = 0.5"
    assert place["artifactLocation"]["uri"] == "ci/release%20policy.toml"
    assert (failed["level"], unknown["level"]) == ("error", "warning")
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]


def test_sarif_of_a_good_ledger_has_no_results():
    only = parse_policy(POLICY.split("\n\n")[0])
    good = judge([counted({Verdict.CERTIFIED: 100})], only)
    log = json.loads(sarif_report(good, "policy.toml", "0.1.0"))
    conform(log, SARIF)
    assert log["runs"][0]["results"] == []


def test_fingerprints_stay_while_numbers_move_and_differ_between_subjects():
    def prints(**changes):
        counts = changes.pop("counts", None)
        log = json.loads(sarif_report(judgements(counts, **changes), "policy.toml", "0.1.0"))
        return [r["partialFingerprints"]["saddlepointEvidence/v1"] for r in log["runs"][0]["results"]]

    first = prints()
    assert len(set(first)) == 2
    assert prints(counts={Verdict.BROKEN: 80, Verdict.CERTIFIED: 20}) == first
    assert prints(digest="other")[0] != first[0]


@pytest.mark.parametrize("mutation", [{"version": "2.0"}, {"extra": 1}])
def test_the_validation_itself_can_fail(mutation):
    log = json.loads(sarif_report(judgements(), "policy.toml", "0.1.0"))
    with pytest.raises(AssertionError):
        conform({**log, **mutation}, SARIF)
