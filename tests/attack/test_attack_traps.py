"""The known traps of attack libraries (reference list, by number) that this room could fall into."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from attack_models import affine, convnet, images, wrap
from torch import Tensor

from saddlepoint.attack import APGD, PGD, Answers, APGDTargeted, Ask, EngineSettings, RandomSearch, Rows, run
from saddlepoint.attack.fixed.apgd import State, checkpoints
from saddlepoint.attack.losses import ce, dlr, margin
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.geometry import L1, L2, Linf
from saddlepoint.spec import Targeted

EPS = Linf("0.05")


def drawn(rows: Rows) -> Rows:
    """Rows as the engine hands them out."""
    return replace(rows, draws=Draws(row_keys(0, rows.ids, "test")))


def test_trap_01_weights_get_no_gradient() -> None:
    net = convnet()
    run(wrap(net, 5), APGD(steps=5), images(net, 6, EPS))
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_trap_02_witnesses_do_not_overshoot_by_an_ulp() -> None:
    net, threat = convnet(), Linf("8/255")
    rows = images(net, 40, threat)
    found = run(wrap(net, 5), PGD(steps=5), rows, EngineSettings(drop=False))
    distance = (found.best_point.double() - rows.x0.double()).abs().flatten(1).amax(1)
    assert all(Fraction(d) <= Fraction(8, 255) for d in distance.tolist())
    assert 8 / 255 - float(distance.max()) < 1e-8  # and the whole size is used


def test_trap_03_the_best_point_is_kept_not_the_last() -> None:
    """A step so long that the path leaves the optimum again: f(x) = −|x − 0.6|, from 0.5, ε = 0.3."""

    def fn(x: Tensor) -> Tensor:
        rise = 0.05 - (x[:, 0] - 0.6).abs()
        return torch.stack([-rise, rise], 1)

    rows = Rows(torch.tensor([[0.5]]), torch.tensor([0]), ("a",), Linf("0.3"))
    attack = PGD(steps=2, step_size=1 / 3, loss="margin", random_start=False, polish=False)
    found = run(wrap(fn, 2, (1,)), attack, rows, EngineSettings(drop=False))
    last = run(wrap(fn, 2, (1,)), replace(attack, steps=1, step_size=1.0), rows, EngineSettings(drop=False))
    assert float(found.best_point) == pytest.approx(0.6)
    assert float(last.best_margin) == pytest.approx(0.1)  # x0 itself: the only step went past the optimum


def test_trap_04_the_margin_is_the_deployed_models_own() -> None:
    net = convnet()
    rows = images(net, 12, EPS)
    found = run(wrap(net, 5), PGD(steps=5), rows)
    for i in range(len(rows)):
        with torch.no_grad():
            z = net(found.best_point[i : i + 1])[0]
        y = int(rows.y[i])
        others = torch.cat([z[:y], z[y + 1 :]])
        assert float(z[y] - others.max()) == pytest.approx(float(found.best_margin[i]), abs=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_trap_05_logits_that_are_not_finite_are_no_success(bad: float) -> None:
    net = convnet()

    def sick(x: Tensor) -> Tensor:
        z = net(x)
        return torch.cat([torch.full_like(z[:, :1], bad), z[:, 1:]], 1)

    rows = images(net, 6, EPS)
    for attack in (PGD(steps=3), APGD(steps=3), APGDTargeted(steps=2), RandomSearch(tries=3)):
        found = run(wrap(sick, 5), attack, rows)
        assert not bool(found.success.any())
        assert set(found.status) == {"nan"}


def test_trap_05_gradients_that_are_not_finite_are_no_direction() -> None:
    """sqrt(0) has slope inf and inf · 0 = NaN: the row stays where it is, is counted, and is not poisoned."""
    net = convnet()

    def sick(x: Tensor) -> Tensor:
        return net(x) + (x - x).sum((1, 2, 3)).sqrt()[:, None]

    found = run(wrap(sick, 5), PGD(steps=3), images(net, 6, EPS), EngineSettings(drop=False))
    assert bool((found.dead == 3).all())
    assert bool(found.best_point.isfinite().all())
    assert set(found.status) == {"ok"}


def test_trap_07_random_numbers_are_the_samples_own() -> None:
    net = convnet()
    rows = images(net, 20, EPS)
    attack = RandomSearch(tries=4)
    whole = run(wrap(net, 5), attack, rows, EngineSettings(drop=False))
    state = torch.get_rng_state()
    for batch in (1, 3, 20):
        again = run(wrap(net, 5), attack, rows, EngineSettings(drop=False, batch=batch))
        assert torch.equal(again.best_point, whole.best_point)
    assert torch.equal(state, torch.get_rng_state())
    other = run(wrap(net, 5), attack, rows, EngineSettings(drop=False, seed=1))
    assert not torch.equal(other.best_point, whole.best_point)


def test_trap_08_a_crash_is_an_error_never_robust() -> None:
    net = convnet()

    def broken(x: Tensor) -> Tensor:
        raise RuntimeError("device lost")

    found = run(wrap(broken, 5), PGD(steps=3), images(net, 3, EPS))
    assert set(found.status) == {"error"}
    assert all("device lost" in m for m in found.message)


def test_trap_09_saturated_gradients_do_not_depend_on_the_batch() -> None:
    """ℓ2 steps divide by a norm: with a mean loss or a large additive constant they would shrink with the batch."""
    net = convnet()

    def saturated(x: Tensor) -> Tensor:
        return 60 * net(x)

    rows = images(net, 16, L2("0.3"))
    attack = PGD(steps=6, polish=False)
    one = run(wrap(saturated, 5), attack, rows, EngineSettings(drop=False, batch=1))
    all_ = run(wrap(saturated, 5), attack, rows, EngineSettings(drop=False, batch=16))
    assert torch.allclose(one.best_point, all_.best_point, atol=1e-5)


def test_trap_10_cross_entropy_does_not_saturate() -> None:
    """Logits × 1000: in float32 the slope of the cross-entropy is exactly 0; here PGD still finds the optimum."""
    case, threat = affine(4, 2), Linf("1/5")
    loud = wrap(lambda x: 400 * case.model(x), 2, (12,))
    found = run(loud, PGD(steps=20), case.rows(threat), EngineSettings(drop=False))
    worst = 400 * case.worst(threat.within(loud.domain))
    assert torch.allclose(found.best_margin, worst, rtol=1e-6)
    assert not bool(found.dead.any())
    z = torch.tensor([[400.0, 0.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(torch.nn.functional.cross_entropy(z, torch.tensor([0])), z)
    assert float(slope.abs().max()) == 0.0  # what the trap is


def test_trap_10_gradients_that_vanish_are_counted_for_every_loss() -> None:
    net = convnet()

    def masked(x: Tensor) -> Tensor:
        return net((x * 255).round() / 255)

    for loss in ("ce", "dlr", "margin"):
        found = run(wrap(masked, 5), PGD(steps=4, loss=loss), images(net, 3, EPS), EngineSettings(drop=False))
        assert torch.equal(found.dead, found.backwards)  # a path that stands still ends early
        assert int(found.dead.min()) > 0


def test_trap_12_what_is_misclassified_costs_one_look_and_a_target_of_its_own_label_nothing() -> None:
    net = convnet()
    rows = images(net, 8, EPS)
    wrong = replace(rows, y=(rows.y + 1) % 5)
    found = run(wrap(net, 5), APGD(steps=5), wrong)
    assert bool(found.success.all())
    assert found.forwards.tolist() == [1] * 8
    assert torch.equal(found.best_point, rows.x0)
    label = int(rows.y[0])
    aimed = run(wrap(net, 5), PGD(steps=5), replace(rows, goal=Targeted(label)))
    assert not bool(aimed.success[rows.y == label].any())


def test_trap_13_returned_logits_are_not_written_to() -> None:
    net, kept = convnet(), []

    def remembers(x: Tensor) -> Tensor:
        z = net(x)
        kept.append((z, z.detach().clone()))
        return z

    run(wrap(remembers, 5), PGD(steps=3, loss="margin"), images(net, 4, EPS))
    assert kept
    assert all(torch.equal(z.detach(), copy) for z, copy in kept)


def test_trap_14_projection_is_around_the_original() -> None:
    """Twenty steps of ε each stay within ε of x0, not of the last iterate."""
    net = convnet()
    rows = images(net, 10, EPS)
    found = run(wrap(net, 5), PGD(steps=20, step_size=1.0), rows, EngineSettings(drop=False))
    assert float((found.best_point.double() - rows.x0.double()).abs().max()) <= 0.05
    assert bool(((found.best_point >= 0) & (found.best_point <= 1)).all())


def test_trap_15_random_starts_are_inside_and_uniform_in_volume() -> None:
    d, n = 8, 400
    rows = drawn(Rows(torch.full((n, d), 0.5), torch.zeros(n, dtype=torch.int64), tuple(map(str, range(n))), L2("0.4")))
    _, ask = PGD().init(replace(rows, set=rows.set.within(wrap(convnet(), 5).domain)))
    radii = (ask.points - 0.5).norm(dim=1) / 0.4
    assert float(radii.max()) <= 1
    share = float((radii <= 0.9).float().mean())
    assert abs(share - 0.9**d) < 0.1  # 0.43; a radius drawn uniformly would give 0.9


def test_trap_16_l1_projects_exactly_and_steps_on_few_coordinates() -> None:
    case, threat = affine(5, 2, features=200, count=8), L1("2")
    rows = drawn(case.rows(threat.within(case.model.domain)))
    attack = PGD(steps=10, random_start=False, loss="margin")
    state, ask = attack.init(rows)
    grad = (case.weight[1 - case.y] - case.weight[case.y]).contiguous()
    state, ask = attack.step(state, Answers(case.y, slopes=grad))
    assert ask is not None
    moved = ((ask.points - rows.x0) != 0).sum(1)
    assert int(moved.max()) <= 2  # 1 % of 200
    found = run(case.model, attack, case.rows(threat), EngineSettings(drop=False))
    assert torch.allclose(found.best_margin, case.worst(threat.within(case.model.domain)), rtol=1e-6)


def test_trap_18_restarts_add_up() -> None:
    """What any restart breaks stays broken, and only the surviving samples are restarted."""
    net = convnet()
    rows = images(net, 30, Linf("0.03"))
    singles = [
        run(wrap(net, 5), PGD(steps=2, restarts=r, loss="margin", polish=False), rows).success for r in (1, 2, 4)
    ]
    assert bool((singles[0] <= singles[1]).all() & (singles[1] <= singles[2]).all())
    many = run(wrap(net, 5), PGD(steps=2, restarts=4, loss="margin", polish=False), rows, EngineSettings(batch=30))
    fell_first = singles[0]
    assert bool((many.forwards[fell_first] < 1 + 4 * 3).all())
    assert bool((many.forwards[~many.success] == 1 + 4 * 3).all())


def test_trap_20_the_first_step_is_twice_the_size() -> None:
    case, threat = affine(0, 2), Linf("1/5")
    state, _ = APGD().init(drawn(case.rows(threat.within(case.model.domain))))
    assert state.eta.tolist() == [2.0] * 6


def scripted(attack: APGD, losses: list[float]) -> list[float]:
    """Step sizes (in ε) of one row after each answer, when the model's losses are these."""
    rows = drawn(Rows(torch.full((1, 3), 0.5), torch.tensor([0]), ("a",), Linf("0.1")))
    state, ask = attack.init(rows)
    etas = []
    for loss in losses:
        assert ask is not None
        answers = Answers(rows.y, values=torch.tensor([loss], dtype=torch.float64), slopes=torch.ones(1, 3))
        state, ask = attack.step(state, answers)
        etas.append(float(state.eta))
    return etas


def test_trap_19_a_rise_is_against_the_point_before_not_against_the_best() -> None:
    """One new maximum, one fall, then 20 small rises below the maximum: 21 of 22 steps rose, so η stays."""
    losses = [10.0, 11.0, *[float(v) / 100 for v in range(21)]]
    assert scripted(APGD(steps=100), losses)[22] == 2.0


def test_trap_21_the_loss_at_x0_counts() -> None:
    """17 rises of 22 keep η (0.75 · 22 = 16.5). Here the 17th is f(x_1) > f(x_0), below zero."""
    falls = [-20.0 - i for i in range(5)]
    rises = [-24.0 + i for i in range(1, 17)]
    path = [-10.0, -9.0, *falls, *rises]
    assert scripted(APGD(steps=100), path)[22] == 2.0
    without = [-9.0, -10.0, *falls, *rises]  # the same path but for the first comparison: 16 rises
    assert scripted(APGD(steps=100), without)[22] == 1.0


def test_trap_21_a_row_that_stalls_goes_back_to_its_best_point() -> None:
    rows = drawn(Rows(torch.full((1, 1), 0.5), torch.tensor([0]), ("a",), Linf("0.1")))
    attack = APGD(steps=100)
    state, ask = attack.init(rows)
    asked: list[Tensor] = []
    for i in range(23):
        assert ask is not None
        asked.append(ask.points)
        slopes = torch.full((1, 1), 1.0 if i % 2 else -1.0)
        value = torch.tensor([5.0 if i == 7 else 0.0], dtype=torch.float64)
        state, ask = attack.step(state, Answers(rows.y, values=value, slopes=slopes))
    assert isinstance(state, State)
    assert torch.equal(state.before, asked[7])  # the step after the checkpoint starts there
    assert float(state.eta) == 1.0


def test_trap_22_checkpoints_follow_the_number_of_steps() -> None:
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    attack = APGD(steps=100)
    assert attack.windows == {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    for steps in (5, 10, 37, 50, 1000):
        ends = checkpoints(steps)
        exact = [Fraction(p, 100) * steps for p in (22, 41, 57, 70, 80, 87, 93, 99)]
        assert ends == tuple(sorted({-(-e.numerator // e.denominator) for e in exact}))
        assert sum(replace(attack, steps=steps).windows.values()) == ends[-1]


def test_trap_23_losses_rise_towards_the_goal_and_only_then() -> None:
    z = torch.tensor([[3.0, 1.0, 0.5, -1.0, 0.0]], dtype=torch.float64)
    y, t = torch.tensor([0]), torch.tensor([1])
    for loss in (ce, dlr, margin):
        for target in (None, t):
            before = loss(z, y, target)
            nearer = loss(z + torch.tensor([[0.0, 1.5, 0, 0, 0]]), y, target)
            assert float(nearer) > float(before)
            assert float(loss(z + torch.tensor([[1.0, 0, 0, 0, 0]]), y, target)) <= float(before)


def test_trap_25_few_classes() -> None:
    """DLR needs 3 classes, targeted 4; below that the margin. Ties of all logits stay finite."""
    y, t = torch.tensor([0]), torch.tensor([1])
    z2, z3 = torch.tensor([[2.0, 1.0]]), torch.tensor([[2.0, 1.0, 0.0]])
    assert float(dlr(z2, y, None)) == -1.0
    assert float(dlr(z2, y, t)) == -1.0
    assert float(dlr(z3, y, None)) == pytest.approx(-0.5)
    assert float(dlr(z3, y, t)) == -1.0
    for k in (2, 3, 4, 10):
        tie = torch.zeros(1, k, dtype=torch.float64, requires_grad=True)
        for target in (None, t):
            value = dlr(tie, y, target)
            (slope,) = torch.autograd.grad(value.sum(), tie)
            assert float(value.detach()) == 0.0
            assert bool(slope.isfinite().all())
    for classes in (2, 3):
        case = affine(1, classes)
        found = run(case.model, APGDTargeted(steps=5), case.rows(Linf("1/5")))
        assert set(found.status) == {"ok"}


def test_trap_26_no_more_targets_than_rivals() -> None:
    clean = torch.tensor([[0.1, 0.9, 0.5], [3.0, 2.0, 1.0]])
    y = torch.tensor([1, 1])
    assert APGDTargeted(count=9).targets(clean, y).tolist() == [[2, 0], [0, 2]]
    assert APGDTargeted(count=1).targets(clean, y).tolist() == [[2], [0]]


def test_trap_45_what_is_already_wrong_is_not_attacked() -> None:
    net, asked = convnet(), []

    def counting(x: Tensor) -> Tensor:
        asked.append(len(x))
        return net(x)

    rows = images(net, 6, EPS)
    run(wrap(counting, 5), PGD(steps=3), replace(rows, y=(rows.y + 1) % 5))
    assert asked == [6]


def test_trap_47_the_worst_case_is_a_union_over_items() -> None:
    """A sample that only its second target breaks is broken, whatever the first says.

    z = (0, −0.1, −0.3 + Σ 0.2 (x_i − ½)): the likeliest rival never moves, the other wins in the corner.
    """

    def fn(x: Tensor) -> Tensor:
        zero = torch.zeros(len(x))
        return torch.stack([zero, zero - 0.1, 0.2 * (x - 0.5).sum(1) - 0.3], 1)

    rows = Rows(torch.full((4, 50), 0.5), torch.zeros(4, dtype=torch.int64), tuple("abcd"), Linf("0.05"))
    one = run(wrap(fn, 3, (50,)), APGDTargeted(steps=5, count=1), rows)
    both = run(wrap(fn, 3, (50,)), APGDTargeted(steps=5, count=2), rows)
    assert not bool(one.success.any())
    assert bool(both.success.all())
    assert both.item.tolist() == [1] * 4


def test_trap_48_where_nothing_admissible_was_seen_the_margin_is_infinite() -> None:
    net = convnet()
    rows = images(net, 3, EPS)
    found = run(wrap(lambda x: net(x) * torch.nan, 5), PGD(steps=2), rows)
    assert found.best_margin.tolist() == [torch.inf] * 3


def test_trap_49_sizes_are_in_the_units_of_the_input() -> None:
    """Normalisation is the model's: the same threat on a normalising model moves the raw pixels by ε."""
    net = convnet()
    model = wrap(lambda x: net((x - 0.5) / 0.1), 5)
    rows = images(lambda x: net((x - 0.5) / 0.1), 5, EPS)
    found = run(model, PGD(steps=4), rows, EngineSettings(drop=False))
    assert float((found.best_point - rows.x0).abs().max()) == pytest.approx(0.05, abs=1e-6)


def test_ask_and_state_are_plain_values() -> None:
    """Nothing above relies on hidden state: stepping twice from one state gives the same ask."""
    case, threat = affine(2, 2), Linf("1/5")
    attack = APGD(steps=10)
    state, ask = attack.init(drawn(case.rows(threat.within(case.model.domain))))
    assert isinstance(state, State)
    assert isinstance(ask, Ask)
    answers = Answers(case.y, values=torch.zeros(6, dtype=torch.float64), slopes=torch.ones(6, 12, dtype=torch.float64))
    first, second = attack.step(state, answers)[1], attack.step(state, answers)[1]
    assert first is not None
    assert second is not None
    assert torch.equal(first.points, second.points)
