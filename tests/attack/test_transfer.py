"""Transfer: what wrappers do to gradients in closed form, and what surrogates do to a target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from attack_models import affine, convnet, images, wrap
from digits_nets import half_net, held_rows
from torch import Tensor
from torch.nn import functional

from saddlepoint.attack import PGD, Answers, Ask, Attack, EngineSettings, Outcome, run
from saddlepoint.attack.fixed.random_search import RandomSearch
from saddlepoint.attack.measure import Rate, noise
from saddlepoint.attack.rows import take
from saddlepoint.attack.transfer import (
    Diverse,
    Nesterov,
    Scaled,
    Smoothed,
    ensemble,
    score,
    transfer,
    transfer_matrix,
)
from saddlepoint.attack.transfer.filters import kernel
from saddlepoint.attack.transfer.through import Seen
from saddlepoint.attack.transfer.views import placed, shrunk
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.geometry import L0, L1, L2, Linf, Mask, RotationTranslation
from saddlepoint.spec import Targeted, margin
from saddlepoint.testing.trial import Trial

LINF = Linf("0.1")
PLAIN = PGD(steps=4, step_size=0.3, random_start=False, polish=False)
NET = convnet(5)


def found(attack: Attack[Any], count: int = 6, **how: Any) -> Outcome:
    return run(wrap(NET, 5), attack, images(NET, count, LINF), EngineSettings(drop=False, **how))


def same(a: Outcome, b: Outcome) -> None:
    assert torch.equal(a.best_point, b.best_point)
    assert torch.equal(a.best_margin, b.best_margin)


# -- identities --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "wrapped",
    [
        Diverse(PLAIN, probability=0.0),
        Diverse(PLAIN, probability=1.0, low=1.0),
        Scaled(PLAIN, copies=1),
        Smoothed(PLAIN, radius=0),
        Nesterov(PLAIN, decay=0.0),
        Diverse(Scaled(Smoothed(PLAIN, radius=0), copies=1), probability=0.0),
    ],
    ids=["di-p0", "di-full-size", "si-1", "ti-0", "ni-0", "nested"],
)
def test_a_wrapper_that_changes_nothing_finds_the_same(wrapped: Attack[Any]) -> None:
    plain = found(PLAIN)
    assert bool((plain.best_margin < found(PGD(steps=1, step_size=0.0, random_start=False)).best_margin).any())
    same(found(wrapped), plain)


def test_randomly_started_attacks_start_alike_inside_a_wrapper() -> None:
    start = PGD(steps=3, loss="margin", restarts=2)
    same(found(Scaled(start, copies=1)), found(start))


def test_wrappers_change_something() -> None:
    plain = found(PLAIN)
    for other in (Diverse(PLAIN, probability=1.0, low=0.7), Scaled(PLAIN), Smoothed(PLAIN, radius=2), Nesterov(PLAIN)):
        assert not torch.equal(found(other).best_point, plain.best_point), other.name


# -- closed forms ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("radius", [0, 1, 3, 7])
def test_the_kernel_sums_to_one_is_symmetric_and_peaks_in_the_middle(radius: int) -> None:
    w = kernel(radius)
    assert w.shape == (2 * radius + 1, 2 * radius + 1)
    assert float(w.sum()) == pytest.approx(1, abs=1e-12)
    assert torch.equal(w, w.T)
    assert torch.equal(w, w.flip(0))
    assert int(w.argmax()) == w.numel() // 2
    if radius == 3:  # σ = 3/√3: exp(−1/6) between the middle and its neighbour
        assert float(w[3, 4] / w[3, 3]) == pytest.approx(torch.exp(torch.tensor(-1 / 6)).item(), abs=1e-7)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_trap_44_translation_invariance_takes_any_number_of_channels(channels: int) -> None:
    """And each channel is filtered by itself."""
    g = torch.zeros(2, channels, 9, 9)
    g[0, 0, 4, 4] = 1.0
    smooth, _ = Smoothed(radius=3).filtered(seen(g), g)
    assert torch.allclose(smooth[0, 0, 1:8, 1:8], kernel(3).float())
    assert float(smooth[:, 1:].abs().sum() + smooth[1].abs().sum()) == 0


def test_trap_44_diversity_draws_per_sample_and_whatever_the_batch() -> None:
    x = torch.rand(64, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    draws = Draws(row_keys(0, [str(i) for i in range(64)], "di"))
    whole = shrunk(x, draws, 5, 0.7)
    alone = torch.cat([shrunk(x[i : i + 1], draws.take(torch.tensor([i])), 5, 0.7) for i in range(64)])
    assert torch.equal(whole, alone)
    one_image = shrunk(x[:1].expand(64, -1, -1, -1), draws, 5, 0.7)
    assert len({tuple(row.flatten().tolist()) for row in one_image}) > 15  # sizes × places
    other = shrunk(x, draws, 6, 0.7)
    assert not torch.equal(other, whole)


def test_shrinking_is_interpolation_and_padding() -> None:
    x = torch.rand(5, 2, 9, 7, generator=torch.Generator().manual_seed(1))
    sizes = [(9, 7), (7, 6), (8, 5), (5, 5), (9, 3)]
    corners = [(0, 0), (2, 1), (0, 2), (4, 0), (0, 3)]
    made = placed(x, torch.tensor(sizes, dtype=torch.float64), torch.tensor(corners, dtype=torch.float64))
    for i, ((h, w), (top, left)) in enumerate(zip(sizes, corners, strict=True)):
        small = functional.interpolate(x[i : i + 1], (h, w), mode="bilinear", align_corners=False)
        wanted = functional.pad(small, (left, 7 - w - left, top, 9 - h - top))
        torch.testing.assert_close(made[i : i + 1], wanted, atol=2e-6, rtol=0)


def test_shrinking_keeps_to_its_limits() -> None:
    x = torch.ones(400, 1, 10, 10)
    made = shrunk(x, Draws(row_keys(0, [str(i) for i in range(400)], "di")), 1, 0.75)
    height = (made[:, 0] > 0).any(2).sum(1)
    assert (int(height.min()), int(height.max())) == (8, 10)  # ⌈7.5⌉ … 10
    assert {int(h) for h in height} == {8, 9, 10}
    assert bool((made[:, 0, 0, 0] == 0).any())
    assert bool((made[:, 0, -1, -1] == 0).any())


def test_the_gradient_of_scaled_copies_is_their_average_by_the_chain_rule() -> None:
    """Told w at x, x/2 and x/4, the inner attack sees (1 + 1/2 + 1/4) w / 3."""
    rows = held_rows(LINF, count=4)
    w = torch.randn(rows.x0.shape, generator=torch.Generator().manual_seed(2))
    attack = Scaled(PLAIN, copies=3)
    state, ask = attack.init(rows)
    for view in range(3):
        assert torch.equal(ask.points, rows.x0 / 2**view)
        state, following = attack.step(state, Answers(rows.y, slopes=w))
        assert following is not None
        ask = following
    assert torch.allclose(state.inner.grad, (1 + 1 / 2 + 1 / 4) / 3 * w)
    assert torch.equal(ask.points, state.inner.x)  # the next point, at full brightness


def test_the_gradient_of_a_shrunk_image_is_pulled_back_to_the_image() -> None:
    """<T x, g> = <x, Tᵀ g> for the transform that was shown."""
    rows = seen(torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(3))).rows
    g = torch.randn(rows.x0.shape, generator=torch.Generator().manual_seed(4))
    attack = Diverse(PLAIN, probability=1.0, low=0.5)
    state, ask = attack.init(rows)
    assert not torch.equal(ask.points, rows.x0)
    state, _ = attack.step(state, Answers(rows.y, slopes=g))
    left, right = (ask.points * g).flatten(1).sum(1), (rows.x0 * state.inner.grad).flatten(1).sum(1)
    assert torch.allclose(left, right, rtol=1e-4)


def test_momentum_adds_gradients_of_mean_magnitude_one_per_row() -> None:
    """g_{t+1} = μ g_t + ∇ / mean|∇| (trap 44: per row)."""
    ni = Nesterov(decay=0.5, ahead=0.25)
    first = torch.tensor([[1.0, -3.0], [200.0, 0.0]])
    g, memory = ni.filtered(seen(first), first)
    assert g.tolist() == [[0.5, -1.5], [2.0, 0.0]]
    state = replace(seen(first), memory=memory)
    second, _ = ni.filtered(state, torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    assert second.tolist() == [[1.25, 0.25], [1.0, 0.0]]
    ahead = ni.look(state, torch.zeros(2, 2))  # α ε μ g = 0.25 · 0.1 · 0.5 · g
    assert torch.allclose(ahead, 0.0125 * memory)


def seen(points: Tensor) -> Seen:
    count = len(points)
    rows = replace(images(NET, count, LINF), x0=points, draws=Draws(row_keys(0, [str(i) for i in range(count)], "t")))
    return Seen(rows, None, Ask(points), points, torch.zeros_like(points), 0, 0)


# -- the engine's side -------------------------------------------------------------------------------------
def test_costs_are_those_of_all_copies() -> None:
    told = found(Scaled(PLAIN, copies=3))
    assert int(told.backwards.max()) == 12
    assert int(told.forwards.max()) == 1 + 12 + 1  # x0, three views of four points, the last point
    valued = Scaled(Trial(PGD(steps=2), LINF).attack, copies=2)
    assert found(valued).status == ("ok",) * 6


def test_what_cannot_be_wrapped_is_refused() -> None:
    with pytest.raises(NotAvailable, match="parameters"):
        run(wrap(NET, 5), Scaled(PLAIN), images(NET, 2, RotationTranslation(20, 1)))
    case = affine(1, 2)
    for flat in (Diverse(PLAIN, probability=1.0), Smoothed(PLAIN)):
        with pytest.raises(NotAvailable, match="images"):
            run(case.model, flat, case.rows(Linf("1/5")))
    for wrong in (lambda: Diverse(probability=1.5), lambda: Scaled(copies=0), lambda: Smoothed(radius=-1)):
        with pytest.raises(InputError):
            wrong()


# -- ensembles ---------------------------------------------------------------------------------------------
def test_an_ensemble_of_one_is_the_model_itself() -> None:
    model = half_net(0)
    assert ensemble([model]) is model


def test_an_ensemble_is_the_weighted_mean_of_logits() -> None:
    a, b, x = half_net(0), half_net(1), held_rows(LINF).x0[:4]
    assert torch.allclose(ensemble([a, b])(x), (a(x) + b(x)) / 2, atol=1e-6)
    assert torch.allclose(ensemble([a, b], [3.0, 1.0])(x), 0.75 * a(x) + 0.25 * b(x), atol=1e-6)
    assert ensemble([a, b]).digest != ensemble([b, a]).digest
    replaced = replace(a, slopes=lambda v: 2 * a(v))
    both = ensemble([replaced, b])
    assert both.slopes is not None
    assert torch.allclose(both.slopes(x), (2 * a(x) + b(x)) / 2, atol=1e-6)
    assert torch.allclose(both(x), (a(x) + b(x)) / 2, atol=1e-6)


def test_models_that_do_not_belong_together_are_refused() -> None:
    a = half_net(0)
    for other in (replace(a, classes=5), replace(a, shape=(1, 9, 9)), wrap(NET, 10, (64,))):
        with pytest.raises(InputError, match="one kind of input"):
            ensemble([a, other])
    for weights in ([1.0], [0.0, 0.0], [-1.0, 2.0]):
        with pytest.raises(InputError, match="weight"):
            ensemble([a, a], weights)
    with pytest.raises(InputError, match="no models"):
        ensemble([])


# -- transfer ----------------------------------------------------------------------------------------------
def test_examples_transfer_between_disjoint_halves_far_beyond_noise() -> None:
    """Szegedy et al. 2014, §4.2; at least five times the error of random noise of equal norm."""
    told = transfer(half_net(0), half_net(1), PLAIN, held_rows(Linf("0.15"), count=160))
    assert told.target.n == len(told.ids) == len(told.fooled) > 140
    assert told.target.k == int(told.fooled.sum())
    assert told.target.k >= 5 * max(1, told.noise.k)
    assert told.surrogate.k > told.target.k  # a surrogate is not the target
    assert told.unanswered == 0


def test_the_target_decides_by_itself_and_is_asked_twice() -> None:
    asked: list[int] = []
    real = half_net(1)

    def watched(x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        asked.append(len(x))
        return real(x)

    rows = held_rows(Linf("0.15"), count=40)
    told = transfer(half_net(0), replace(real, fn=watched), PLAIN, rows)
    assert sum(asked) == 40 + 2 * len(told.ids)  # x0 of all, then the point and its control of those that are right
    x0 = take(rows, torch.tensor([rows.ids.index(i) for i in told.ids]))
    assert bool(rows.set.within(real.domain).contains(x0.x0, told.points).all())
    assert torch.equal(real(told.points).argmax(1) != x0.y, told.fooled)


def test_only_images_that_all_classify_correctly_count() -> None:
    a, b, rows = half_net(0), half_net(1), held_rows(LINF, count=80)
    wrong = replace(rows, y=torch.where(torch.arange(80) < 30, (rows.y + 1) % 10, rows.y))
    with torch.no_grad():
        right = (a(rows.x0).argmax(1) == wrong.y) & (b(rows.x0).argmax(1) == wrong.y)
    told = transfer(a, b, PLAIN, wrong)
    assert told.ids == tuple(i for i, r in zip(rows.ids, right.tolist(), strict=True) if r)
    assert transfer(a, b, PLAIN, take(wrong, torch.arange(30))).target.n <= 1


def test_a_target_that_answers_nan_is_not_fooled() -> None:
    real, rows = half_net(1), held_rows(Linf("0.15"), count=30)
    seen_before = {tuple(x.flatten().tolist()) for x in rows.x0}

    def dark(x: Tensor) -> Tensor:
        new = torch.tensor([tuple(v.flatten().tolist()) not in seen_before for v in x])
        return torch.where(new[:, None], torch.nan, real(x))

    told = transfer(half_net(0), replace(real, fn=dark), PLAIN, rows)
    assert told.target.k == told.noise.k == 0
    assert told.unanswered == told.target.n > 20


def test_targeted_transfer_leaves_out_the_goal_itself() -> None:
    rows = replace(held_rows(Linf("0.3"), count=60), goal=Targeted(3))
    told = transfer([half_net(0)], half_net(1), PLAIN, rows)
    kept = take(rows, torch.tensor([rows.ids.index(i) for i in told.ids]))
    assert not bool((kept.y == 3).any())
    hit = half_net(1)(told.points).argmax(1) == 3
    assert torch.equal(hit, told.fooled)
    assert told.target.k > told.noise.k


def test_the_point_that_is_scored_is_the_most_confident_one_not_the_first_that_fell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stand-in's points are recorded until a sample falls, so none may be used: half of what transfers was lost."""
    used: list[EngineSettings] = []

    def watched(model: Any, attack: Any, rows: Any, settings: EngineSettings) -> Outcome:
        used.append(settings)
        return run(model, attack, rows, settings)

    monkeypatch.setattr(score, "run", watched)
    rows = held_rows(Linf("0.2"), count=30)
    told = transfer(half_net(0), half_net(1), PLAIN, rows)
    transfer_matrix({"a": half_net(0)}, PLAIN, rows)
    assert [(s.drop, s.hasten) for s in used] == [(False, False)] * 2
    part = take(rows, torch.tensor([rows.ids.index(i) for i in told.ids]))
    first = run(half_net(0), PLAIN, part, EngineSettings(hasten=False))
    with torch.no_grad():
        here, there = (margin(half_net(0)(x), part.y) for x in (told.points, first.best_point))
    assert bool((here <= there).all())
    assert bool((here < there).any())


def test_the_diagonal_of_the_matrix_is_the_white_box_rate() -> None:
    models = {"left": half_net(0), "right": half_net(1)}
    rows = held_rows(Linf("0.15"), count=60)
    matrix = transfer_matrix(models, PLAIN, rows)
    with torch.no_grad():
        right = torch.stack([m(rows.x0).argmax(1) == rows.y for m in models.values()]).all(0)
    part = take(rows, right.nonzero()[:, 0])
    for i, model in enumerate(models.values()):
        white = run(model, PLAIN, part, EngineSettings(drop=False))
        assert matrix.fooled[i][i] == Rate.of(white.success)
    pair = transfer(models["left"], models["right"], PLAIN, rows)
    assert (matrix.fooled[0][1], matrix.noise[0][1]) == (pair.target, pair.noise)
    assert matrix.fooled[0][1].k > 5 * matrix.noise[0][1].k
    assert matrix.fooled[0][0].k >= matrix.fooled[0][1].k
    assert matrix.canonical()["n"] == len(part)
    assert "left" in str(matrix)
    assert str(matrix.fooled[0][1].k) in str(matrix)


@pytest.mark.parametrize("threat", [Linf("0.1"), L2("0.4"), L1(2), L0(4), Mask(torch.arange(64).reshape(8, 8) < 20)])
def test_noise_is_as_large_as_what_it_is_compared_with_and_in_the_set(threat: Any) -> None:
    rows = held_rows(threat, count=30)
    rows = replace(rows, set=threat.within(half_net(0).domain), x0=rows.x0 * 0.5 + 0.25)  # the box is far
    points = rows.set.sample(rows.x0, Draws(row_keys(1, rows.ids, "points")))
    random = noise(rows, points, seed=0)
    assert bool(rows.set.contains(rows.x0, random).all())
    have, wanted = rows.set.gauge(rows.x0, random), rows.set.gauge(rows.x0, points)
    assert bool((have <= wanted * (1 + 1e-6)).all())
    if isinstance(threat, (Linf, L2)):
        assert torch.allclose(have, wanted, rtol=1e-4)
    assert torch.equal(noise(rows, points, seed=0), random)
    assert not torch.equal(noise(rows, points, seed=1), random)


def test_rates_say_their_limits() -> None:
    assert [round(v, 4) for v in Rate(0, 100).ci95] == [0.0, 0.0362]
    assert str(Rate(5, 10)) == "5/10 [0.187, 0.813]"
    assert Rate(0, 0).ci95 == (0.0, 1.0)


def test_attacks_without_gradients_transfer_too() -> None:
    told = transfer(half_net(0), half_net(1), RandomSearch(tries=3), held_rows(Linf("0.15"), count=20))
    assert told.backwards == 0
    assert told.target.n > 15
