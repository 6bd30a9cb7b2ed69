"""A random model as a mean of named draws: one function of x, with the distribution of the model itself."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from random_nets import SHAPE, Everything, Noise, Private, ResizePad, behind, samples, trained
from saddlepoint.adapters import averaged, from_torch, with_straight_through
from saddlepoint.adapters.averaging import Drawn
from saddlepoint.attack import PGD, Rows
from saddlepoint.attack.engine import run
from saddlepoint.core.errors import InputError, StochasticModel
from saddlepoint.geometry import Linf
from saddlepoint.spec import margin

RANDOM = {"noise": lambda: Noise(0.3), "resize and pad": ResizePad, "everything": Everything}


@pytest.mark.parametrize("kind", RANDOM)
def test_the_mean_is_a_function_of_each_row_alone(kind):
    model = averaged(behind(RANDOM[kind]()), 5)
    x, _, _ = samples(7)
    whole = model(x)
    assert torch.equal(whole, model(x))
    alone = torch.cat([model(row) for row in x.split(1)])
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole[[5, 2, 3]], model(x[[5, 2, 3]]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", RANDOM)
def test_draws_have_the_distribution_of_the_model(kind):
    model = behind(RANDOM[kind]())
    x, _, _ = samples(4)
    draw = averaged(model, 5).sampling.draw
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        named = torch.stack([draw(x, i) for i in range(200)])
        free = torch.stack([model(x) for _ in range(200)])
    noise = free.std(0) * (2 / 200) ** 0.5  # of the difference of two means
    assert float(((named.mean(0) - free.mean(0)).abs() / noise).max()) < 4.5
    assert float((named.std(0) / free.std(0)).log().abs().max()) < 0.3


def scaled(factor, sigma=0.3):
    """A noisy network with logits times a factor."""
    net = nn.Sequential(Noise(sigma), *trained(), nn.Linear(10, 10, bias=False)).eval()
    net[-1].weight.data = factor * torch.eye(10)
    return from_torch(net, (0, 1), shape=SHAPE)


def test_the_values_are_the_log_of_the_mean_probability():
    model = averaged(scaled(0.1), 6)
    x, _, _ = samples(3)
    draws = torch.stack([model.sampling.draw(x, i) for i in range(6)])
    assert model.fn.temperature == 1.0
    torch.testing.assert_close(model(x), torch.softmax(draws, 2).mean(0).log(), atol=1e-5, rtol=1e-5)


def test_the_gradient_is_that_of_the_mean():
    """EOT: one backward through all draws, equal to the mean of p_i-weighted gradients by hand."""
    model = averaged(scaled(0.1), 4)
    x, y, _ = samples(3)
    point = x.clone().requires_grad_()
    (got,) = torch.autograd.grad(model(point).gather(1, y[:, None]).sum(), point)
    by_hand, weights = [], []
    for i in range(4):
        p = torch.softmax(model.sampling.draw(point, i), 1).gather(1, y[:, None])
        by_hand.append(torch.autograd.grad(p.sum(), point)[0])
        weights.append(p.detach())
    want = torch.stack(by_hand).sum(0) / torch.stack(weights).sum(0)[:, :, None, None]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_a_network_with_loud_logits_keeps_a_slope():
    """Draws that are certain would make the mean count votes; its temperature keeps a gradient on every sample."""
    model = averaged(scaled(1000, sigma=0.05), 5)
    x, y, _ = samples(32)
    point = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(margin(model(point), y).sum(), point)
    assert model.fn.temperature > 10
    assert bool(g.flatten(1).any(1).all())


def test_of_a_deterministic_network_the_mean_is_the_network():
    model = behind(nn.Identity())
    assert averaged(model, 20) is model


def test_global_generators_are_left_alone():
    model = averaged(behind(ResizePad()), 3)
    x, _, _ = samples(2)
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    want = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    model(x)
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == want


def test_every_number_of_draws_and_every_seed_is_a_model_of_its_own():
    model = behind(Noise(0.3))
    several = [averaged(model, 5), averaged(model, 6), averaged(model, 5, seed=1)]
    assert len({m.digest for m in several} | {model.digest}) == 4
    assert averaged(model, 5).digest == several[0].digest
    assert "5 draws" in several[0].name
    assert not several[0].stochastic


def test_numbers_that_cannot_be_fixed_are_refused():
    with pytest.raises(StochasticModel, match="cannot be fixed"):
        averaged(behind(Private()), 5)
    with pytest.raises(InputError, match="draws = 0"):
        averaged(behind(Noise(0.3)), 0)


def test_three_channels_are_not_a_batch_of_three():
    """A tensor whose first axis happens to have the batch's length keeps its own entries."""

    class Channels(nn.Module):
        def forward(self, x):
            return x + torch.randn(3, 1, 1)

    net = nn.Sequential(Channels(), nn.Flatten(), nn.Linear(12, 3, bias=False)).eval()
    net[2].weight.data = torch.block_diag(*[torch.full((1, 4), 0.25)] * 3)
    draw = averaged(from_torch(net, (0, 1), shape=(3, 2, 2)), 3).sampling.draw
    x = torch.zeros(3, 3, 2, 2)
    assert len(set(draw(x, 0)[0].tolist())) == 3
    assert Drawn(net, 0)(x, 0)[0].unique().numel() == 1  # what would happen without looking


def test_slopes_are_averaged_too():
    class Coarse(nn.Module):
        def forward(self, x):
            return torch.round(3 * (x + 0.1 * torch.randn_like(x))) / 3

    model = averaged(with_straight_through(behind(Coarse())), 5)
    x, y, ids = samples(48)
    assert run(model, PGD(steps=15), Rows(x, y, ids, Linf("0.3"))).success.float().mean() >= 0.9
    torch.testing.assert_close(model.slopes(x), model(x))
