"""The doctor: every question fires on what it is about, and none fires on a network that is merely robust."""

from __future__ import annotations

import json
from dataclasses import replace

import defences
import pytest
import torch
from torch import Tensor, nn

from paths import SHARED
from saddlepoint.adapters import LoadOptions, from_callable, from_torch, load
from saddlepoint.attack import APGD, PGD
from saddlepoint.data import Batch
from saddlepoint.data import load as load_data
from saddlepoint.evaluation import Plan, Request, run
from saddlepoint.evaluation.doctor import Effort, diagnose, examine
from saddlepoint.evaluation.doctor.case import beats
from saddlepoint.evaluation.doctor.optimisation import still_rising
from saddlepoint.geometry import L2, Linf, RotationTranslation
from saddlepoint.ledger import Ledger
from saddlepoint.spec import Model, Threat

TEST = load_data("digits:test")
BATCH = TEST.take(list(range(48)))
THREAT = Threat(Linf(defences.EPSILON))
SMALL = Effort(samples=20, plain=APGD(steps=20), tries=60)


def model_of(net: nn.Module) -> Model:
    return from_torch(net, (0, 1), shape=(1, 8, 8))


def fired(findings):
    return {finding.id for finding in findings if finding.fires}


def by_id(findings):
    assert len({f.id for f in findings}) == len(findings)
    return {finding.id: finding for finding in findings}


@pytest.mark.parametrize(
    ("threat", "effort"),
    [(Linf("0.15"), Effort()), (Linf("0.05"), SMALL), (L2("0.8"), SMALL), (RotationTranslation(20, 1), SMALL)],
)
def test_it_is_silent_on_an_adversarially_trained_network(threat, effort):
    found = examine(model_of(defences.robust_network()), BATCH, Threat(threat), effort)
    assert fired(found) == set()
    assert {finding.verdict for finding in found} == {"pass"}


def test_it_is_silent_on_a_network_that_just_falls():
    assert fired(examine(model_of(defences.network()), BATCH, THREAT, SMALL)) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arch", "size"),
    [("mnist_lenet5_pgd_eps0.3", "lenet5", "0.3"), ("mnist_wk17_certified_eps0.1", "wk17", "0.1")],
)
def test_it_is_silent_on_robust_reference_models(name, arch, size):
    model = load(str(SHARED / "models" / f"{name}.pt"), LoadOptions(domain=(0, 1), arch=arch))
    batch = load_data(f"{SHARED / 'mnist.npz'}:test").take(list(range(40)))
    assert fired(examine(model, batch, Threat(Linf(size)))) == set()


def test_an_attack_that_hardly_moves_is_incomplete():
    slow = Effort(plain=PGD(steps=20, step_size=0.01, random_start=False, polish=False))
    found = by_id(examine(model_of(defences.network()), BATCH, THREAT, slow))
    assert found["incomplete-optimisation"].verdict == "warn"
    assert found["more-steps"].verdict == "fail"
    assert found["more-steps"].cures == ("steps:80",)
    assert found["black-box"].verdict == "fail"


class Backwards(torch.autograd.Function):
    """The identity, with a gradient of the wrong sign."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, slope: Tensor) -> Tensor:
        return -slope


def test_gradients_that_lead_away_are_found():
    net = defences.defended([("input", Backwards.apply)])
    found = by_id(examine(model_of(net), BATCH, THREAT, SMALL))
    for id in ("misleading-gradients", "black-box", "transfer"):
        assert found[id].verdict == "fail", id


def test_what_depends_on_its_neighbours_is_said():
    net = defences.network()
    crowd = from_callable(lambda x: net(x) + x.mean() * 5 * torch.arange(10), (0, 1), shape=(1, 8, 8))
    found = by_id(examine(crowd, BATCH, THREAT, SMALL))
    assert found["batch"].verdict == "fail"


def test_nan_gradients_are_no_gradients():
    net = defences.network()

    def root(x: Tensor) -> Tensor:
        return net(x) + torch.sqrt((x[:, :1, 0, 0] * 0).abs())  # slope of √|0|: infinite times zero

    found = by_id(examine(from_callable(root, (0, 1), shape=(1, 8, 8)), BATCH, THREAT, SMALL))
    assert found["unavailable-gradients"].verdict == "fail"


def test_too_few_samples_are_not_judged():
    (only,) = examine(model_of(defences.network()), TEST.take([0, 1]), THREAT)
    assert only.verdict == "unknown"


def test_still_rising_is_the_rescaled_rise_of_the_last_ten_steps():
    path = torch.stack([torch.linspace(0, 1, 21), torch.linspace(0, 1, 21).clamp(max=0.25), torch.zeros(21)], 1)
    assert still_rising(path).tolist() == pytest.approx([0.5, 0.0, 0.0])


def test_chance_alone_does_not_beat():
    none = torch.zeros(40, dtype=torch.bool)
    four, five = none.clone(), none.clone()
    four[:4], five[:5] = True, True
    assert beats(four, none) == (4, 0, False)  # 1/16
    assert beats(five, none) == (5, 0, True)  # 1/32
    assert beats(five, ~five) == (5, 35, False)


SCORES_ONLY = Plan("short", lambda threat: [PGD(steps=10)])


def ledger_of(net: nn.Module, size: str = defences.EPSILON, n: int = 24) -> Ledger:
    book = Ledger.temporary()
    run(Request(model_of(net), TEST, (Threat(Linf(size)),), SCORES_ONLY, n=n), book)
    return book


def test_a_ledger_of_a_masked_model_is_broken_and_of_a_plain_one_is_not():
    masked, plain = defences.SINGLE["rounding"](), defences.network()
    with ledger_of(masked) as book:
        (said,) = diagnose(book, lambda digest: model_of(masked), TEST, SMALL)
    found = by_id(said.findings)
    assert found["no-white-box"].value == 1.0
    assert {"no-white-box", "black-box", "stand-in"} <= {f.id for f in said.findings if f.verdict == "fail"}
    with ledger_of(plain, "0.05") as book:
        (said,) = diagnose(book, lambda digest: model_of(plain), TEST, SMALL)
    assert fired(said.findings) == set()
    assert {"silent-success", "fallen-witness", "crashes", "no-white-box"} <= {f.id for f in said.findings}


def test_where_everything_has_fallen_nothing_is_overstated():
    loud = defences.SINGLE["loud"]()
    with ledger_of(loud) as book:
        assert book.bracket().attacked == 0
        (said,) = diagnose(book, lambda digest: model_of(loud), effort=SMALL)
    assert {f.verdict for f in said.findings} == {"pass", "warn"}


def test_silent_success_and_fallen_witnesses_are_seen():
    """The doctor replays what the ledger holds: values that do not fit their witnesses are found on both sides."""
    net = defences.network()
    with ledger_of(net, "0.1") as book:
        rows = [e for e in book.evidence(*book.threats()[0]) if e.proof and e.method.name == "pgd"]
        broken, standing = [e for e in rows if e.value <= 0], [e for e in rows if e.value > 0]
        assert broken
        assert standing
        with book.transaction():
            for row in rows:
                forged = json.dumps({"value": -row.value})
                book._db.execute("UPDATE evidence SET value=?, details=? WHERE key=?", (-row.value, forged, row.key))
        (said,) = diagnose(book, lambda digest: model_of(net), TEST, SMALL)
    found = by_id(said.findings)
    assert found["silent-success"].verdict == "fail"
    assert found["fallen-witness"].verdict == "fail"


def test_without_inputs_nothing_can_be_said():
    net = defences.network()
    with ledger_of(net, "0.1") as book:
        with book.transaction():
            book._db.execute("DELETE FROM inputs")
        (said,) = diagnose(book, lambda digest: model_of(net))
        assert [f.verdict for f in said.findings] == ["unknown"]
        (said,) = diagnose(book, lambda digest: model_of(net), TEST, SMALL)
        assert len(said.findings) > 5


def test_the_same_examination_gives_the_same_findings():
    model = model_of(defences.robust_network())
    order = torch.arange(20)
    small = Batch(BATCH.x[order], BATCH.y[order], BATCH.ids[:20])
    effort = replace(SMALL, samples=12, tries=50)
    assert examine(model, small, THREAT, effort) == examine(model, small, THREAT, effort)
