"""Random models: attacked by the mean of draws, judged by counts over fresh ones, up to the command line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from random_nets import Noise, ResizePad, behind, samples, trained
from saddlepoint.adapters import averaged
from saddlepoint.attack import PGD
from saddlepoint.cli.main import run_app
from saddlepoint.core.errors import StochasticModel
from saddlepoint.data import load as load_data
from saddlepoint.evaluation import Plan, Request, evaluate, run
from saddlepoint.evaluation.replay import replay
from saddlepoint.geometry import Linf
from saddlepoint.ledger import Ledger
from saddlepoint.spec import Threat, Verdict, margin

TEST = load_data("digits:test")
SHORT = Plan("short", lambda threat: [PGD(steps=10, loss="margin")])


def noisy() -> nn.Module:
    """A factory for the command line."""
    return nn.Sequential(Noise(0.5), *trained(0.5)).eval()


def accuracy(model, x, y, draws=200):
    """Share of right answers per sample, over draws that nobody has seen."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return torch.stack([margin(model(x), y) > 0 for _ in range(draws)]).double().mean(0)


def lucky(model, x, y, size, steps=40):
    """PGD that looks at one draw a step and stops at the first wrong answer, as if it had broken the model."""
    found, fallen, point = x.clone(), torch.zeros(len(x), dtype=torch.bool), x.clone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for _ in range(steps):
            point = point.requires_grad_()
            m = margin(model(point), y)
            (g,) = torch.autograd.grad(-m.sum(), point)
            now = (m <= 0) & ~fallen
            found[now], fallen = point.detach()[now], fallen | now
            step = point.detach() + size / 8 * g.sign()
            point = torch.minimum(torch.maximum(step, x - size), x + size).clamp(0, 1)
    return found, fallen


def test_trap_24_success_by_a_lucky_draw_is_no_success():
    """On the same points the lucky attack claims far less accuracy than there is; ours claims no more than is true."""
    model, size = behind(Noise(0.5), 0.5), 0.04
    x, y, _ = samples(100)
    points, fallen = lucky(model, x, y, size)
    claimed, there = 1 - float(fallen.double().mean()), float(accuracy(model, points, y).mean())
    assert claimed < 0.35
    assert there > claimed + 0.3
    with evaluate(averaged(model, 10), TEST, Linf("0.04"), SHORT, n=100) as book:
        claim = book.claims()[0]
        broken = {s.id for s in claim.samples if s.verdict is Verdict.BROKEN}
        rows = [e for e in book.evidence(*book.threats()[0]) if e.value <= 0 and e.proof]
        witness = torch.stack([book.blob(e.proof)["witness"][e.row] for e in rows])
    labels = torch.tensor([e.subject.label for e in rows])
    assert broken == {e.subject.sample for e in rows}
    assert len(broken) > 2
    assert float(accuracy(model, witness, labels).max()) < 0.5  # each of them, on draws that nobody has seen
    assert claim.attacked > claimed + 0.3
    assert 0 < claim.failure_probability < 1e-3


@pytest.mark.parametrize("first", [lambda: Noise(0.2), ResizePad])
def test_a_random_model_that_is_not_robust_is_broken(first):
    model = averaged(behind(first()), 10)
    claim = evaluate(model, TEST, Linf("0.25"), SHORT, n=60).claims()[0]
    assert claim.attacked <= 0.1


def test_evidence_carries_its_counts_and_their_failure_probability():
    model = averaged(behind(Noise(0.5), 0.5), 10)
    book = evaluate(model, TEST, Linf("0.1"), SHORT, n=30)
    rows = list(book.evidence(*book.threats()[0]))
    for row in rows:
        told = json.loads(row.details)
        assert told["drawn"] in (10, 256)
        assert row.failure_probability == (1e-6 if told["wrong"] else 0.0)
        assert (row.value <= 0) == (told["drawn"] == 256 and told["wrong"] >= 167)  # L(167, 256) > 1/2 > L(166, 256)
        assert row.cost.forwards >= told["drawn"] + 10
    total = sum(row.failure_probability for row in rows)
    assert book.claims()[0].failure_probability == pytest.approx(total)


def test_clean_accuracy_counts_the_answer_that_is_more_frequent():
    model = behind(Noise(0.5), 0.5)
    claim = evaluate(averaged(model, 20), TEST, Linf("0.001"), Plan("none", lambda threat: []), n=100).claims()[0]
    x, y, _ = samples(100)
    often = int((accuracy(model, x, y) > 0.5).sum())
    assert abs(claim.clean_k - often) <= 5
    assert claim.counts[Verdict.MISCLASSIFIED] <= 100 - claim.clean_k


def test_a_replay_draws_the_same_numbers_and_refutes_what_is_not_so():
    model = averaged(behind(Noise(0.5), 0.5), 10)
    request = Request(model, TEST, (Threat(Linf("0.1")),), SHORT, n=40)
    with Ledger.temporary() as book:
        run(request, book)
        found = list(replay(book, lambda digest: model, TEST))
        assert sum(r.refuted + r.unchecked for r in found) == 0
        assert sum(r.holds for r in found) > 40
        quiet = averaged(behind(Noise(0.01), 0.5), 10)  # the witnesses are shown to a model with less noise
        found = list(replay(book, lambda digest: replace(quiet, digest=digest), TEST))
        assert sum(r.refuted for r in found) > 0


def test_a_random_model_is_refused_with_the_remedy():
    with pytest.raises(StochasticModel, match="--eot 20"):
        evaluate(behind(Noise(0.5)), TEST, Linf("0.1"), SHORT, n=4)


def test_the_command_line_evaluates_a_random_model(tmp_path, capsys):
    where = ["test_random_models:noisy", "--data", "digits:test", "--domain", "0,1"]
    asked = [*where, "--threat", "linf:0.1", "--n", "20", "--plan", "quick", "--ledger", str(tmp_path / "r.ledger")]
    assert run_app(["run", *asked]) == 2
    assert "--eot 20" in capsys.readouterr().err
    out = tmp_path / "out.json"
    assert run_app(["run", *asked, "--eot", "8", "--json", str(out)]) == 0
    told = json.loads(out.read_text())
    assert 0 < told["threats"][0]["failure_probability"] < 1e-3
    assert told["verdicts"]["BROKEN"] > 0
    assert run_app(["replay", str(tmp_path / "r.ledger"), "--data", "digits:test"]) == 0
    assert run_app(["run", *asked, "--eot", "9"]) == 0  # another number of draws is another model, in the same ledger
