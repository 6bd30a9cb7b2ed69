"""Curves state true inequalities: brute force over samples at every size, and agreement with each claim."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_example import counted, model_row

from saddlepoint.report.curves import curves, draw, model_colours, position
from saddlepoint.report.learning import learning_curves
from saddlepoint.spec.bracket import Verdict

SIZES = ("1/10", "1/5", "1/2")


# per sample: the size at which it breaks, the size up to which it is certified, whether it is wrong unperturbed
SAMPLES = st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1), st.booleans()), min_size=1, max_size=12)


def family(samples):
    """Claims at three sizes about the same samples, consistent as the fold would make them."""
    n, claims = len(samples), []
    for size in SIZES:
        claim = counted({Verdict.OPEN: n}, kind="linf", size=size)
        rows = []
        for sample, (breaks, holds, wrong) in zip(claim.samples, samples, strict=True):
            verdict, gauge = Verdict.OPEN, None
            if wrong:
                verdict = Verdict.MISCLASSIFIED
            elif breaks <= claim.size:
                verdict, gauge = Verdict.BROKEN, breaks
            elif min(holds, breaks * 0.99) >= claim.size:
                verdict = Verdict.CERTIFIED
            rows.append(replace(sample, verdict=verdict, gauge=gauge))
        counts = {v: sum(row.verdict is v for row in rows) for v in Verdict}
        lost = counts[Verdict.BROKEN] + counts[Verdict.MISCLASSIFIED]
        shares = {"certified": counts[Verdict.CERTIFIED] / n, "attacked": 1 - lost / n}
        claims.append(replace(claim, samples=rows, counts=counts, **shares))
    return claims


@given(SAMPLES)
@settings(max_examples=25)
def test_branches_are_bounds_at_every_size(samples):
    claims = family(samples)
    (curve,) = curves(claims)
    for size in [*curve.sizes, 0.05, 0.15, 0.33]:
        certified, attacked = curve.branches(float(size))
        holds = breaks = 0
        for rows in zip(*(claim.samples for claim in claims), strict=True):
            holds += any(
                row.verdict is Verdict.CERTIFIED and claim.size >= size for row, claim in zip(rows, claims, strict=True)
            )
            breaks += any(
                row.verdict is Verdict.MISCLASSIFIED or (row.gauge is not None and row.gauge <= size) for row in rows
            )
        n = len(claims[0].samples)
        assert certified == pytest.approx(holds / n)
        assert attacked >= 1 - breaks / n - 1e-12  # a witness may be drawn a little further out, never further in


@given(SAMPLES)
@settings(max_examples=25)
def test_the_curve_is_at_least_as_tight_as_every_claim_and_monotone(samples):
    claims = family(samples)
    (curve,) = curves(claims)
    assert (curve.attacked.ravel()[1:] <= curve.attacked.ravel()[:-1]).all()
    assert (curve.certified.ravel()[1:] <= curve.certified.ravel()[:-1]).all()
    for claim in claims:
        certified, attacked = curve.branches(claim.size)
        assert certified >= claim.certified - 1e-12
        assert attacked <= claim.attacked + 1e-12


def test_families_models_and_goals_do_not_mix():
    other = model_row("other", "d1")
    claims = [
        counted({Verdict.OPEN: 2}, kind="linf", size="1/10"),
        counted({Verdict.OPEN: 2}, kind="linf", size="1/5"),
        counted({Verdict.OPEN: 2}, kind="l2", size="1/5"),
        counted({Verdict.OPEN: 2}, other, kind="linf", size="1/10"),
        counted({Verdict.OPEN: 2}, kind="patch", height=2, width=2, at="any"),
    ]
    targeted = replace(claims[0], threat={**claims[0].threat, "goal": {"kind": "targeted", "label": 1}})
    drawn = curves([*claims, targeted])
    assert [len(curve.claims) for curve in drawn] == [2, 1, 1, 1]
    assert drawn[0].key == drawn[2].key  # the other model shares the axes
    assert len({curve.key for curve in drawn}) == 3


def test_rotations_are_nested_when_their_ratio_is_the_same():
    def claim(rotation, shift):
        return counted({Verdict.OPEN: 1}, kind="spatial", rotation=rotation, shift=shift, size="1")

    assert len(curves([claim("30", "3"), claim("15", "3/2")])) == 1
    assert len(curves([claim("30", "3"), claim("15", "3")])) == 2
    assert position(claim("30", "3"), 0.5) == pytest.approx(15.0)
    assert position(claim("0", "4"), 0.5) == pytest.approx(2.0)
    assert position(claim("30", "3"), None) == 30.0


def test_a_witness_without_gauge_counts_at_its_claims_size():
    claim = counted({Verdict.BROKEN: 1, Verdict.OPEN: 1}, kind="linf", size="1/2")
    (curve,) = curves([claim])
    assert curve.branches(0.4) == (0.0, 1.0)
    assert curve.branches(0.5) == (0.0, 0.5)


def test_empty_claims_have_no_curve():
    assert curves([counted({}, kind="linf", size="1/10")]) == []


def test_figures_are_svg_that_takes_the_pages_ink(record):
    drawn = curves(record.claims())
    colours = model_colours(record.models())
    text = draw([c for c in drawn if c.key == drawn[0].key], drawn[0], colours, "f0")
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert root.get("width") is None
    assert "currentColor" in text
    assert "<style" not in text
    for size in ("0.05", "0.1", "0.15"):
        assert f">{size}<" in text  # ticks stand at the sizes that were asked
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert all(i.startswith("f0-") for i in ids)
    assert len(ids) == len(set(ids))
    assert text == draw([c for c in drawn if c.key == drawn[0].key], drawn[0], colours, "f0")


def test_learning_curves_need_two_epochs_and_skip_what_is_not_finite():
    def event(epoch, **values):
        return {"kind": "epoch", "run": "a", "epoch": epoch, **values}

    assert learning_curves([event(0, clean=0.5)]) == []
    assert learning_curves([{"kind": "note", "epoch": 1}, {"kind": "note", "epoch": 2}]) == []
    rows = [event(1, clean=0.5, robust=None), event(0, clean=0.4, robust=float("nan"))]
    (curve,) = learning_curves(rows)
    assert curve.epochs == 2
    assert curve.svg.startswith("<svg")


def test_what_a_guard_said_stands_under_its_own_curve() -> None:
    def epoch(run: str, number: int) -> dict[str, object]:
        return {"kind": "epoch", "run": run, "epoch": number, "clean": 0.9, "robust": 0.5}

    note = {"kind": "guard", "run": "a", "epoch": 2, "guard": "collapse", "text": "one class"}
    first, second = learning_curves([*(epoch(run, number) for run in "ab" for number in (1, 2)), note])
    assert first.notes == ("epoch 2: collapse: one class",)
    assert second.notes == ()
