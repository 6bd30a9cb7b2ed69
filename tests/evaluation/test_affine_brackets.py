"""Affine models in float64: attack = certificate = closed form, through the whole main job, with the box active.

m* = min over j ≠ y of  b_y − b_j − max over z in S(x0) of ⟨w_j − w_y, z⟩
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saddlepoint.adapters import from_torch
from saddlepoint.attack import APGDTargeted
from saddlepoint.bound.crown import CROWN
from saddlepoint.data import from_arrays
from saddlepoint.evaluation import Plan, evaluate
from saddlepoint.geometry import L0, L1, L2, Box, Linf
from saddlepoint.spec import Verdict, margin_matrix

# each rival has its own worst point: one targeted search per rival, its last step a vertex of the set (lmo)
PLAN = Plan("both sides", lambda threat: [APGDTargeted(steps=10, loss="margin", polish=True), CROWN()])


def affine(classes, features, seed):
    generator = torch.Generator().manual_seed(seed)
    net = nn.Linear(features, classes).double()
    with torch.no_grad():
        net.weight.copy_(torch.randn(classes, features, generator=generator, dtype=torch.float64))
        net.bias.copy_(torch.randn(classes, generator=generator, dtype=torch.float64))
    x = torch.rand(40, features, generator=generator, dtype=torch.float64)
    x[:, ::3] = x[:, ::3].round()  # every third coordinate at a side of the box
    return net, x, net(x).argmax(1)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("ball", [Linf("0.02"), L2("0.15"), L1("0.5")], ids=lambda s: s.kind)
def test_attack_equals_certificate_equals_closed_form(ball, classes):
    net, x, y = affine(classes, 30, classes)
    model = from_torch(net, (0, 1), shape=(30,))
    data = from_arrays(x.numpy(), y.numpy(), dtype=torch.float64, classes=classes)
    with evaluate(model, data, ball, PLAN) as book:
        samples = book.bracket().samples
        counts = book.bracket().counts
    rows = margin_matrix(y, classes, torch.float64) @ net.weight.detach()
    offsets = (margin_matrix(y, classes, torch.float64) @ net.bias.detach()[:, None])[:, :, 0]
    exact = (offsets - ball.within(Box(0, 1)).support(x, -rows)).amin(1)
    assert counts[Verdict.CERTIFIED] > 3
    assert counts[Verdict.OPEN] == counts[Verdict.CONTRADICTION] == 0
    for sample, truth in zip(samples, exact.tolist(), strict=True):
        assert (sample.verdict is Verdict.CERTIFIED) == (truth > 0)
        if truth > 0:
            assert sample.lower == pytest.approx(truth, rel=1e-6)
            assert sample.upper == pytest.approx(truth, rel=1e-6)
            assert sample.lower <= sample.upper


def test_l0_is_certified_exactly_too():
    net, x, y = affine(3, 20, 1)
    model = from_torch(net, (0, 1), shape=(20,))
    data = from_arrays(x.numpy(), y.numpy(), dtype=torch.float64, classes=3)
    rows = margin_matrix(y, 3, torch.float64) @ net.weight.detach()
    offsets = (margin_matrix(y, 3, torch.float64) @ net.bias.detach()[:, None])[:, :, 0]
    exact = (offsets - L0(1, Box(0, 1)).support(x, -rows)).amin(1)
    with evaluate(model, data, L0(1), Plan("c", lambda threat: [CROWN()])) as book:
        samples = book.bracket().samples
    assert any(t > 0 for t in exact.tolist())
    for sample, truth in zip(samples, exact.tolist(), strict=True):
        assert (sample.verdict is Verdict.CERTIFIED) == (truth > 0)
        assert truth <= 0 or sample.lower == pytest.approx(truth, rel=1e-6)
