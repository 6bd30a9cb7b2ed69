"""Operator norms from above, and margins that no point of the set undercuts."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import bounded_nets as nets
from saddlepoint.bound import Lipschitz
from saddlepoint.bound.lipschitz import gram, margin_constants, operator_norms
from saddlepoint.core.errors import UnsupportedOperator
from saddlepoint.geometry import L1, L2, Box, Linf
from saddlepoint.graph.capture import capture
from saddlepoint.graph.ops import Add, AvgPool2d, BatchNorm, Conv2d, ConvTranspose2d, Linear, Reshape

SEEDS = st.integers(0, 2**20)
UNIT = Box(0, 1)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, shape=st.sampled_from([(1, 1), (3, 7), (20, 20), (40, 11)]), scale=st.sampled_from([1e-8, 1.0, 1e9]))
def test_gram_bounds_the_spectral_norm_closely(seed, shape, scale):
    w = torch.randn(*shape, generator=nets.seeded(seed), dtype=torch.float64) * scale
    truth = float(torch.linalg.matrix_norm(w, 2))
    assert truth <= gram(w) <= truth * 1.03
    low_rank = w[:, :1] @ w[:1]
    assert float(torch.linalg.matrix_norm(low_rank, 2)) * (1 - 1e-12) <= gram(low_rank)


def matrix(op, shape):
    size = math.prod(shape)
    return op.map(torch.eye(size, dtype=torch.float64).view(size, *shape)).reshape(size, -1).T


def random(*shape, seed=0):
    return torch.randn(*shape, generator=nets.seeded(seed), dtype=torch.float64)


OPS = [
    (Linear(random(4, 6)), (6,)),
    (Conv2d(random(4, 3, 3, 3), None, (1, 1), (1, 1)), (3, 6, 6)),
    (Conv2d(random(4, 2, 3, 2), None, (2, 1), (1, 0), (1, 2), 2), (4, 7, 6)),
    (ConvTranspose2d(random(3, 2, 3, 3), None, (2, 2), (1, 1)), (3, 4, 4)),
    (AvgPool2d((2, 2), (2, 2)), (2, 6, 6)),
    (BatchNorm(random(3), random(3).abs(), random(3, seed=1), random(3)), (3, 2, 2)),
    (Reshape((6,)), (2, 3)),
]


@pytest.mark.parametrize(("op", "shape"), OPS, ids=lambda v: getattr(v, "kind", ""))
def test_operator_norms_bound_those_of_the_matrix(op, shape, monkeypatch):
    w = matrix(op, shape)
    truth = [float(w.abs().sum(0).max()), float(torch.linalg.matrix_norm(w, 2)), float(w.abs().sum(1).max())]
    for dense in (1 << 22, 0):  # written out, or by its frequencies
        monkeypatch.setattr("saddlepoint.bound.lipschitz.DENSE", dense)
        (found,) = operator_norms(op, (shape,))
        assert found[0] == pytest.approx(truth[0])
        assert found[2] == pytest.approx(truth[2])
        assert found[1] >= truth[1] * (1 - 1e-12)
        if dense:
            assert found[1] <= truth[1] * 1.05


def test_frequencies_are_close_for_a_convolution_on_a_large_image(monkeypatch):
    monkeypatch.setattr("saddlepoint.bound.lipschitz.DENSE", 0)
    op, shape = Conv2d(random(4, 3, 3, 3), None, (1, 1), (1, 1)), (3, 16, 16)
    truth = float(torch.linalg.matrix_norm(matrix(op, shape), 2))
    assert truth <= operator_norms(op, (shape,))[0][1] <= truth * 1.1


def test_two_inputs_have_a_norm_each():
    assert operator_norms(Add(), ((3,), (3,))) == [pytest.approx((1, 1, 1))] * 2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 3, 3, 1, 1), nn.LeakyReLU(0.1), nn.MaxPool2d(3, 2))
        self.branch = nn.Sequential(nn.Conv2d(3, 3, 3, 1, 1), nn.Tanh())
        self.last = nn.Sequential(nn.Flatten(), nn.Linear(27, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        return self.last(torch.sigmoid(self.branch(h) + h))


@pytest.mark.parametrize("set", [Linf("0.05", UNIT), L2("0.5", UNIT), L1("1", UNIT), Box(0.2, 0.6)], ids=repr)
def test_no_point_of_the_set_undercuts_the_bound(set):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = Net().eval(), 0.2 + 0.4 * torch.rand(4, 1, 8, 8)
    graph = capture(net, x)
    C = torch.randn(4, 2, 3, generator=nets.seeded(0))
    lower = Lipschitz()(graph, set, x, C).lower
    assert bool(lower.isfinite().all())
    inside = nets.points(set, x, 80, 0)
    z = net(inside.flatten(0, 1)).view(4, 80, 3)
    assert bool((lower[..., None] <= torch.einsum("bmk,bpk->bmp", C, z) + 1e-5).all())
    # along the gradient, where a constant that is too small would show
    point = x.clone().requires_grad_()
    (g,) = torch.autograd.grad((C[:, 0] * net(point)).sum(), point)
    worst = (C[:, 0] * net(set.lmo(x, -g))).sum(1)
    assert bool((lower[:, 0] <= worst + 1e-5).all())


def test_a_linear_model_is_exact_in_its_own_norm():
    weight, x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    graph = nets.affine(weight, torch.zeros(2, dtype=torch.float64))
    C = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
    assert margin_constants(graph, C)[0, 0].tolist() == pytest.approx([4.0, 5.0, 7.0])
    for set, fall in ((L1("1"), 4.0), (L2("1"), 5.0), (Linf("1"), 7.0)):
        assert float(Lipschitz()(graph, set, x, C).lower) == pytest.approx(-fall)


def test_operators_without_a_constant_are_refused_and_nan_certifies_nothing():
    x = torch.rand(1, 4)
    with pytest.raises(UnsupportedOperator, match="Exp"):
        Lipschitz()(capture(Exponential().eval(), x), Linf("0.1", UNIT), x)
    bad = nets.affine(torch.full((2, 2), torch.nan), torch.zeros(2))
    assert bool((Lipschitz()(bad, Linf("0.1", UNIT), torch.rand(1, 2)).lower == -torch.inf).all())


class Exponential(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.exp(x)
