"""Square Attack: its windows, its schedule, its budgets, and the traps that are its own."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from attack_models import UNIT, affine, convnet, images, wrap
from torch import Tensor

from saddlepoint.attack import Answers, EngineSettings, RandomSearch, Rows, Square, run
from saddlepoint.attack.fixed.square import Grid, Window, _peak
from saddlepoint.attack.steps import strict_limits
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.geometry import L0, L1, L2, Linf, PerturbationSet

TOP = 2**31 - 1  # the largest random word


def drawn(shape: tuple[int, ...], threat: PerturbationSet, count: int = 6) -> Rows:
    """Grey rows as the engine hands them out."""
    x, ids = torch.full((count, *shape), 0.5), tuple(map(str, range(count)))
    rows = Rows(x, torch.zeros(count, dtype=torch.int64), ids, threat.within(UNIT))
    return replace(rows, draws=Draws(row_keys(0, ids, "test")), limits=strict_limits(rows))


def path(attack: Square, rows: Rows, steps: int) -> list[Tensor]:
    """The points asked when every candidate is better than the one before."""
    state, ask = attack.init(rows)
    asked = [ask.points]
    for i in range(steps):
        margin = torch.full((len(rows),), -float(i))
        state, following = attack.step(state, Answers(rows.y, margins=margin))
        assert following is not None
        asked.append(following.points)
    return asked


def test_trap_32_the_last_row_and_column_are_reached() -> None:
    window = Window(Grid(1, 5, 7, False), 2, 2)
    word = torch.tensor([0, TOP])
    first, last = window.at(word, word)[:, 0].tolist()
    assert first == [0, 1, 7, 8]
    assert last == [26, 27, 33, 34]  # 34 = 5 · 7 − 1
    rows = drawn((1, 5, 7), Linf("0.1"), count=400)
    start, moved = path(Square(p_init=4 / 35), rows, 1)
    touched = (start != moved).flatten(1).float().mean(0).reshape(5, 7)
    # a position in 24 covers a corner; of the pixels a window covers, half have the wrong sign or more
    assert float(touched[[0, 0, -1, -1], [0, -1, 0, -1]].min()) > 0.25 / 24


def test_trap_33_a_margin_of_zero_is_a_success_and_nothing_is_left_to_step() -> None:
    net = convnet()
    rows = images(net, 6, Linf("0.05"))
    tied = wrap(lambda x: torch.where(x.flatten(1).ne(0.5).any(1)[:, None], torch.zeros(len(x), 5), net(x)), 5)
    rows = replace(rows, x0=torch.full_like(rows.x0, 0.5), y=net(torch.full_like(rows.x0, 0.5)).argmax(1))
    found = run(tied, Square(queries=50), rows)
    assert bool(found.success.all())
    assert found.forwards.tolist() == [2] * 6
    assert found.best_margin.tolist() == [0.0] * 6


@pytest.mark.parametrize("threat", [Linf("0.1"), L2("0.5"), L1("2")], ids=["linf", "l2", "l1"])
@pytest.mark.parametrize("shape", [(2, 4, 11), (11, 3), (1, 1, 1), (3, 2, 2, 5), (17,)], ids=str)
def test_trap_34_images_need_not_be_square_nor_images(threat: PerturbationSet, shape: tuple[int, ...]) -> None:
    rows = drawn(shape, threat)
    for points in path(Square(), rows, 70):  # longer than one chunk of random words
        assert points.shape == rows.x0.shape
        assert bool(rows.set.contains(rows.x0, points).all())


def test_trap_34_windows_keep_their_area() -> None:
    for height, width in ((28, 28), (4, 11), (11, 4), (1, 50), (224, 10)):
        grid = Grid(3, height, width, False)
        for p in (0.8, 0.4, 0.1):
            a, b = grid.sides(p, odd=False)
            assert 1 <= a <= height
            assert 1 <= b <= width
            assert a * b == pytest.approx(p * height * width, rel=0.35, abs=2)
    assert Grid(3, 32, 32, False).sides(0.8, odd=False) == (29, 29)
    assert Grid(3, 32, 32, False).sides(0.0001, odd=True) == (3, 3)
    assert Grid(3, 32, 32, False).sides(0.1, odd=True) == (11, 11)
    assert Grid(3, 2, 2, False).sides(0.8, odd=True) == (2, 2)


def test_trap_35_the_schedule_is_for_ten_thousand_steps() -> None:
    ends = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
    for attack, scale in ((Square(), 1), (Square(queries=20_000, rescale=True), 2)):
        halvings = [attack.p_init / attack.share(end * scale) for end in ends]
        assert halvings == [2.0**i for i in range(9)]
        assert attack.share(scale * 8001) == attack.p_init / 512
    assert Square(queries=5000).share(4999) == 0.8 / 2**7  # AutoAttack's run ends here, its windows not yet smallest


def test_trap_36_windows_are_the_samples_own() -> None:
    rows = drawn((1, 12, 12), Linf("0.1"), count=20)
    start, moved = path(Square(p_init=0.05), rows, 1)
    boxes = {tuple((a != b)[0].nonzero().flatten().tolist()) for a, b in zip(start, moved, strict=True)}
    assert len(boxes) > 15
    alone = replace(rows, x0=rows.x0[3:4], y=rows.y[3:4], ids=("3",), draws=Draws(row_keys(0, ("3",), "test")))
    alone = replace(alone, limits=strict_limits(alone))
    for whole, single in zip(path(Square(), rows, 80), path(Square(), alone, 80), strict=True):
        assert torch.equal(whole[3:4], single)


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 6, 6), (5,)], ids=str)
def test_no_query_is_spent_on_the_incumbent(shape: tuple[int, ...]) -> None:
    """One channel and a small window: half of all plain draws would change nothing."""
    asked = path(Square(p_init=0.01), drawn(shape, Linf("0.1"), count=40), 60)
    for before, after in pairwise(asked):
        assert bool((before != after).flatten(1).any(1).all())
        assert set(((after - 0.5) * 10).round(decimals=3).unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(("threat", "p"), [(L2("0.4"), 2), (L1("1.5"), 1)], ids=["l2", "l1"])
def test_the_whole_budget_is_used_where_the_box_is_far(threat: PerturbationSet, p: int) -> None:
    rows = drawn((2, 9, 9), threat, count=12)
    for points in path(Square(), rows, 40):
        move = (points - rows.x0).double()
        norm = torch.linalg.vector_norm(move.flatten(1), p, dim=1)
        assert float(norm.min()) > float(threat.size) * (1 - 1e-4)
        assert bool(rows.set.contains(rows.x0, points).all())


def test_mass_that_the_box_took_comes_back() -> None:
    rows = drawn((1, 8, 8), L2("1"))
    rows = replace(rows, x0=torch.full_like(rows.x0, 0.9))  # little room upwards
    norms = [(points - rows.x0).flatten(1).norm(dim=1) for points in path(Square(), rows, 40)]
    assert float(torch.stack(norms).max()) <= 1
    assert float(norms[-1].min()) > 0.5


def test_the_peak_is_the_papers() -> None:
    ring, middle = 1 / 9, 1 / 9 + 1 / 4
    want = torch.full((5, 5), ring, dtype=torch.float64)
    want[1:4, 1:4], want[2, 2] = middle, middle + 1
    assert torch.allclose(_peak(5, 5), want)


def test_rejected_candidates_leave_the_incumbent() -> None:
    rows = drawn((1, 8, 8), Linf("0.1"))
    attack = Square()
    state, ask = attack.init(rows)
    state, _ = attack.step(state, Answers(rows.y, margins=torch.zeros(6)))
    worse = torch.tensor([0.0, 1.0, torch.nan, torch.inf, -1.0, 0.0])
    tried = state.tried
    state, _ = attack.step(state, Answers(rows.y, margins=worse))
    for i in range(6):
        assert torch.equal(state.x[i], tried[i] if i == 4 else ask.points[i])


@pytest.mark.parametrize("seed", [0, 1])
def test_affine_models_fall_to_their_exact_minimum_in_linf(seed: int) -> None:
    """Runs of one feature at the end of the schedule: a coordinate search, exact where features do not interact."""
    case = affine(seed, 2)
    threat = Linf("1/5")
    found = run(case.model, Square(queries=400, rescale=True), case.rows(threat), EngineSettings(drop=False))
    assert torch.allclose(found.best_margin, case.worst(threat.within(case.model.domain)), rtol=1e-9)


@pytest.mark.parametrize("threat", [L2("7/10"), L1("9/5")], ids=["l2", "l1"])
def test_affine_models_bound_it_from_below_and_more_queries_never_hurt(threat: PerturbationSet) -> None:
    case = affine(3, 2)
    best = case.worst(threat.within(case.model.domain))
    few, many = (
        run(case.model, Square(queries=q), case.rows(threat), EngineSettings(drop=False)).best_margin for q in (40, 400)
    )
    clean = (case.x @ case.weight.T + case.constant).sort(1, descending=True).values
    assert bool((best <= many + 1e-9).all() & (many <= few).all() & (few < clean[:, 0] - clean[:, 1]).all())
    assert float(((many - best) / (clean[:, 0] - clean[:, 1] - best)).max()) < 0.35  # of the way from the start


@pytest.mark.parametrize("threat", [Linf("0.05"), L2("0.4"), L1("1.5")], ids=["linf", "l2", "l1"])
def test_windows_find_more_than_chance(threat: PerturbationSet) -> None:
    net = convnet()
    rows = images(net, 30, threat)
    keep = EngineSettings(drop=False)
    windows = run(wrap(net, 5), Square(queries=80), rows, keep).best_margin
    chance = run(wrap(net, 5), RandomSearch(tries=80), rows, keep).best_margin
    assert int((windows < chance).sum()) >= 27


def test_what_makes_no_sense_is_refused() -> None:
    for bad in ({"queries": 0}, {"restarts": 0}, {"p_init": 0.0}, {"p_init": 1.1}):
        with pytest.raises(InputError):
            Square(**bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(NotAvailable, match="RandomSearch"):
        run(wrap(convnet(), 5), Square(queries=3), images(convnet(), 2, L0(3)))
