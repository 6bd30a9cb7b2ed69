"""The engine's own promises: order of work, limits, interruption, faults, costs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from attack_models import SHAPE, affine, convnet, images, wrap
from torch import Tensor

from saddlepoint.attack import (
    APGD,
    PGD,
    Answers,
    APGDTargeted,
    Ask,
    Attack,
    EngineSettings,
    Grid,
    Progress,
    RandomSearch,
    Rows,
    run,
)
from saddlepoint.attack.rows import check_rows, concat, take
from saddlepoint.core.errors import DataError, InputError, NotAvailable, UnsupportedOperator
from saddlepoint.geometry import L1, L2, Linf, RotationTranslation
from saddlepoint.spec import Access, Targeted, margin

EPS = Linf("0.05")


@dataclass(frozen=True)
class Odd(Attack[Rows]):
    """Asks for whatever `how` says."""

    name: ClassVar[str] = "odd"
    how: str = "outside"
    restarts: int = 1

    @property
    def forwards(self) -> int:
        return 2

    @property
    def backwards(self) -> int:
        return 0

    def init(self, rows: Rows) -> tuple[Rows, Ask]:
        if self.how == "init":
            raise ZeroDivisionError("in init")
        shift = 0.3 if self.how == "outside" else 0.0
        points = (rows.x0 + shift).clamp(0, 1)
        if self.how == "shape":
            points = points[:1].expand(len(rows) + 1, *points.shape[1:])
        done = torch.arange(len(rows)) % 2 == 0 if self.how == "done" else None
        want = Access.LABEL if self.how == "label" else Access.SCORES
        return rows, Ask(points, want, done=done)

    def step(self, state: Rows, answers: Answers) -> tuple[Rows, Ask | None]:
        if self.how == "label":
            assert answers.label.shape == state.y.shape
            _ = answers.logits  # not asked for
        if self.how == "step":
            raise ZeroDivisionError("in step")
        return state, None


def test_points_outside_the_set_never_count() -> None:
    """The far points break most samples; none of them lies in the set."""
    net = convnet()
    rows = images(net, 10, EPS)
    with torch.no_grad():
        assert int((margin(net((rows.x0 + 0.3).clamp(0, 1)), rows.y) <= 0).sum()) > 0
    found = run(wrap(net, 5), Odd("outside"), rows)
    assert not bool(found.success.any())
    assert torch.equal(found.best_point, rows.x0)


@pytest.mark.parametrize("how", ["init", "step", "shape", "label"])
def test_faults_of_the_attack_are_errors_of_its_rows(how: str) -> None:
    found = run(wrap(convnet(), 5), Odd(how), images(convnet(), 4, EPS))
    assert set(found.status) == {"error"}
    assert all(found.message)
    assert not bool(found.success.any())


def test_rows_that_say_they_are_done_leave() -> None:
    found = run(wrap(convnet(), 5), Odd("done"), images(convnet(), 4, EPS))
    assert set(found.status) == {"ok"}


def test_a_model_that_gives_less_than_is_needed_is_refused() -> None:
    net = convnet()
    rows = images(net, 4, EPS)
    blind = wrap(net, 5, access=Access.SCORES)
    with pytest.raises(NotAvailable, match="needs GRADIENT"):
        run(blind, PGD(), rows)
    assert set(run(blind, RandomSearch(tries=2), rows).status) == {"ok"}
    with pytest.raises(InputError, match="shape"):
        run(wrap(net, 5, (1, 9, 9)), PGD(), rows)


def test_a_model_without_a_gradient_is_an_error_with_a_remedy() -> None:
    net = convnet()
    found = run(wrap(lambda x: net(x).detach(), 5), PGD(steps=2), images(net, 3, EPS))
    assert set(found.status) == {"error"}
    assert "differentiably" in found.message[0]


def test_a_model_of_the_wrong_width_is_an_error() -> None:
    found = run(wrap(convnet(4), 5), PGD(steps=2), images(convnet(4), 3, EPS))
    assert set(found.status) == {"error"}
    assert "(1, 4)" in found.message[0]
    with pytest.raises(DataError, match="labels span"):
        run(wrap(convnet(5), 4), PGD(steps=2), images(convnet(5), 8, EPS))


def test_when_memory_ends_the_batch_is_halved_and_nothing_is_lost() -> None:
    net = convnet()
    rows = images(net, 20, EPS)
    sizes = []

    def small(x: Tensor) -> Tensor:
        if len(x) > 5:
            raise torch.OutOfMemoryError("no room")
        sizes.append(len(x))
        return net(x)

    whole = run(wrap(net, 5), PGD(steps=3), rows, EngineSettings(drop=False))
    tight = run(wrap(small, 5), PGD(steps=3), rows, EngineSettings(drop=False))
    assert max(sizes) <= 5
    assert tight.notes
    assert set(tight.status) == {"ok"}
    assert torch.equal(tight.success, whole.success)


def test_dropping_changes_no_verdict_and_saves_work() -> None:
    net = convnet()
    rows = images(net, 40, EPS)
    for attack in (PGD(steps=8), APGD(steps=8), APGDTargeted(steps=4, count=3)):
        kept = run(wrap(net, 5), attack, rows, EngineSettings(drop=False))
        dropped = run(wrap(net, 5), attack, rows, EngineSettings(batch=16))
        assert torch.equal(kept.success, dropped.success)
        assert int(dropped.forwards.sum()) < int(kept.forwards.sum())
        assert bool((dropped.forwards <= kept.forwards).all())
        assert torch.equal(dropped.first[dropped.success], dropped.forwards[dropped.success])
        assert bool((dropped.first[~dropped.success] == -1).all())
        stands = ~kept.success
        assert torch.allclose(kept.best_margin[stands], dropped.best_margin[stands], atol=1e-4)


def test_free_places_are_filled_with_waiting_work() -> None:
    """While samples wait, calls stay nearly full, although rows fall at different steps."""
    net, sizes = convnet(), []

    def watched(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return net(x)

    rows = images(net, 120, EPS)
    found = run(wrap(watched, 5), PGD(steps=6, restarts=3), rows, EngineSettings(batch=16, call=16))
    calls = sizes[8:]  # after the clean ones
    assert sum(calls) / len(calls) > 13
    assert int(found.success.sum()) < 120
    assert max(calls) == 16


def test_cached_clean_logits_are_used_and_not_charged() -> None:
    net = convnet()
    rows = images(net, 6, EPS)
    with torch.no_grad():
        cached = replace(rows, clean=net(rows.x0))
    fresh, reused = run(wrap(net, 5), PGD(steps=3), rows), run(wrap(net, 5), PGD(steps=3), cached)
    assert torch.equal(fresh.best_margin, reused.best_margin)
    assert torch.equal(fresh.forwards, reused.forwards + 1)


@pytest.mark.parametrize("queries", [1, 2, 7])
def test_the_query_limit_holds_per_sample(queries: int) -> None:
    net, calls = convnet(), 0

    def counting(x: Tensor) -> Tensor:
        nonlocal calls
        calls += len(x)
        return net(x)

    rows = images(net, 5, Linf("0.01"))
    found = run(wrap(counting, 5), RandomSearch(tries=4, restarts=3), rows, EngineSettings(queries=queries))
    assert int(found.forwards.max()) <= queries
    assert calls == int(found.forwards.sum())
    assert set(found.status) == {"ok"}


def test_stopping_between_steps_keeps_what_was_found() -> None:
    net, told = convnet(), []

    def stop() -> bool:
        return len(told) > 4

    rows = images(net, 20, EPS)
    found = run(wrap(net, 5), PGD(steps=50), rows, EngineSettings(stop=stop, watch=told.append))
    assert all(isinstance(p, Progress) for p in told)
    assert len(told) == 5
    assert {s for s, won in zip(found.status, found.success.tolist(), strict=True) if not won} == {"stopped"}
    assert {s for s, won in zip(found.status, found.success.tolist(), strict=True) if won} <= {"ok"}
    late = run(wrap(net, 5), PGD(steps=5), rows, EngineSettings(deadline=time.monotonic()))
    assert set(late.status) == {"stopped"}
    ended = run(wrap(net, 5), PGD(steps=2), rows, EngineSettings(watch=told.append))
    assert set(ended.status) == {"ok"}
    assert told[-1].settled == 20


def test_an_interrupt_of_the_user_is_not_swallowed() -> None:
    def interrupted(x: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(wrap(interrupted, 5), PGD(), images(convnet(), 2, EPS))


def test_a_targeted_goal_reaches_its_label() -> None:
    case, label = affine(3, 4), 2
    rows = replace(case.rows(Linf("1/2")), goal=Targeted(label))
    for attack in (PGD(steps=20), APGD(steps=20, loss="dlr"), APGDTargeted(steps=10)):
        found = run(case.model, attack, rows)
        z = case.model(found.best_point)
        assert bool((z.argmax(1) == label)[found.success].all())
        assert int(found.success.sum()) > 0
        assert not bool(found.success[case.y == label].any())


def test_no_samples_is_no_work() -> None:
    rows = images(convnet(), 1, EPS)
    none = take(rows, torch.zeros(0, dtype=torch.int64))
    found = run(wrap(convnet(), 5), PGD(), none)
    assert len(found.best_margin) == 0
    assert found.status == ()


def test_grid_finds_what_any_lattice_point_finds() -> None:
    """Against a plain loop over the lattice and the unmoved image; ids in any batch."""
    net, threat = convnet(), RotationTranslation(4, "0.3")
    rows = images(net, 12, threat)
    attack = Grid(angles=5, shifts=3)
    found = run(wrap(net, 5), attack, rows, EngineSettings(drop=False, batch=5))
    inside = threat.within(wrap(net, 5).domain)
    lattice = torch.cat([torch.zeros(1, 3), inside.params_grid(5, 3)])
    with torch.no_grad():
        table = torch.stack(
            [margin(net(inside.render(rows.x0, p.expand(12, 3).contiguous())), rows.y) for p in lattice]
        )
    assert torch.allclose(found.best_margin, table.amin(0), atol=1e-5)
    assert found.parametric
    assert found.best_point.shape == (12, 3)
    assert bool((found.forwards == 1 + attack.forwards).all())
    assert 0 < int(found.success.sum()) < 12


def test_grid_refuses_sets_without_parameters() -> None:
    with pytest.raises(NotAvailable, match="no grid"):
        run(wrap(convnet(), 5), Grid(), images(convnet(), 2, EPS))


def test_attacks_name_themselves_for_the_ledger() -> None:
    method = PGD(steps=7, loss="dlr").method(seed=3)
    assert (method.name, method.seed) == ("pgd", 3)
    assert '"steps":7' in method.parameters
    with pytest.raises(InputError, match="no loss"):
        PGD(loss="l33t")


def test_coupled_attacks_keep_all_rows_together() -> None:
    @dataclass(frozen=True)
    class Together(Odd):
        coupled: ClassVar[bool] = True

        def init(self, rows: Rows) -> tuple[Rows, Ask]:
            seen.append(len(rows))
            return super().init(rows)

    seen: list[int] = []
    rows = images(convnet(), 9, EPS)
    run(wrap(convnet(), 5), Together("plain"), rows, EngineSettings(batch=4, deterministic=True, physical=2))
    assert seen == [9]


def test_rows_are_cut_and_joined_without_loss() -> None:
    sizes = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    case = affine(0, 3, count=4)
    for threat in (Linf("0.1"), L1(sizes), L2(sizes)):
        rows = case.rows(threat)
        parts = [take(rows, torch.tensor([0, 1])), take(rows, torch.tensor([2, 3]))]
        again = concat(parts)
        assert torch.equal(again.x0, rows.x0)
        assert again.ids == rows.ids
        assert again.set == rows.set
    with pytest.raises(InputError, match="cannot be joined"):
        concat([case.rows(Linf("0.1")), case.rows(Linf("0.2"))])
    with pytest.raises(InputError, match="row dimension"):
        check_rows((torch.zeros(3), 1), 4, "state")
    with pytest.raises(InputError, match="do not match"):
        Rows(torch.zeros(2, *SHAPE), torch.zeros(2, dtype=torch.int64), ("a", "b", "c"), EPS)


@pytest.mark.parametrize("bad", [{"batch": 0}, {"physical": 0}, {"call": 0}, {"queries": 0}])
def test_settings_that_allow_nothing_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        EngineSettings(**bad)


def test_a_set_without_the_map_that_an_attack_needs_is_refused_not_crashed() -> None:
    """L2 & Linf has no cheap exact projection: that is about the stage, not about its samples."""
    net = convnet()
    rows = images(net, 4, L2("1") & Linf("0.1"))
    with pytest.raises(NotAvailable, match="Intersection"):
        run(wrap(net, 5), PGD(steps=3), rows)


@pytest.mark.parametrize("where", ["init", "step", "targets", "render"])
@pytest.mark.parametrize("kind", [NotAvailable, UnsupportedOperator])
def test_a_refusal_passes_through_wherever_it_is_raised(
    where: str, kind: type[InputError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise kind("no rule", "use another")

    net = convnet()
    attack: Attack[Any] = RandomSearch(tries=3) if where == "render" else Odd("inside")
    rows = images(net, 4, RotationTranslation(10, 1) if where == "render" else EPS)
    monkeypatch.setattr(RotationTranslation if where == "render" else Odd, where, refuse)
    with pytest.raises(kind, match="no rule"):
        run(wrap(net, 5), attack, rows)
