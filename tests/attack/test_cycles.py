"""PGD leaves paths that repeat, with what the whole run would have found."""

from __future__ import annotations

import pytest
import torch
from attack_models import convnet, images, wrap
from torch import Tensor

from saddlepoint.attack import PGD, EngineSettings, Outcome, PGDTargeted, Rows, run
from saddlepoint.attack.fixed import pgd
from saddlepoint.attack.fixed.cycles import Path, follow
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import L2, Linf

KEEP = EngineSettings(drop=False, hasten=False)


def walk(mu: int, cycle: int, steps: int, features: int = 500) -> tuple[int | None, int]:
    """When a path of distinct points that enters a cycle at μ is known to repeat, and its due index."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(mu + cycle, 1, features, generator=generator)
    path = Path.at(points[0])
    for index in range(1, steps):
        x = points[index if index < mu else mu + (index - mu) % cycle].clone()
        path = follow(path, x, index, steps - 1)
        if int(path.due) >= 0:
            return index, int(path.due)
    return None, int(path.due)


@pytest.mark.parametrize("mu", [0, 1, 5, 23])
@pytest.mark.parametrize("cycle", [1, 2, 3, 12])
def test_every_cycle_is_found_in_time_and_due_where_the_last_point_stands(mu: int, cycle: int) -> None:
    found, due = walk(mu, cycle, 100)
    assert found is not None
    assert mu + cycle <= found <= 2 * max(mu, cycle, 1) + cycle
    assert found <= due < found + cycle
    assert (99 - due) % cycle == 0


def test_points_that_differ_anywhere_are_no_repetition() -> None:
    """Also where the quick glance cannot see it: every coordinate but one is equal."""
    x = torch.zeros(3, 500)
    path = Path.at(x)
    for at in range(500):
        other = x.clone()
        other[0, at] = 1e-30
        other[2, at] = torch.nan
        after = follow(path, other, 3, 9)
        assert after.due.tolist() == [-1, 3, -1]
    assert follow(Path.at(x), x + 1, 3, 9).due.tolist() == [-1] * 3


def plain(monkeypatch: pytest.MonkeyPatch, attack: PGD, rows: Rows) -> Outcome:
    """The same run without looking for cycles."""
    with monkeypatch.context() as patch:
        patch.setattr(pgd, "follow", lambda path, *_: path)
        return run(wrap(convnet(), 5), attack, rows, KEEP)


@pytest.mark.parametrize("steps", [17, 30, 31, 32, 33])
@pytest.mark.parametrize("polish", [False, True])
@pytest.mark.parametrize("step_size", [0.5, 0.8])
def test_nothing_is_lost(steps: int, polish: bool, step_size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = images(convnet(), 20, Linf("0.05"))
    attack = PGD(steps=steps, loss="margin", step_size=step_size, polish=polish)
    found, whole = run(wrap(convnet(), 5), attack, rows, KEEP), plain(monkeypatch, attack, rows)
    assert torch.allclose(found.best_margin, whole.best_margin, atol=1e-6)
    assert torch.allclose(found.best_point, whole.best_point, atol=1e-6)
    assert whole.forwards.tolist() == [1 + attack.forwards] * 20
    assert float(found.forwards.float().mean()) < 0.8 * attack.forwards  # most paths end early
    assert bool((found.forwards <= whole.forwards).all())


def test_the_vertex_is_that_of_the_last_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last point that a row asks for is the one that the whole run asks for last."""
    asked: list[Tensor] = []
    net = convnet()

    def watched(x: Tensor) -> Tensor:
        asked.append(x.detach().clone())
        return net(x)

    shorter = 0
    for i in range(6):
        rows = images(net, 6, Linf("0.05"))
        rows = Rows(rows.x0[i : i + 1], rows.y[i : i + 1], (str(i),), rows.set)
        attack, ends = PGD(steps=40, loss="margin", step_size=0.8), []
        for looks in (True, False):
            asked.clear()
            with monkeypatch.context() as patch:
                if not looks:
                    patch.setattr(pgd, "follow", lambda path, *_: path)
                run(wrap(watched, 5), attack, rows, KEEP)
            ends.append((len(asked), asked[-1]))
        assert torch.equal(ends[0][1], ends[1][1])
        shorter += ends[0][0] < ends[1][0]
    assert shorter >= 4


def test_rows_without_a_gradient_stand_still_and_leave() -> None:
    net = convnet()
    masked = wrap(lambda x: net((x * 255).round() / 255), 5)
    found = run(masked, PGD(steps=30), images(net, 4, Linf("0.05")), KEEP)
    assert torch.equal(found.dead, found.backwards)
    assert int(found.forwards.max()) <= 4
    smooth = run(wrap(net, 5), PGD(steps=10), images(net, 4, L2("0.3")), KEEP)
    assert smooth.forwards.tolist() == [1 + 12] * 4  # balls are not looked at: projections do not repeat exactly


def test_every_target_has_a_path_of_its_own() -> None:
    rows = images(convnet(), 8, Linf("0.05"))
    found = run(wrap(convnet(), 5), PGDTargeted(steps=40, step_size=0.8), rows, KEEP)
    best = torch.stack(
        [
            run(wrap(convnet(), 5), PGDTargeted(steps=40, step_size=0.8, count=n), rows, KEEP).best_margin
            for n in (1, 2, 3)
        ]
    )
    assert bool((found.best_margin <= best + 1e-6).all())


def test_glances_find_what_falls_at_the_vertex_and_change_no_step() -> None:
    """Dropped or kept, every sample that falls without glances falls with them; the path is the same one."""
    net = convnet()
    rows = images(net, 48, Linf("0.02"))
    plain, glancing = PGD(steps=8, polish=False), PGD(steps=8, polish=False, glances=(1, 3))
    without, with_ = (run(wrap(net, 5), attack, rows, KEEP) for attack in (plain, glancing))
    assert bool((without.success <= with_.success).all())
    assert bool((with_.best_margin <= without.best_margin).all())
    assert int(with_.forwards.max()) == int(without.forwards.max()) + 2
    dropped = run(wrap(net, 5), glancing, rows, EngineSettings(hasten=False))
    alone = run(wrap(net, 5), plain, rows, EngineSettings(hasten=False))
    assert torch.equal(dropped.success, with_.success)
    assert int(dropped.backwards.sum()) < int(alone.backwards.sum())


def test_glances_after_no_gradient_are_refused() -> None:
    with pytest.raises(InputError, match="glances"):
        PGD(steps=4, glances=(5,))
