"""A curve over sizes pays for a fallen sample once, and the larger threat's witness replays under it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from test_evaluation_run import TEST, digits_model

from saddlepoint.evaluation import evaluate
from saddlepoint.evaluation.nested import carried, larger, smallest_first
from saddlepoint.evaluation.replay import replay
from saddlepoint.geometry import L2, Linf
from saddlepoint.spec import Access, Cost, Evidence, Method, Subject, Targeted, Threat, Verdict

SIZES = ("1/10", "1/50", "1/20")


def test_order_and_families() -> None:
    small, big, other = Threat(Linf("1/50")), Threat(Linf("1/10")), Threat(L2("1/10"))
    assert smallest_first([big, other, small]) == [small, big, other]
    assert larger(small, [big, other, small]) == [big]
    assert larger(big, [big, other, small]) == []
    for stranger in (Threat(Linf("1/10"), Access.SCORES), Threat(Linf("1/10"), goal=Targeted(1))):
        assert larger(small, [stranger]) == []


def test_what_fell_at_a_size_is_broken_at_larger_ones_and_costs_nothing_there() -> None:
    model = digits_model()
    with evaluate(model, TEST, [Linf(size) for size in SIZES], plan="quick", n=60) as book:
        claims = {c.size: c for c in book.claims()}
        rows = {s: {r.id: r for r in claims[float(Fraction(s))].samples} for s in SIZES}
        fell = [i for i, r in rows["1/50"].items() if r.verdict is Verdict.BROKEN]
        assert fell
        for sample in fell:
            for size in ("1/20", "1/10"):
                assert rows[size][sample].verdict is Verdict.BROKEN
                assert rows[size][sample].backwards == 0
        outcome = list(replay(book, lambda digest: model))
        assert outcome
        assert not any(r.refuted or r.unchecked for r in outcome)


def test_only_checked_falls_travel() -> None:
    """A margin above 0 is a weak bound at a larger size, a lower bound would be wrong there."""
    subject = Subject("model", "0", 1, "content")
    row = Evidence("margin", "upper", -1.0, subject, "small", Method("pgd"), status="checked", cost=Cost(forwards=9))
    others = [
        replace(row, value=0.5),
        replace(row, status="claimed"),
        replace(row, status="refuted"),
        replace(row, side="lower", value=-0.5),
    ]
    to = Threat(Linf("1/10"))
    assert carried([row, *others], to) == [replace(row, threat=to.canonical(), cost=Cost())]
