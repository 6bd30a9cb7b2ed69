"""Smoothed predictors from loading to the report: a subject of its own, attacked and certified by counts."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from random_nets import samples, trained
from saddlepoint.adapters import Counting, LoadOptions, from_torch, load, smoothed
from saddlepoint.attack import PGD
from saddlepoint.check.draws import count
from saddlepoint.check.smoothing import doubtful, recheck_counts
from saddlepoint.check.witness import replay as replay_witness
from saddlepoint.cli.main import run_app
from saddlepoint.core.errors import InputError, NotAvailable, StochasticModel
from saddlepoint.data import load as load_data
from saddlepoint.evaluation import Plan, evaluate
from saddlepoint.evaluation.replay import replay
from saddlepoint.geometry import L1, L2, Box, Linf
from saddlepoint.ledger import Ledger
from saddlepoint.spec import Noise, Smoothing, Targeted, Threat, Untargeted, Verdict

TEST = load_data("digits:test")
SHORT = Plan("short", lambda threat: [PGD(steps=5, loss="margin")])
UNIT = Box(0.0, 1.0)


def net() -> nn.Module:
    """A factory for the command line."""
    return trained(0.5)


@cache
def plain():
    return from_torch(net(), (0, 1), shape=(1, 8, 8))


def digits(**counting: float):
    how = Counting(**({"n": 500, "alpha": 0.01} | counting))
    return smoothed(plain(), Noise("gaussian", 0.3), how)


def half_space(scale: float):
    """Class 1 iff x₁ > 1/2, smoothed: P(class 1 at x) = Φ((x₁ − 1/2) / σ)."""
    layer = nn.Linear(1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        layer.bias.copy_(torch.tensor([0.5, -0.5]))
    return smoothed(from_torch(layer, (0, 1), shape=(1,)), Noise("gaussian", scale))


def test_a_smoothed_model_is_a_subject_of_its_own():
    a, b = smoothed(plain(), Noise("gaussian", 0.25)), smoothed(plain(), Noise("gaussian", 0.5))
    uniform = smoothed(plain(), Noise("uniform", 0.25))
    denoised = smoothed(plain(), Noise("gaussian", 0.25), denoiser=nn.Hardtanh(0.0, 1.0))
    assert len({plain().digest, a.digest, b.digest, uniform.digest, denoised.digest}) == 5
    assert a.digest == smoothed(plain(), Noise("gaussian", 0.25), Counting(n=77)).digest  # how one counts is not g
    assert a.graph is None
    x, _, _ = samples(7)
    assert torch.allclose(a(x)[:3], a(x[:3]), atol=1e-6)
    with pytest.raises(StochasticModel):
        smoothed(a, Noise("gaussian", 0.1))
    with pytest.raises(InputError, match="same shape"):
        smoothed(plain(), Noise("gaussian", 0.1), denoiser=nn.Flatten())


def test_a_rival_breaks_it_only_if_that_is_sure():
    """At x₁ the truth is P(0) − P(1) = 1 − 2 Φ((x₁ − 1/2)/σ) for label 0."""
    model = half_space(0.2)
    x = torch.tensor([[0.1], [0.45], [0.5], [0.55], [0.9]])
    found = count(model, Untargeted(), x, torch.zeros(5, dtype=torch.int64))
    truth = 1 - 2 * torch.as_tensor(norm.cdf((x[:, 0] - 0.5) / 0.2))
    assert (found.value <= 0).tolist() == [False, False, False, True, True]
    assert bool((found.value >= truth).all())
    assert found.drawn[-1] == 1000
    with pytest.raises(NotAvailable, match="targets"):
        count(model, Targeted(1), x, torch.zeros(5, dtype=torch.int64))


def test_a_third_class_in_front_of_the_label_is_the_rival():
    """P = (0.4, 0.35, 0.25) for label 0: single answers are wrong more often than right, and g is right."""

    def draw(x: Tensor, number: int) -> Tensor:
        u = (number * 0.6180339887498949) % 1.0
        return (
            nn.functional.one_hot(torch.tensor([0 if u < 0.4 else 1 if u < 0.75 else 2]), 3).float().expand(len(x), 3)
        )

    base = half_space(0.2)
    assert base.sampling is not None
    model = replace(base, classes=3, sampling=replace(base.sampling, draw=draw))
    one = torch.zeros(1, 1)
    assert float(count(model, Untargeted(), one, torch.tensor([0])).value) > 0
    assert float(count(model, Untargeted(), one, torch.tensor([2])).value) <= 0


def test_the_checker_computes_the_bound_from_counts_and_draws_against_false_ones():
    model, x = half_space(0.2), torch.tensor([[0.6]])
    assert model.smoothing is not None
    failure = torch.tensor([0.001], dtype=torch.float64)
    honest = {"votes": torch.tensor([6800]), "drawn": torch.tensor([10_000])}  # Φ(0.5) = 0.69
    forged = {"votes": torch.tensor([9990]), "drawn": torch.tensor([10_000])}
    y = torch.tensor([1])
    assert not bool(doubtful(model, x, y, honest, failure))
    assert bool(doubtful(model, x, y, forged, failure))
    small = recheck_counts(model.smoothing, L2("0.05").canonical(), 1, honest, failure)
    assert 0 < float(small) < 2 * 0.6915 - 1
    assert float(recheck_counts(model.smoothing, L2("0.1").canonical(), 1, honest, failure)) < 0  # the true radius
    linf = recheck_counts(model.smoothing, Linf("0.05").canonical(), 4, honest, failure)
    assert torch.equal(linf, recheck_counts(model.smoothing, L2("0.1").canonical(), 1, honest, failure))
    with pytest.raises(NotAvailable, match="no radius"):
        recheck_counts(model.smoothing, {"kind": "l0", "size": "1"}, 1, honest, failure)
    with pytest.raises(InputError, match="lacks"):
        recheck_counts(model.smoothing, L2("0.1").canonical(), 1, {"votes": honest["votes"]}, failure)
    with pytest.raises(InputError, match="failure probability"):
        recheck_counts(model.smoothing, L2("0.1").canonical(), 1, honest, torch.zeros(1, dtype=torch.float64))
    uniform = Smoothing(model.smoothing.base, Noise("uniform", 0.2))
    assert float(recheck_counts(uniform, L1("0.05").canonical(), 1, honest, failure)) > 0  # λ (2 p − 1) = 0.07
    assert float(recheck_counts(uniform, L1("0.08").canonical(), 1, honest, failure)) < 0


def test_run_certifies_and_breaks_a_smoothed_model_and_replay_agrees():
    model = digits()
    with evaluate(model, TEST, [L2("0.1"), L2("2")], SHORT, n=10) as book:
        small, large = sorted(book.claims(), key=lambda claim: claim.size)
        assert small.counts[Verdict.CERTIFIED] > 4
        assert large.counts[Verdict.BROKEN] > 4
        assert large.counts[Verdict.CERTIFIED] == 0
        certified = small.counts[Verdict.CERTIFIED]
        assert certified * 0.01 <= small.failure_probability <= certified * 0.01 + 0.01
        rows = list(book.evidence(model.digest, Threat(L2("0.1")).within(model.domain).canonical()))
        lower = [e for e in rows if e.side == "lower" and e.status == "checked"]
        assert {e.method.name for e in lower} == {"smoothing"}
        assert {e.failure_probability for e in lower} == {0.01}
        assert all(json.loads(e.details)["radius"] > 0.1 for e in lower)
        again = list(replay(book, lambda digest: model, TEST))
        assert sum(r.refuted for r in again) == 0
        assert sum(r.unchecked for r in again) == 0
        assert sum(r.holds for r in again) == sum(
            e.status == "checked" for m, t in book.threats() for e in book.evidence(m, t)
        )


def test_certificates_of_all_images_together_fail_with_alpha():
    model = digits(alpha=0.02, images=6)
    claim = evaluate(model, TEST, L2("0.1"), SHORT, n=6).claims()[0]
    assert claim.counts[Verdict.CERTIFIED] > 2
    assert claim.failure_probability <= 0.02 + 6 * 2e-6


def test_the_sample_s_own_answer_is_a_count_too():
    model = digits()
    x, y, _ = samples(10)
    seen = replay_witness(model, Threat(L2("0.1", box=UNIT)).canonical(), x, y)
    assert seen.counted is not None
    assert bool((seen.value > 0).any())


def test_options_say_what_is_smoothed_and_nonsense_is_refused(tmp_path):
    spec = f"{__name__}:net"
    options = LoadOptions(domain=(0, 1), shape=(1, 8, 8))
    model = load(spec, replace(options, smooth="lambda=1/2,n0=10,n=300,alpha=0.05,images=3"))
    assert model.smoothing is not None
    assert model.smoothing.noise == Noise("uniform", 0.5)
    assert (model.smoothing.n0, model.smoothing.n, model.smoothing.alpha, model.smoothing.images) == (10, 300, 0.05, 3)
    denoised = load(spec, replace(options, smooth="sigma=0.25,denoiser=torch.nn:Sigmoid"))
    assert denoised.digest != load(spec, replace(options, smooth="sigma=0.25")).digest
    for wrong in ("n=10", "sigma=0.1,lambda=1", "sigma=0.1,n=ten", "sigma=0.1,sigma=0.2", "sigma=0", "sigma=1,alpha=2"):
        with pytest.raises(InputError):
            load(spec, replace(options, smooth=wrong))
    with pytest.raises(InputError, match="two ways"):
        load(spec, replace(options, smooth="sigma=0.1", eot=5))


def test_the_command_line_runs_and_replays_a_smoothed_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    smooth = ["--smooth", "sigma=0.3,n0=20,n=300,alpha=0.05", "--domain", "0,1"]
    plan = tmp_path / "plan.toml"
    plan.write_text('[[stage]]\nmethod = "pgd"\nsteps = 3\n', encoding="utf-8")
    common = [f"{__name__}:net", "--data", "digits:test", "--threat", "l2:0.1", "--n", "6", "--plan", str(plan)]
    assert run_app(["run", *common, *smooth, "--ledger", "a.ledger", "--json", "a.json"]) == 0
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["verdicts"]["CERTIFIED"] > 2
    assert run_app(["replay", "a.ledger"]) == 0
    assert "0 refuted, 0 not checked" in capsys.readouterr().out
    with Ledger(tmp_path / "a.ledger") as book:
        assert "smoothed" in book.models()[0].name
    assert run_app(["run", *common, *smooth, "--adapt"]) == 2
