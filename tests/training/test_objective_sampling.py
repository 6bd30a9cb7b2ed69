"""Closed forms and identities of the objectives that sample, that have several sets, and that smooth."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from scipy.stats import norm
from torch import nn
from torch.nn import functional

import saddlepoint as sp
from saddlepoint.adapters.architectures.registry import build
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data import load
from saddlepoint.geometry.combine import Union
from saddlepoint.training import Trainer, fresh, train, worst_points
from saddlepoint.training.adversarial import Search, ascend, cross_entropy
from saddlepoint.training.augment import RandomAugmentation
from saddlepoint.training.gaussian import GaussianAugmentation
from saddlepoint.training.macer import MACER, radius
from saddlepoint.training.msd import MSD
from saddlepoint.training.multi_set import AverageOfSets, MaxOfSets
from saddlepoint.training.smoothadv import SmoothAdv
from saddlepoint.training.state import mode
from saddlepoint.training.worst_of_k import WorstOfK

UNIT = sp.Box(0.0, 1.0)
LINF, L2, L1 = sp.Linf("0.1", box=UNIT), sp.L2("0.7", box=UNIT), sp.L1("3", box=UNIT)
TURN = sp.RotationTranslation("30", "1", UNIT)


@pytest.fixture(scope="module")
def batch():
    return load("digits:test").take(range(40))


@pytest.fixture(scope="module")
def trained():
    data = load("digits:train")
    return train(fresh(build("cnn-s", (1, 8, 8), 10), 0), data, trainer=Trainer(epochs=6, rate=4e-3)).net


@pytest.fixture(scope="module")
def linear():
    net = fresh(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), 1).double()
    x = torch.rand(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return net, x, torch.tensor([0, 1, 0, 1, 0]), net[1].weight.detach()


def _draws(ids) -> Draws:
    return Draws(row_keys(0, ids, "test"))


FIVE = _draws("abcde")


def _losses(net, x, y):
    with torch.no_grad():
        return cross_entropy(net(x), y)


def test_worst_of_k_never_falls_below_the_clean_loss_and_grows_with_k(trained, batch) -> None:
    draws, clean, before = _draws(batch.ids), _losses(trained, batch.x, batch.y), None
    for k in (1, 4, 16):
        found = _losses(trained, WorstOfK(TURN, k).points(trained, batch.x, batch.y, draws), batch.y)
        assert bool((found >= clean).all())
        if before is not None:
            assert bool((found >= before).all())  # the first candidates are the same
        before = found
    assert float(before.mean()) > 2 * float(clean.mean())


def test_worst_of_the_grid_is_enumeration(trained, batch) -> None:
    points = WorstOfK(TURN, grid=(5, 3)).points(trained, batch.x, batch.y, _draws(batch.ids))
    table = []
    for angle, dy, dx in product((-30.0, -15.0, 0.0, 15.0, 30.0), (-1.0, 0.0, 1.0), (-1.0, 0.0, 1.0)):
        params = torch.tensor([[angle, dy, dx]]).expand(40, 3)
        table.append(_losses(trained, TURN.render(batch.x, params), batch.y))
    expected = torch.maximum(torch.stack(table).amax(0), _losses(trained, batch.x, batch.y))
    assert torch.allclose(_losses(trained, points, batch.y), expected, atol=1e-5)


def test_random_augmentation_takes_the_sets_own_sample(trained, batch) -> None:
    draws = _draws(batch.ids)
    points = TURN.render(batch.x, TURN.sample(batch.x, draws))
    expected = functional.cross_entropy(trained(points), batch.y)
    assert torch.equal(RandomAugmentation(TURN)(trained, batch.x, batch.y, draws), expected)


def test_msd_with_one_set_is_pgd(trained, batch) -> None:
    draws = _draws(batch.ids)
    for ball in (LINF, L2, L1):
        alone = MSD((ball,), steps=4).points(trained, batch.x, batch.y, draws)
        start = ball.sample(batch.x, draws)  # PGD's own start in an l-inf ball comes from float32 numbers
        assert torch.equal(alone, worst_points(trained, Search(ball, 4), batch.x, batch.y, draws, start))


def test_msd_takes_the_steepest_of_the_sets_steps(trained, batch) -> None:
    x, y = batch.x, batch.y
    objective = MSD((sp.Linf("0.05", box=UNIT), sp.L2("0.24", box=UNIT), sp.L1("0.4", box=UNIT)), steps=3)
    z = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(trained(z), y).sum(), z)
    _, chosen = objective._steepest(trained, x, y, x, slope)
    each = [_losses(trained, ascend(Search(ball, 3), x, x, slope), y) for ball in objective.sets]
    assert torch.equal(chosen, torch.stack(each).amax(0))
    assert len(set(torch.stack(each).argmax(0).tolist())) > 1  # else the test says nothing about choosing
    found = objective.points(trained, x, y, _draws(batch.ids))
    assert bool(Union(objective.sets).contains(x, found).all())


def test_the_worst_over_sets_is_at_least_each_and_the_average_is_between(trained, batch) -> None:
    x, y, draws = batch.x, batch.y, _draws(batch.ids)
    sets = (LINF, TURN)
    with mode(trained, False):
        each = [_losses(trained, p, y) for p in MaxOfSets(sets).each(trained, x, y, draws)]
    worst = _losses(trained, MaxOfSets(sets).points(trained, x, y, draws), y)
    assert torch.allclose(worst, torch.maximum(*each))
    average = AverageOfSets(sets)(trained, x, y, draws).detach()
    assert float(average) == pytest.approx(float((each[0].mean() + each[1].mean()) / 2), rel=1e-5)


def test_gaussian_noise_has_its_scale_and_is_not_clipped() -> None:
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            seen.append(x)
            return torch.stack([x.sum((1, 2, 3)), x[:, 0, 0, 0]], 1)

    x = torch.zeros(20, 1, 50, 50)
    GaussianAugmentation(0.5)(Watch(), x, torch.zeros(20, dtype=torch.int64), _draws([str(i) for i in range(20)]))
    assert float(seen[0].std()) == pytest.approx(0.5, rel=0.02)
    assert float(seen[0].min()) < -1


def test_the_radius_is_cohens() -> None:
    p_a, p_b = torch.tensor([0.9, 0.6, 0.999]).double(), torch.tensor([0.05, 0.4, 0.0005]).double()
    expected = 0.25 / 2 * (norm.ppf(p_a.numpy()) - norm.ppf(p_b.numpy()))
    assert radius(p_a, p_b, 0.25).numpy() == pytest.approx(expected, rel=1e-9)
    assert bool(radius(torch.ones(1), torch.zeros(1), 1.0).isfinite().all())


def test_macer_is_its_two_terms(linear) -> None:
    net, x, y, _ = linear
    objective = MACER(sigma=0.5, weight=2.0, margin=3.0, sharpness=4.0, samples=6)
    z = torch.stack([net(x + 0.5 * noise) for noise in FIVE.normal((6, 6), dtype=torch.float64).unbind(1)], 1)
    soft, sharp = z.softmax(2).mean(1), (4.0 * z).softmax(2).mean(1)
    own = soft[torch.arange(5), y]
    right = sharp.argmax(1) == y
    gap = norm.ppf(sharp.amax(1).detach().numpy()) - norm.ppf(sharp.amin(1).detach().numpy())
    hinge = 0.5 / 2 * (3.0 - torch.from_numpy(gap)).clamp_min(0) * right
    assert 0 < int(right.sum()) < 5  # wrong samples get no robustness term
    assert torch.allclose(objective(net, x, y, FIVE), (-own.log() + 2.0 * hinge).mean(), rtol=1e-6)


def test_smoothadv_searches_the_mean_of_probabilities_and_trains_under_the_same_noise(trained, batch) -> None:
    x, y, draws = batch.x[:10], batch.y[:10], _draws(batch.ids[:10])
    objective = SmoothAdv(L2, steps=4, sigma=0.2, samples=3)
    noise = 0.2 * draws.fork(0).normal((3, 1, 8, 8))
    noisy = objective.points(trained, x, y, draws).unflatten(0, (10, 3))
    moved = noisy - noise
    assert torch.allclose(moved[:, 0], moved[:, 1], atol=1e-6)  # one point under three draws
    assert bool(L2.contains(x, moved[:, 0], slack=1e-5).all())

    def soft(points):
        with torch.no_grad():
            z = torch.stack([trained(points + e) for e in noise.unbind(1)])
        return -z.softmax(2).mean(0)[torch.arange(10), y].log()

    assert bool((soft(moved[:, 0]) >= soft(x) - 1e-5).all())
    assert float(soft(moved[:, 0]).mean()) > 2 * float(soft(x).mean())
    each = torch.stack([functional.cross_entropy(trained(noisy[:, i]), y) for i in range(3)])
    assert torch.allclose(objective(trained, x, y, draws), each.mean(), rtol=1e-5)


def test_forked_draws_are_their_own_and_repeatable() -> None:
    a, b = FIVE.fork(0), FIVE.fork(1)
    assert torch.equal(a.keys, FIVE.fork(0).keys)
    keys = torch.cat([FIVE.keys, a.keys, b.keys])
    assert len(set(keys.tolist())) == 15
    assert bool((keys >= 0).all())
    assert torch.equal(a.take(torch.tensor([3])).keys, FIVE.take(torch.tensor([3])).fork(0).keys)
    numbers = torch.cat([a.uniform((4000,)).flatten(), b.uniform((4000,)).flatten()])
    assert float(numbers.mean()) == pytest.approx(0.5, abs=0.01)
