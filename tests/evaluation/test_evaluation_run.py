"""The main job: brackets that hold, the same whatever the batch, the order, the workers or the interruptions."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from dataclasses import dataclass, replace

import pytest
import torch

from saddlepoint.adapters import LoadOptions, from_callable, load
from saddlepoint.attack import PGD, Attack
from saddlepoint.bound.crown import CROWN
from saddlepoint.bound.interval import Interval
from saddlepoint.core.errors import Contradiction, DataError, InputError, InputOutsideDomain, StochasticModel
from saddlepoint.data import from_arrays
from saddlepoint.data import load as load_data
from saddlepoint.evaluation import Plan, Request, Work, evaluate, plan_named, run
from saddlepoint.evaluation.replay import replay
from saddlepoint.evaluation.seconds import seconds_of
from saddlepoint.geometry import L2, Linf, Patch, RotationTranslation
from saddlepoint.ledger import Ledger
from saddlepoint.spec import Access, Model, Targeted, Threat, Verdict
from tests_support import digits_model, digits_weights

SHORT = Plan("short", lambda threat: [PGD(steps=5), Interval(), CROWN(), PGD(steps=15, loss="margin")])
TEST = load_data("digits:test")


@dataclass(frozen=True)
class Source:
    """Loads the model in a worker."""

    path: str

    def __call__(self) -> Model:
        return load(self.path, LoadOptions())


def request(**changes):
    source = Source(str(digits_weights()))
    base = Request(digits_model(), TEST, (Threat(Linf("0.06")),), SHORT, n=48, work=Work(batch=16), source=source)
    return replace(base, **changes)


def told(ledger):
    """Everything that must not depend on how the run went: keys, statuses, values (costs aside)."""
    rows = [(e.key, e.status, e.value) for model, threat in ledger.threats() for e in ledger.evidence(model, threat)]
    verdicts = [(s.id, s.verdict, s.lower, s.upper, s.by) for claim in ledger.claims() for s in claim.samples]
    return sorted(rows), verdicts


@pytest.fixture(scope="module")
def reference():
    """An uninterrupted run."""
    with Ledger.temporary() as book:
        run(request(), book)
        yield told(book), book


def test_the_bracket_is_honest(reference):
    claim = reference[1].bracket()
    assert claim.counts[Verdict.CONTRADICTION] == claim.counts[Verdict.NOT_RUN] == claim.counts[Verdict.ERROR] == 0
    assert sum(claim.counts.values()) == claim.n == 48
    assert claim.certified <= claim.attacked
    assert claim.counts[Verdict.CERTIFIED] > 0
    assert claim.counts[Verdict.BROKEN] > 0
    for sample in claim.samples:
        if sample.lower is not None and sample.upper is not None:
            assert sample.lower <= sample.upper


def test_everything_replays(reference):
    results = list(replay(reference[1], lambda digest: digits_model(), TEST))
    assert sum(r.refuted for r in results) == sum(r.unchecked for r in results) == 0
    assert results[0].holds == sum(1 for _, status, _ in reference[0][0] if status == "checked")


def test_the_same_call_again_does_nothing_new(reference):
    before, book = reference
    told_again = []
    run(request(), book, lambda progress: told_again.append(progress.total))
    assert sum(told_again) == 0
    assert told(book) == before


def test_more_samples_reuse_what_is_there(tmp_path):
    with Ledger(tmp_path / "a.ledger") as book:
        run(request(n=16), book)
        first = {e.key for e in book.evidence(*book.threats()[0])}
        run(request(n=48), book)
        assert first <= {e.key for e in book.evidence(*book.threats()[0])}
        assert book.bracket().n == 48


def test_trap_07_verdicts_do_not_depend_on_the_batch(reference):
    for batch in (1, 7, 64):
        with Ledger.temporary() as book:
            run(request(work=Work(batch=batch)), book)
            assert [v[:2] for v in told(book)[1]] == [v[:2] for v in reference[0][1]]


def test_workers_change_nothing_bitwise_when_deterministic():
    found = []
    for workers in (1, 2):
        with Ledger.temporary() as book:
            run(request(workers=workers, work=Work(batch=16, deterministic=True)), book)
            found.append(told(book))
    assert found[0] == found[1]


def test_twenty_kills_lose_nothing(reference, tmp_path):
    begun = time.perf_counter()
    with Ledger(tmp_path / "timing.ledger") as book:
        run(request(), book)
    whole = time.perf_counter() - begun
    moments = random.Random(0)
    cut = 0
    for i in range(20):
        path = tmp_path / f"{i}.ledger"
        child = os.fork()
        if child == 0:
            try:
                with Ledger(path) as book:
                    run(request(), book)
            finally:
                os._exit(0)
        time.sleep(moments.uniform(0, whole))
        os.kill(child, signal.SIGKILL if i % 2 else signal.SIGINT)
        os.waitpid(child, 0)
        with Ledger(path) as book:
            cut += not any(not r.interrupted for r in book.runs())
            run(request(), book)
            assert told(book) == reference[0]
    assert cut >= 5  # otherwise the signals came too late to test anything


def test_a_time_budget_leaves_a_valid_bracket(tmp_path):
    with Ledger(tmp_path / "a.ledger") as book:
        run(request(budget=1e-6), book)
        claim = book.bracket()
        assert claim.counts[Verdict.NOT_RUN] == 48
        assert (claim.certified, claim.attacked) == (0.0, 1.0)
        run(request(), book)
        assert book.bracket().counts[Verdict.NOT_RUN] == 0


def test_several_threats_and_a_parametric_one():
    threats = [Linf("0.03"), L2("0.2"), RotationTranslation("20", "1")]
    with evaluate(digits_model(), TEST, threats, plan="quick", n=20) as book:
        claims = book.claims()
        assert [c.family for c in claims] == ["linf", "l2", "spatial"]
        assert claims[2].certified == 0.0  # no certificate for rendered sets: said so
        assert "spatial:rot=20,shift=1: crown bounds sets of points, not of parameters" in book.runs()[0].untested
        model, threat = book.threats()[2]
        shown = book.exhibits(model, threat)
        assert shown
        assert all(e.parameters is not None and len(e.parameters) == 3 for e in shown)
        assert shown[0].logits.shape == (3, 10)
        assert not any(r.refuted for r in replay(book, lambda digest: digits_model()))


def test_nested_sizes_give_nested_brackets():
    sizes = ["0.02", "0.05", "0.1"]
    with evaluate(digits_model(), TEST, [Linf(size) for size in sizes], plan=SHORT, n=40) as book:
        claims = book.claims()
    certified = [{s.id for s in c.samples if s.verdict is Verdict.CERTIFIED} for c in claims]
    broken = [{s.id for s in c.samples if s.verdict is Verdict.BROKEN} for c in claims]
    for small in range(3):
        for large in range(small, 3):
            # what is certified at a size cannot be broken at a smaller one
            assert not certified[large] & broken[small]


@dataclass(frozen=True)
class Exploding(PGD):
    """An attack with a bug."""

    def init(self, rows):
        raise ValueError("a bug in the attack")


@dataclass(frozen=True)
class TooGood:
    """A bound that claims what is not so; the checker must not be impressed."""

    name = "too-good"

    def __call__(self, graph, set, x, C=None, *, warm=None):
        bounds = CROWN()(graph, set, x, C)
        return replace(bounds, lower=bounds.lower + 1000)


def test_trap_08_a_crash_is_an_error_never_robust():
    with evaluate(digits_model(), TEST, Linf("0.06"), plan=Plan("bug", lambda t: [Exploding()]), n=20) as book:
        claim = book.bracket()
        assert claim.counts[Verdict.ERROR] == 20 - claim.counts[Verdict.MISCLASSIFIED]
        assert claim.certified == 0.0
        assert {m.name: m.failed for m in claim.methods}["pgd"] == claim.counts[Verdict.ERROR]


def test_an_unsound_bound_is_not_believed():
    with evaluate(digits_model(), TEST, Linf("0.3"), plan=Plan("x", lambda t: [PGD(steps=5), TooGood()]), n=20) as book:
        assert book.bracket().counts[Verdict.CERTIFIED] == book.bracket().counts[Verdict.CONTRADICTION] == 0


def test_a_contradiction_stops_the_line(tmp_path, monkeypatch):
    from saddlepoint.evaluation import certify

    monkeypatch.setattr(certify, "recheck", lambda graph, described, x, C, proof, name: torch.full(C.shape[:2], 5.0))
    plan = Plan("x", lambda t: [TooGood()])
    with Ledger(tmp_path / "a.ledger") as book:
        with pytest.raises(Contradiction, match="unsound"):
            run(request(plan=plan), book)
        assert book.bracket().counts[Verdict.CONTRADICTION] > 0


def test_replay_refutes_what_does_not_hold(tmp_path):
    path = tmp_path / "a.ledger"
    with Ledger(path) as book:
        run(request(), book)
        model, threat = book.threats()[0]
        certified = [e for e in book.evidence(model, threat) if e.side == "lower" and e.status == "checked"]
        broken = [e for e in book.evidence(model, threat) if e.side == "upper" and e.proof and e.value <= 0]
        forged = [replace(certified[0], value=certified[0].value + 1), replace(broken[0], value=broken[0].value - 1)]
        with book.transaction():
            book.add(forged)
        results = list(replay(book, lambda digest: digits_model()))
        assert sum(r.refuted for r in results) == 2
        statuses = {e.key: e.status for e in book.evidence(model, threat)}
        assert [statuses[e.key] for e in forged] == ["refuted", "refuted"]


@pytest.mark.parametrize(("lower", "refuted"), [(0.0, 0), (1e-4, 1)])
def test_replay_allows_a_margin_no_more_than_rounding(tmp_path, lower, refuted):
    """A claimed margin may be off by a millionth of the largest logit, which is below 50 here."""
    with Ledger(tmp_path / "a.ledger") as book:
        run(request(), book)
        model, threat = book.threats()[0]
        broken = next(e for e in book.evidence(model, threat) if e.side == "upper" and e.proof and e.value <= 0)
        with book.transaction():
            book.add([replace(broken, value=broken.value - lower)])
        results = list(replay(book, lambda digest: digits_model()))
        assert sum(r.refuted for r in results) == refuted


def test_replay_refuses_another_model(reference):
    other = replace(digits_model(), digest="0" * 64)
    with pytest.raises(InputError, match="--model"):
        list(replay(reference[1], lambda digest: other))


def arrays(**changes):
    x, y = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 10
    return from_arrays(changes.get("x", x).numpy(), changes.get("y", y).numpy())


def test_bad_input_is_refused_with_the_remedy():
    model = digits_model()
    with pytest.raises(InputOutsideDomain, match="mean"):
        evaluate(model, arrays(x=torch.randn(12, 1, 8, 8)), Linf("0.1"), n=12)
    with pytest.raises(DataError, match="classes"):
        evaluate(model, arrays(y=torch.arange(12)), Linf("0.1"))
    with pytest.raises(DataError, match="shape"):
        evaluate(model, arrays(x=torch.rand(12, 1, 9, 9)), Linf("0.1"))
    with pytest.raises(InputError, match="n = 500"):
        evaluate(model, arrays(), Linf("0.1"), n=500)
    with pytest.raises(InputError, match="no threat"):
        evaluate(model, arrays(), [])
    with pytest.raises(InputError, match="no duration"):
        evaluate(model, arrays(), Linf("0.1"), budget="soon")


def test_a_random_model_is_refused_with_what_it_means():
    with pytest.raises(StochasticModel, match="one draw bounds nothing"):
        evaluate(replace(digits_model(), stochastic=True), TEST, Linf("0.1"), n=10)


def test_scores_only_models_are_attacked_black_box_and_the_rest_is_said():
    net = digits_model()
    model = from_callable(lambda x: net(torch.as_tensor(x)).detach().numpy(), (0, 1), shape=(1, 8, 8), classes=10)
    assert model.access in (Access.SCORES, Access.LABEL)
    with evaluate(model, TEST, Linf("0.3"), plan="standard", n=20) as book:
        claim = book.bracket()
        assert claim.certified == 0.0
        assert claim.counts[Verdict.ERROR] == 0
        untested = " ".join(book.runs()[0].untested)
        assert "pgd needs GRADIENT access" in untested
        assert "crown needs the model's graph" in untested


def test_twins_in_the_data_are_two_samples():
    x = TEST.take([0, 0, 1, 2]).x
    y = TEST.take([0, 0, 1, 2]).y
    with evaluate(digits_model(), from_arrays(x.numpy(), y.numpy()), Linf("0.01"), plan="quick") as book:
        assert book.bracket().n == 4
        assert book.bracket().counts[Verdict.NOT_RUN] == 0
        assert not any(r.refuted or r.unchecked for r in replay(book, lambda digest: digits_model()))


def test_plans_by_name_and_by_file(tmp_path):
    assert [s.name for s in plan_named("quick").stages(Threat(Linf("0.1")))][:2] == ["clean", "pgd"]
    with pytest.raises(InputError, match="quick, standard, strong"):
        plan_named("nonsense")
    path = tmp_path / "plan.toml"
    path.write_text('[[stage]]\nmethod = "apgd"\nsteps = 7\n[[stage]]\nmethod = "saddlepoint.attack:PGD"\nsteps = 3\n')
    stages = plan_named(str(path)).stages(Threat(Linf("0.1")))
    assert [json.loads(s.method(0).parameters).get("steps") for s in stages] == [None, 7, 3]
    for text, wrong in (("[[stage]]\nmethod='pdg'", "no method"), ("[[stage]]\nmethod='pgd'\nstep=3", "no parameter")):
        path.write_text(text)
        with pytest.raises(InputError, match=wrong):
            plan_named(str(path))


def test_durations():
    assert seconds_of("1h30m") == 5400
    for text in ("", "ten", "-3s", "0s", "3d"):
        with pytest.raises(InputError, match="90s"):
            seconds_of(text)


def test_random_choice_of_samples_is_nested_and_seeded(tmp_path):
    with Ledger(tmp_path / "a.ledger") as book:
        few = run(request(n=10, sample="random", budget=1e-6), book)
        more = run(request(n=30, sample="random", budget=1e-6), book)
    assert few.contents < more.contents


def test_attack_protocol_is_what_plans_import():
    assert issubclass(PGD, Attack)


def test_logits_that_overflow_are_never_certified():
    base = digits_model()

    def moody(x):  # fine where it is probed, not finite on these samples
        return base(x) + torch.where(x.flatten(1).sum(1) > 1, float("inf"), 0.0)[:, None]

    model = replace(base, fn=moody)
    with evaluate(model, TEST, Linf("0.001"), plan=SHORT, n=10) as book:
        claim = book.bracket()
        assert claim.counts[Verdict.CERTIFIED] == 0
        assert claim.counts[Verdict.ERROR] == 10
        assert (claim.clean_k, claim.clean_n) == (0, 0)
        assert book.failures(*book.threats()[0])


def test_one_bad_sample_does_not_speak_for_its_neighbours():
    base, bad = digits_model(), TEST.take([3]).x

    def picky(x):
        if len(x) == 0 or any(torch.equal(row, bad[0]) for row in x):
            raise KeyError("a bug in the user's model")
        return base(x)

    model = replace(base, fn=picky, access=Access.SCORES, graph=None)
    with evaluate(model, TEST, Linf("0.01"), plan="quick", n=10) as book:
        verdicts = {s.id: s.verdict for s in book.bracket().samples}
        assert [i for i, v in verdicts.items() if v is Verdict.ERROR] == [TEST.ids[3]]
        assert book.bracket().clean_n == 9


def test_targeted_threats():
    threat = Threat(Linf("0.1"), goal=Targeted(3))
    with evaluate(digits_model(), TEST, threat, plan=SHORT, n=40) as book:
        claim = book.bracket()
        assert claim.counts[Verdict.ERROR] == claim.counts[Verdict.CONTRADICTION] == 0
        assert claim.counts[Verdict.CERTIFIED] > 0
    with evaluate(digits_model(), TEST, Linf("0.1"), plan=SHORT, n=40) as book:
        assert book.bracket().clean_k == claim.clean_k  # accuracy is about the label, whatever the goal
    with pytest.raises(InputError, match="target 10"):
        evaluate(digits_model(), TEST, Threat(Linf("0.1"), goal=Targeted(10)), n=5)


def test_a_threat_that_does_not_fit_is_said_before_any_work(tmp_path):
    with pytest.raises(InputError):
        evaluate(digits_model(), TEST, [Linf("0.1"), Patch(20, 20)], n=5, ledger=tmp_path / "a.ledger")
    assert not (tmp_path / "a.ledger").exists()
