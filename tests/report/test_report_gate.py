"""Judging on the conservative end, against exact binomial limits computed by another formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_example import counted, model_row
from scipy.stats import binom

from saddlepoint.report.gate import Status, gate_exit_code, judge
from saddlepoint.report.policy import parse_policy
from saddlepoint.report.tally import Tally, advice
from saddlepoint.spec.bracket import Verdict

CERT, BROKE, OPEN, WRONG = Verdict.CERTIFIED, Verdict.BROKEN, Verdict.OPEN, Verdict.MISCLASSIFIED


def policy(bound: str, extra: str = "", metric: str = "robust_accuracy"):
    return parse_policy(f'[[require]]\nthreat = "linf:2/255"\nmetric = "{metric}"\n{bound}\n{extra}\n')


def one(claims, asked):
    (judgement,) = judge(claims, asked)
    return judgement


def code(claim, asked):
    return gate_exit_code(judge([claim], asked), [claim])


@pytest.mark.parametrize(
    ("counts", "bound", "extra", "status", "exit_code"),
    [
        ({CERT: 80, OPEN: 10, BROKE: 10}, "at_least = 0.7", "", Status.PASSED, 0),
        ({CERT: 80, OPEN: 10, BROKE: 10}, "at_least = 0.8", "", Status.UNDECIDED, 4),
        ({CERT: 80, OPEN: 10, BROKE: 10}, "at_least = 0.97", "", Status.FAILED, 1),
        ({CERT: 10, OPEN: 80, BROKE: 10}, "at_least = 0.8", 'open = "allow"', Status.ALLOWED, 0),
        ({CERT: 10, OPEN: 80, BROKE: 10}, "at_least = 0.8", 'open = "fail"', Status.UNDECIDED, 4),
        ({CERT: 10, OPEN: 80, BROKE: 10}, "at_least = 0.9", 'open = "allow"', Status.UNDECIDED, 4),
        (
            {CERT: 10, Verdict.ERROR: 80, BROKE: 10},
            "at_least = 0.8",
            'open = "allow"',
            Status.UNDECIDED,
            4,
        ),  # a crash is not robust
        ({CERT: 10, Verdict.NOT_RUN: 80, BROKE: 10}, "at_least = 0.8", 'open = "allow"', Status.UNDECIDED, 4),
        ({CERT: 90, BROKE: 10}, "at_least = 0.7", "samples = 101", Status.UNKNOWN, 4),
        ({CERT: 90, BROKE: 10}, "at_least = 0.7", "samples = 100", Status.PASSED, 0),
        ({BROKE: 100}, "at_most = 0.1", "", Status.PASSED, 0),
        ({CERT: 50, BROKE: 50}, "at_most = 0.1", "", Status.FAILED, 1),
        ({OPEN: 50, BROKE: 50}, "at_most = 0.1", "", Status.UNDECIDED, 4),
        ({OPEN: 50, BROKE: 50}, "at_most = 0.1", 'open = "allow"', Status.ALLOWED, 0),
        ({CERT: 99, Verdict.CONTRADICTION: 1}, "at_least = 0.1", "", Status.CONTRADICTION, 3),
        ({}, "at_least = 0.1", "", Status.UNDECIDED, 4),
    ],
)
def test_decisions(counts, bound, extra, status, exit_code):
    claim = counted(counts)
    judgement = one([claim], policy(bound, extra))
    assert judgement.status is status
    assert code(claim, policy(bound, extra)) == exit_code
    assert "95 % interval" in judgement.message
    assert f"n = {claim.n}" in judgement.message


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.floats(0.01, 0.99))
def test_passed_and_failed_are_exact_binomial_statements(certified, open_, broken, threshold):
    n = certified + open_ + broken
    judgement = one([counted({CERT: certified, OPEN: open_, BROKE: broken})], policy(f"at_least = {threshold!r}"))
    # lower limit of k of n ≥ t  ⇔  P(Bin(n, t) ≥ k) ≤ 0.025: the test by which Clopper and Pearson define it
    too_lucky = binom.sf(certified - 1, n, threshold)
    too_unlucky = binom.cdf(certified + open_, n, threshold)
    if abs(too_lucky - 0.025) > 1e-9 and abs(too_unlucky - 0.025) > 1e-9 and n:
        assert (judgement.status is Status.PASSED) == (certified > 0 and too_lucky < 0.025)
        assert (judgement.status is Status.FAILED) == (certified + open_ < n and too_unlucky < 0.025)


@given(st.integers(0, 40), st.integers(1, 60), st.integers(0, 40), st.floats(0.05, 0.95))
@settings(max_examples=25)
def test_the_advice_is_least_and_true(certified, open_, broken, threshold):
    counts, asked = {CERT: certified, OPEN: open_, BROKE: broken}, policy(f"at_least = {threshold!r}")
    judgement = one([counted(counts)], asked)
    if judgement.status is not Status.UNDECIDED:
        assert judgement.more_certified is None
        assert judgement.more_broken is None
        return

    def after(j, verdict):
        return one([counted({**counts, OPEN: open_ - j, verdict: counts[verdict] + j})], asked).status

    if j := judgement.more_certified:
        assert after(j, CERT) is Status.PASSED
        assert after(j - 1, CERT) is Status.UNDECIDED
    else:
        assert after(open_, CERT) is not Status.PASSED
    if j := judgement.more_broken:
        assert after(j, BROKE) is Status.FAILED
        assert after(j - 1, BROKE) is Status.UNDECIDED
    else:
        assert after(open_, BROKE) is not Status.FAILED
    if judgement.more_certified or judgement.more_broken:
        assert judgement.samples_needed is None


def test_a_decided_but_small_sample_asks_for_more():
    hints = advice([Tally(68, 68, 100)], 0.6, at_least=True)
    assert hints.more_certified is None
    assert hints.more_broken is None
    larger = hints.samples_needed
    assert larger is not None
    assert larger > 100
    assert Tally(int(0.68 * larger), larger, larger).limits[0] > 0.6
    assert Tally(int(0.68 * (larger - 10)), larger - 10, larger - 10).limits[0] < 0.6
    assert advice([Tally(60, 60, 100)], 0.6, at_least=True).samples_needed is None  # the share is the threshold


def test_clean_accuracy_needs_no_threat_and_takes_the_largest_sample():
    small, large = counted({CERT: 9, WRONG: 1}), counted({CERT: 900, WRONG: 100}, kind="l2", size="1")
    asked = parse_policy('[[require]]\nmetric = "clean_accuracy"\nat_least = 0.87\n')
    judgement = one([small, large], asked)
    assert judgement.n == 1000
    assert judgement.status is Status.PASSED
    assert judgement.bracket == (0.9, 0.9)


def test_the_worst_class_is_judged_with_limits_that_hold_together():
    model = model_row(classes=2)
    claim = counted({CERT: 200}, model)
    half = replace(
        claim,
        samples=[replace(s, verdict=BROKE if s.label == 1 and i < 100 else CERT) for i, s in enumerate(claim.samples)],
    )
    asked = policy("at_least = 0.9", metric="worst_class_robust_accuracy")
    assert one([claim], asked).status is Status.PASSED
    judgement = one([half], asked)
    assert judgement.status is Status.FAILED
    assert judgement.bracket == (0.5, 0.5)
    assert "worst class '1'" in judgement.message
    # level 1 − 0.05 / 2 per class, so wider than the plain interval of 50 of 100
    assert judgement.ci95[0] < Tally(50, 50, 100).limits[0]


def test_a_class_without_samples_is_unknown_not_good():
    claim = counted({CERT: 300}, model_row(classes=3))
    without = replace(claim, samples=[s for s in claim.samples if s.label != 2], n=200)
    judgement = one([without], policy("at_least = 0.5", metric="worst_class_robust_accuracy"))
    assert judgement.status is Status.UNDECIDED
    assert "class 2 has no sample" in judgement.message


def test_class_names_appear():
    model = model_row(classes=2, class_names=("cat", "stop sign"))
    claim = counted({CERT: 50, BROKE: 50}, model)
    judgement = one([claim], policy("at_least = 0.9", metric="worst_class_robust_accuracy"))
    assert "'cat'" in judgement.message or "'stop sign'" in judgement.message


def test_what_the_ledger_does_not_hold_is_unknown():
    claim = counted({CERT: 10})
    other = parse_policy('[[require]]\nthreat = "l2:1"\nmetric = "robust_accuracy"\nat_least = 0.1\n')
    assert one([claim], other).status is Status.UNKNOWN
    assert one([], other).status is Status.UNKNOWN
    finding = parse_policy('[[require]]\nmetric = "D1"\nat_most = 3\n')
    assert one([claim], finding).status is Status.UNKNOWN
    assert gate_exit_code(judge([claim], finding)) == 4


@pytest.mark.parametrize(
    ("finding", "status"),
    [
        ({"id": "D1", "value": 2.0}, Status.PASSED),
        ({"id": "D1", "value": 5.0}, Status.FAILED),
        ({"id": "D1", "value": 2.0, "ci95": [1.0, 4.0]}, Status.UNDECIDED),
        ({"id": "D1", "value": None}, Status.UNKNOWN),
        ({"id": "D1", "value": float("nan")}, Status.UNKNOWN),
    ],
)
def test_findings(finding, status):
    (judgement,) = judge([], parse_policy('[[require]]\nmetric = "D1"\nat_most = 3\n'), [finding])
    assert judgement.status is status


def test_every_model_is_judged_unless_one_is_named():
    good, bad = counted({CERT: 100}, model_row("good", "d1")), counted({BROKE: 100}, model_row("bad", "d2"))
    assert [j.status for j in judge([good, bad], policy("at_least = 0.5"))] == [Status.PASSED, Status.FAILED]
    named = policy("at_least = 0.5", 'model = "good"')
    assert [j.status for j in judge([good, bad], named)] == [Status.PASSED]
    assert one([good], policy("at_least = 0.5", 'model = "other"')).status is Status.UNKNOWN


def test_the_worst_exit_code_wins():
    passed, failed = counted({CERT: 100}, model_row("a", "d1")), counted({BROKE: 100}, model_row("b", "d2"))
    open_ = counted({OPEN: 100}, model_row("c", "d3"))
    asked = policy("at_least = 0.5")
    assert gate_exit_code(judge([passed], asked)) == 0
    assert gate_exit_code(judge([passed, open_], asked)) == 4
    assert gate_exit_code(judge([passed, open_, failed], asked)) == 1
    unsound = counted({Verdict.CONTRADICTION: 1}, kind="l2", size="1")
    assert gate_exit_code(judge([passed, failed], asked), [passed, failed, unsound]) == 3


def test_the_worst_witnesses_come_nearest_first():
    claim = counted({BROKE: 8, CERT: 2})
    samples = [replace(s, gauge=g / 1000) for s, g in zip(claim.samples, [8, 3, 5, 1, 2, 9, 7, 6, 0, 0], strict=True)]
    judgement = one([replace(claim, samples=samples)], policy("at_least = 0.9"))
    assert [w.gauge for w in judgement.witnesses] == [0.001, 0.002, 0.003, 0.005, 0.006]
