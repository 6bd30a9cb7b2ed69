"""The inner maximisation, and what training against it buys."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import saddlepoint as sp
from saddlepoint.adapters.architectures.registry import build
from saddlepoint.check.counts import clopper_pearson
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data import load
from saddlepoint.training import Adversarial, Measure, Trainer, fresh, train, worst_points
from saddlepoint.training.adversarial import Search, cross_entropy

UNIT = sp.Box(0.0, 1.0)
SETS = [
    sp.Linf("0.1", box=UNIT),
    sp.L2("0.7", box=UNIT),
    sp.L1("2", box=UNIT),
    sp.Patch(3, 3, at=(2, 2), box=UNIT),
    sp.RotationTranslation("30", "1", UNIT),
]


def _cnn() -> nn.Module:
    return build("cnn-s", (1, 8, 8), 10)


@pytest.fixture(scope="module")
def batch():
    return load("digits:test").take(range(40))


@pytest.fixture(scope="module")
def trained():
    data = load("digits:train")
    return train(fresh(_cnn(), 0), data, trainer=Trainer(epochs=8, rate=4e-3)).net


def _draws(ids: tuple[str, ...]) -> Draws:
    return Draws(row_keys(0, ids, "test"))


@pytest.mark.parametrize("ball", SETS, ids=lambda ball: ball.kind)
def test_worst_points_are_allowed_and_never_better_for_us_than_x_itself(ball, trained, batch) -> None:
    draws = _draws(batch.ids)
    worst = worst_points(trained, Search(ball, steps=5), batch.x, batch.y, draws)
    clean, found = (cross_entropy(trained(x), batch.y) for x in (batch.x, worst))
    assert bool((found >= clean).all())
    assert float(found.mean().detach()) > 2 * float(clean.mean().detach())
    if not ball.parametric:
        assert bool(ball.contains(batch.x, worst).all())
    assert bool(((worst >= 0) & (worst <= 1)).all())


def test_on_a_linear_model_the_search_meets_the_closed_form() -> None:
    # two classes: the loss grows with ⟨w₁ − w₀, δ⟩, whose maximum over the ball is ε ‖w₁ − w₀‖_*, the dual norm
    net = fresh(nn.Sequential(nn.Flatten(), nn.Linear(6, 2).double()), 1)
    x, y = torch.full((4, 6), 0.5, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    w = (net[1].weight[1] - net[1].weight[0]).detach()
    for ball, dual, share in ((sp.Linf("0.1"), w.abs().sum(), 1 - 1e-6), (sp.L2("0.1"), w.norm(), 0.97)):
        worst = worst_points(net, Search(ball, steps=10), x, y, _draws(("a", "b", "c", "d")))
        gain = ((worst - x) @ w) / (0.1 * dual)
        assert bool((gain <= 1 + 1e-9).all())  # an attack never exceeds the maximum
        # ℓ∞ reaches its corner; in ℓ2 ten steps of ε/4 leave (4/5)¹⁰ ≈ 0.1 of the start's angle, 0.6 % of the gain
        assert bool((gain >= share).all())


def test_a_flat_loss_leaves_x_where_it_is(batch) -> None:
    # gradients of zero must not be mistaken for robustness found: no point is higher than x, so x is returned
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(flat[1].weight)
    worst = worst_points(flat, Search(sp.Linf("0.1", box=UNIT)), batch.x, batch.y, _draws(batch.ids))
    assert torch.equal(worst, batch.x)


def test_a_row_meets_the_same_points_in_any_batch(trained, batch) -> None:
    search = Search(sp.Linf("0.1", box=UNIT), steps=1)
    together = worst_points(trained, search, batch.x, batch.y, _draws(batch.ids))
    alone = worst_points(trained, search, batch.x[7:9], batch.y[7:9], _draws(batch.ids[7:9]))
    assert torch.allclose(together[7:9], alone, atol=1e-6)


@pytest.mark.parametrize("inner", ["eval", "train"])
def test_the_search_leaves_weights_gradients_and_flags_as_found(inner: str, batch) -> None:
    net = fresh(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)))
    net.train()
    net[1].requires_grad_(False)
    flags = [module.training for module in net.modules()]
    seen: list[bool] = []
    net[1].register_forward_hook(lambda module, *_: seen.append(module.training))
    before = copy.deepcopy(dict(net.named_parameters()))
    objective = Adversarial(sp.Linf("0.1", box=UNIT), steps=3, inner=inner)
    loss = objective(net, batch.x, batch.y, _draws(batch.ids))
    assert loss.requires_grad
    assert all(torch.equal(weight, before[name]) for name, weight in net.named_parameters())
    assert all(weight.grad is None for weight in net.parameters())
    assert [module.training for module in net.modules()] == flags
    # x itself, the start, 3 steps: in the inner mode; the loss that is differentiated: in train mode
    assert seen == [inner == "train"] * 5 + [True]
    assert int(net[1].num_batches_tracked) == (6 if inner == "train" else 1)


def test_the_loss_is_taken_at_the_worst_points_and_not_through_the_search(trained, batch) -> None:
    objective = Adversarial(sp.Linf("0.1", box=UNIT), steps=3)
    worst = worst_points(trained, objective.search(), batch.x, batch.y, _draws(batch.ids))
    weights = list(trained.parameters())
    # Danskin: the gradient by the weights is that of the plain loss with the worst points as constants
    expected = torch.autograd.grad(functional.cross_entropy(trained(worst.detach()), batch.y), weights)
    found = torch.autograd.grad(objective(trained, batch.x, batch.y, _draws(batch.ids)), weights)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_training_against_the_adversary_beats_standard_training_beyond_the_interval(trained) -> None:
    data, held_out = load("digits:train"), load("digits:test")
    ball = sp.Linf("0.1", box=UNIT)
    start, measure = fresh(_cnn(), 0), Measure(held_out, ball, steps=20)
    hardened = train(start, data, Adversarial(ball, steps=5), Trainer(epochs=16, rate=4e-3, warm_up=4), guards=None).net
    plain, hard = measure(trained), measure(hardened)
    n = len(held_out)
    assert min(plain.clean_k, hard.clean_k) >= 0.95 * n
    assert plain.robust_k is not None
    assert hard.robust_k is not None
    assert clopper_pearson(hard.robust_k, n)[0] > clopper_pearson(plain.robust_k, n)[1]


def test_adversarial_training_is_seeded() -> None:
    data = load("digits:test")
    objective, trainer = Adversarial(sp.Linf("0.1", box=UNIT), steps=2), Trainer(epochs=1, seed=4)
    first, second = (train(fresh(_cnn(), 0), data, objective, trainer).net for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_robust_counts_never_exceed_clean_counts(trained) -> None:
    for ball in SETS[:2]:
        counts = Measure(load("digits:test"), ball, steps=2)(trained)
        assert counts.robust_k is not None
        assert 0 < counts.robust_k < counts.clean_k
