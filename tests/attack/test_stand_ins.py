"""Stand-ins are differentiated in the model's place; what is claimed is always the model's own."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from attack_models import SHAPE, convnet, images
from torch import Tensor

from saddlepoint.adapters import from_torch
from saddlepoint.attack import APGD, PGD, EngineSettings, Rows, run
from saddlepoint.attack.stand_in import choose as module
from saddlepoint.attack.stand_in.choose import Faster, StandIn, choose
from saddlepoint.geometry import Linf
from saddlepoint.graph.ir import Graph
from saddlepoint.spec import Model, margin

NET = convnet(seed=3)
engine = import_module("saddlepoint.attack.engine.run")


def model() -> Model:
    return from_torch(NET, (0, 1), shape=SHAPE)


def rows(count: int = 48) -> Rows:
    return images(NET, count, Linf("0.02"))


def settings(**how: object) -> EngineSettings:
    return EngineSettings(batch=16, call=16, **how)  # pyright: ignore[reportArgumentType]


def hastened(monkeypatch: pytest.MonkeyPatch, **stand_ins: StandIn) -> None:
    """Engines find these stand-ins."""
    monkeypatch.setattr(engine, "choose", lambda *_: Faster(**stand_ins))
    monkeypatch.setattr(engine, "chosen", lambda _: True)


def folded(of: Model, dtype: torch.dtype) -> StandIn:
    assert isinstance(of.graph, Graph)
    return StandIn("folded", module._laid_out(module.fold(of.graph), dtype), 16, 1e-3, 1.0)


@pytest.mark.parametrize("attack", [PGD(steps=8, polish=False), APGD(steps=8)], ids=["rough", "exact"])
@pytest.mark.parametrize("drop", [True, False])
def test_margins_and_verdicts_are_the_models_own(monkeypatch: pytest.MonkeyPatch, attack: PGD, drop: bool) -> None:
    """Bitwise: every recorded margin is what the model says at the recorded point, not what a stand-in said."""
    own = model()
    hastened(monkeypatch, exact=folded(own, torch.float32), rough=folded(own, torch.bfloat16))
    found = run(own, attack, rows(), settings(drop=drop))
    with torch.no_grad():
        again = margin(own(found.best_point), rows().y)
    assert torch.allclose(found.best_margin, again, rtol=1e-5, atol=1e-6)
    assert torch.equal(found.success, found.best_margin <= 0)
    assert 0 < int(found.success.sum()) < len(rows())


def test_a_stand_in_that_lies_convinces_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that every point breaks the model; the model is asked, and stands."""
    own = model()

    def liar(x: Tensor) -> Tensor:
        return -own(x)

    lie = StandIn("liar", liar, 16, 1e9, 1.0)
    hastened(monkeypatch, exact=lie, rough=lie)
    for attack in (PGD(steps=4, polish=False), APGD(steps=4)):
        found = run(own, attack, replace(rows(), set=Linf(0)), settings())
        assert not bool(found.success.any())
        assert found.status == ("ok",) * len(rows())


def test_a_stand_in_that_crashes_costs_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    own = model()

    def crash(x: Tensor) -> Tensor:
        raise RuntimeError("this stand-in cannot")

    hastened(monkeypatch, exact=StandIn("crash", crash, 16, 0.0, 1.0), rough=StandIn("crash", crash, 16, 0.0, 1.0))
    found = run(own, APGD(steps=5), rows(), settings())
    plain = run(own, APGD(steps=5), rows(), settings(hasten=False))
    assert found.status == plain.status
    assert torch.equal(found.success, plain.success)


def test_what_confirms_is_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking again is a forward; so is the last look at what stands."""
    own = model()
    hastened(monkeypatch, exact=folded(own, torch.float32))
    found = run(own, APGD(steps=6), rows(), settings())
    plain = run(own, APGD(steps=6), rows(), settings(hasten=False))
    stands = ~plain.success & ~found.success
    assert bool((found.forwards[stands] > plain.forwards[stands]).all())
    assert torch.equal(found.backwards[stands], plain.backwards[stands])


def test_only_what_agrees_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast function with other margins, or other gradients, is turned down however fast it is."""
    own, some = model(), rows()
    monkeypatch.setattr(module, "_pace", lambda fn, x, y, rows: 1.0 if isinstance(fn, Model) else 0.1)
    assert choose(model(), some.x0, some.y, 16).exact is not None  # the honest one is taken
    for wrong in (lambda x: own(x) * 1.01, lambda x: own(x.flip(-1))):
        monkeypatch.setattr(module, "_laid_out", lambda *_, wrong=wrong, **__: wrong)
        assert choose(model(), some.x0, some.y, 16).exact is None


def test_where_nothing_may_stand_in() -> None:
    """Deterministic runs, query limits and minimum sizes look at the model alone; so do models without a graph."""
    own = model()
    for how in ({"deterministic": True, "physical": 16}, {"queries": 10}, {"smallest": True}, {"hasten": False}):
        assert run(own, PGD(steps=60), rows(), settings(**how)).notes == ()
    assert choose(replace(own, graph=None), rows().x0, rows().y, 16) == Faster()
