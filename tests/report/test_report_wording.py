"""Words and console lines: rounded outward, and never a number without n and interval."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_example import counted, model_row, threat_of

from saddlepoint.ledger.labels import label_of
from saddlepoint.report.console import summary_lines
from saddlepoint.report.wording import (
    clean_sentence,
    gauge,
    interval,
    seconds,
    sentence,
    threat_detail,
    threat_name,
)
from saddlepoint.spec.bracket import Verdict

ENDS_IN_N = re.compile(r"95 % interval \[\d\.\d{3}, \d\.\d{3}\], n = \d+$")
VERDICTS = st.dictionaries(st.sampled_from(list(Verdict)), st.integers(0, 30))


@given(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_intervals_are_rounded_outward(ends):
    low, high = map(float, interval((ends[0], ends[1]))[1:-1].split(","))
    if math.isclose(*ends, rel_tol=1e-12):  # a closed bracket: one number, to the nearest
        assert low == high
        assert abs(low - ends[0]) <= 0.0005 + 1e-9
        return
    assert low <= ends[0] + 1e-9
    assert high >= ends[1] - 1e-9
    assert low >= ends[0] - 0.001 - 1e-9
    assert high <= ends[1] + 0.001 + 1e-9


@given(st.integers(0, 1000))
def test_thousandths_are_printed_exactly(k):
    assert interval((k / 1000, k / 1000)) == f"[{k / 1000:.3f}, {k / 1000:.3f}]"


def test_the_sentence_of_the_design():
    counts = {Verdict.CERTIFIED: 412, Verdict.OPEN: 35, Verdict.BROKEN: 453, Verdict.MISCLASSIFIED: 100}
    claim = counted(counts, kind="linf", size="8/255")
    assert sentence(claim) == (
        "robust accuracy at ℓ∞ 8/255 lies in [0.412, 0.447]; 95 % interval [0.381, 0.479], n = 1000; 35 samples open"
    )
    assert clean_sentence(claim).startswith("clean accuracy 0.900, 95 % interval [0.879, 0.918], n = 1000")


@pytest.mark.parametrize("verdict", [Verdict.NOT_RUN, Verdict.ERROR, Verdict.CONTRADICTION])
def test_what_is_not_decided_is_named(verdict):
    words = {Verdict.NOT_RUN: "2 samples not run", Verdict.ERROR: "failed with an error"}
    text = sentence(counted({Verdict.CERTIFIED: 5, verdict: 2}))
    assert words.get(verdict, "in CONTRADICTION") in text
    assert "every sample decided" not in text


def test_a_fully_decided_and_an_empty_claim():
    assert sentence(counted({Verdict.BROKEN: 3})).endswith("every sample decided")
    assert "nothing is known" in sentence(counted({}))


def test_certificates_that_hold_with_probability_say_so():
    claim = replace(counted({Verdict.CERTIFIED: 3}), failure_probability=0.001)
    assert sentence(claim).endswith("probability ≥ 0.999")


@given(VERDICTS)
def test_every_console_line_ends_in_n_and_interval(counts):
    claims = [counted(counts), counted(counts, kind="l2", size="1/2"), counted(counts, model_row("b", "d1"))]
    lines = summary_lines(claims)
    assert len(lines) == 5  # two models' clean lines and three claims
    for line in lines:
        assert ENDS_IN_N.search(line), line
        assert "%" not in line.replace("95 % interval", "")


def test_no_claims_no_lines():
    assert summary_lines([]) == []


@pytest.mark.parametrize(
    ("set_", "name"),
    [
        ({"kind": "linf", "size": "8/255"}, "ℓ∞ 8/255"),
        ({"kind": "l0", "size": "20"}, "ℓ0 20"),
        ({"kind": "spatial", "rotation": "30", "shift": "3", "size": "1"}, "rotation ≤ 30°, shift ≤ 3 px"),
        ({"kind": "patch", "height": 5, "width": 4, "at": "any"}, "patch 5×4 anywhere"),
        ({"kind": "patch", "height": 5, "width": 4, "at": [1, 2]}, "patch 5×4 at 1,2"),
    ],
)
def test_threats_by_name(set_, name):
    assert threat_name(label_of(threat_of(**set_))[0]) == name


def test_a_goal_and_a_limited_access_stay_in_the_name():
    threat = {**threat_of(kind="linf", size="1/10"), "access": "SCORES", "goal": {"kind": "targeted", "label": 3}}
    assert threat_name(label_of(threat)[0]) == "ℓ∞ 0.1→3 (scores access)"
    spatial = {**threat_of(kind="spatial", rotation="30", shift="3", size="1"), "access": "LABEL"}
    assert threat_name(label_of(spatial)[0]) == "rotation ≤ 30°, shift ≤ 3 px (label access)"


def test_query_budgets_are_stated():
    claim = counted({Verdict.OPEN: 1})
    assert threat_detail(claim) == ""
    assert threat_detail(replace(claim, threat={**claim.threat, "queries": 500})) == "at most 500 queries"


def test_gauges_speak_the_units_of_the_threat():
    assert gauge(counted({}, kind="linf", size="8/255"), 4 / 255) == "4.00/255"
    assert gauge(counted({}, kind="l2", size="1/2"), 0.25) == "0.25"
    spatial = counted({}, kind="spatial", rotation="30", shift="3", size="1")
    assert gauge(spatial, 0.5) == "0.5 of the range"


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.50 s"), (12.4, "12 s"), (61.0, "1 min 1 s"), (3600.0, "1 h 0 min")]
)
def test_durations(value, text):
    assert seconds(value) == text
