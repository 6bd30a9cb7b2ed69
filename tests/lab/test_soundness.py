"""The self-test of the verifier: its truths are true, our verifier passes, and verifiers that lie are caught."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from saddlepoint.cli.main import run_app
from saddlepoint.lab.soundness import self_test
from saddlepoint.lab.soundness.cases import Case, cases
from saddlepoint.lab.soundness.exact import exact, minimum


def test_exact_minima_are_minima() -> None:
    """No sampled point is below, and the point that is named takes the value."""
    draw = torch.Generator().manual_seed(5)
    for case in list(cases(40, seed=3))[:40]:
        low, high = (tuple(Fraction(v) for v in t.tolist()) for t in (case.lower, case.upper))
        net = exact(case.layers)
        least, where = minimum(net, low, high)
        assert least == net(where) == case.least
        assert all(a <= v <= b for a, v, b in zip(low, where, high, strict=True))
        points = torch.rand(400, len(case.lower), generator=draw, dtype=torch.float64)
        points = case.lower + points * (case.upper - case.lower)
        values = case.graph.to(torch.float64)(points)
        assert float(values.min()) >= float(least) - 1e-12


def test_the_margins_are_the_ones_that_were_asked_for() -> None:
    sizes = {round(abs(float(c.least or 0)), 8) for c in cases(16) if c.family == "enumerated"}
    assert min(sizes) < 2e-7
    assert max(sizes) > 0.05


def test_our_verifier_gives_no_wrong_answer() -> None:
    report = self_test(12, seed=1, seconds=1.0)
    assert not report.wrong
    assert set(report.words) == {"enumerated", "planted", "radius", "degenerate", "scaled", "broken"}
    assert report.words["enumerated"]["sat"] >= 3
    assert report.words["enumerated"]["unsat"] >= 2
    assert report.words["radius"]["sat"] + report.words["radius"]["unsat"] >= 8
    assert set(report.words["broken"]) <= {"unknown"}


def unsat(case: Case, seconds: float) -> tuple[str, Tensor | None]:
    return "unsat", None


def middle(case: Case, seconds: float) -> tuple[str, Tensor | None]:
    return "sat", (case.lower + case.upper) / 2


def outside(case: Case, seconds: float) -> tuple[str, Tensor | None]:
    return "sat", case.upper + 100


def rounded(case: Case, seconds: float) -> tuple[str, Tensor | None]:
    """unsat whenever float32 sampling sees no violation, as if rounding and holes were not there."""
    draw = torch.Generator().manual_seed(0)
    points = case.lower + torch.rand(300, len(case.lower), generator=draw) * (case.upper - case.lower)
    low = float(case.graph(points.float()).min())
    return ("unsat", None) if low > -1e-6 else ("unknown", None)


@pytest.mark.parametrize("liar", [unsat, middle, outside, rounded])
def test_verifiers_that_guess_are_caught(liar) -> None:
    report = self_test(16, seed=2, ask=liar)
    assert len(report.wrong) >= 5
    assert report.asked == 76


def test_the_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr("saddlepoint.lab.soundness.run.answer", lambda case, seconds: ("unknown", None))
    assert run_app(["lab", "soundness", "-o", str(tmp_path)]) == 0
    assert "0 wrong answers" in capsys.readouterr().out
    assert json.loads((tmp_path / "soundness.json").read_text())["asked"] == 260
    monkeypatch.setattr("saddlepoint.lab.soundness.run.answer", unsat)
    assert run_app(["lab", "soundness"]) == 1
    assert "WRONG" in capsys.readouterr().out
    assert run_app(["lab"]) == 0
    assert "soundness" in capsys.readouterr().out
    assert run_app(["lab", "nothing"]) == 2
