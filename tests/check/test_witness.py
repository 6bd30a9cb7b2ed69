"""Replay: what the deployed model says at a witness, and only at allowed ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from torch import nn

from saddlepoint.adapters import from_torch
from saddlepoint.check.counts import clopper_pearson
from saddlepoint.check.witness import replay
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import Box, Linf, RotationTranslation
from saddlepoint.spec import Access, Model, Targeted, Threat


def linear(weights, bias):
    net = nn.Linear(len(weights[0]), len(weights))
    with torch.no_grad():
        net.weight.copy_(torch.tensor(weights))
        net.bias.copy_(torch.tensor(bias))
    return from_torch(net, domain=(0, 1), shape=(len(weights[0]),))


MODEL = linear([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
THREAT = Threat(Linf("0.1", Box(0, 1))).canonical()
X0 = torch.tensor([[0.5, 0.45], [0.9, 0.1]])
Y = torch.tensor([0, 0])


def test_values_and_permission():
    witness = torch.tensor([[0.45, 0.5], [0.7, 0.1]])
    seen = replay(MODEL, THREAT, X0, Y, witness)
    assert seen.allowed.tolist() == [True, False]
    assert float(seen.value[0]) == pytest.approx(-0.05)
    assert bool(seen.value[1].isnan())  # outside the set: it bounds nothing
    assert seen.margin_f64_upper is not None
    assert float(seen.margin_f64_upper[0]) == pytest.approx(-0.05, abs=1e-7)


def test_the_sample_itself_is_a_witness():
    seen = replay(MODEL, THREAT, X0, Y)
    torch.testing.assert_close(seen.value, torch.tensor([0.05, 0.8]))
    assert bool(seen.allowed.all())


def test_targeted_goal_is_read_from_the_threat():
    threat = Threat(Linf("0.1", Box(0, 1)), goal=Targeted(1)).canonical()
    seen = replay(MODEL, threat, X0, Y, X0)
    torch.testing.assert_close(seen.value, torch.tensor([0.05, 0.8]))


def test_trap_04_batch_disagreement_is_recorded_and_never_breaks():
    def moody(x):  # a kernel that depends on the batch: one sample alone is read as class 0
        z = torch.stack([x[:, 0], x[:, 1]], 1)
        return z if len(x) > 1 else z + torch.tensor([[1.0, 0.0]])

    model = Model(moody, Box(0, 1), 2, Access.GRADIENT, "moody", (2,))
    seen = replay(model, THREAT, X0, Y, torch.tensor([[0.45, 0.5], [0.9, 0.1]]))
    assert seen.disagree.tolist() == [True, False]
    assert float(seen.value[0]) > 0  # the weaker of the two readings counts
    assert seen.margin_f64_upper is None


def test_trap_05_nan_logits_show_nothing():
    model = Model(lambda x: x * float("nan"), Box(0, 1), 2, Access.GRADIENT, "nan", (2,))
    assert bool(replay(model, THREAT, X0, Y, X0).value.isnan().all())


def test_eight_bits_are_reported():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0.0]]))
        net[1].bias.copy_(torch.tensor([0.0, 0.5]))
    model = from_torch(net, domain=(0, 1), shape=(1, 2, 2))
    x0 = torch.full((2, 1, 2, 2), 0.55)
    near, far = x0[:1].clone(), x0[1:].clone()
    near[0, 0, 0, 0] = 0.4999  # rounds to 127/255 = 0.498: survives
    far[0, 0, 0, 0] = 0.49999
    far = far - 0  # 127.497 also rounds down
    seen = replay(model, THREAT, x0, torch.zeros(2, dtype=torch.long), torch.cat([near, far]))
    assert seen.survives_8bit is not None
    assert seen.survives_8bit.tolist() == [True, True]
    fragile = x0[:1].clone()
    fragile[0, 0, 0, 0] = 0.5  # a tie violates, but 0.5 is stored as 128/255 > 0.5
    seen = replay(model, THREAT, x0[:1], torch.zeros(1, dtype=torch.long), fragile)
    assert float(seen.value) <= 0
    assert seen.survives_8bit is not None
    assert not bool(seen.survives_8bit[0])


def test_parameters_are_rendered_by_the_checker():
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
    model = from_torch(net, domain=(0, 1), shape=(1, 3, 3))
    threat = Threat(RotationTranslation("30", "1", Box(0, 1))).canonical()
    x0 = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1])
    still = replay(model, threat, x0, y, torch.zeros(2, 3))
    torch.testing.assert_close(still.value, replay(model, threat, x0, y).value)
    assert replay(model, threat, x0, y, torch.tensor([[31.0, 0, 0], [0, 0, 1]])).allowed.tolist() == [False, True]


@given(st.integers(1, 60), st.floats(0.01, 0.99))
def test_clopper_pearson_covers(n, p):
    covered = sum(binom.pmf(k, n, p) for k in range(n + 1) if clopper_pearson(k, n)[0] <= p <= clopper_pearson(k, n)[1])
    assert covered >= 0.95 - 1e-9


def test_clopper_pearson_edges():
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert clopper_pearson(10, 10)[1] == 1.0
    with pytest.raises(InputError):
        clopper_pearson(3, 2)
