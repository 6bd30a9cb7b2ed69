"""Closed forms, identities and named traps of the empirical objectives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import saddlepoint as sp
from saddlepoint.adapters.architectures.registry import build
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data import load
from saddlepoint.training import Adversarial, Trainer, fresh, train
from saddlepoint.training.curvature import CURE
from saddlepoint.training.input_gradient import GradientPenalty
from saddlepoint.training.jacobian import JacobianPenalty, squared_norms
from saddlepoint.training.label_smoothing import LabelSmoothing
from saddlepoint.training.logit_pairing import ALP
from saddlepoint.training.mart import MART, boosted
from saddlepoint.training.trades import TRADES, divergence, near
from saddlepoint.training.weight_perturbation import AWP

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


def test_trades_without_beta_is_cross_entropy(trained, batch) -> None:
    loss = TRADES(LINF, steps=1, beta=0.0)(trained, batch.x, batch.y, _draws(batch.ids))
    assert torch.equal(loss, functional.cross_entropy(trained(batch.x), batch.y))


def test_the_divergence_is_that_of_the_distributions() -> None:
    p, q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.5, 0.25, 0.25]])
    expected = 0.7 * math.log(1.4) + 0.2 * math.log(0.8) + 0.1 * math.log(0.4)
    assert float(divergence(p.log() + 3, q.log() - 2)) == pytest.approx(expected, abs=1e-6)


def test_trap_the_divergence_has_no_gradient_at_x_so_the_ascent_starts_beside_it(trained, batch) -> None:
    x, draws = batch.x, _draws(batch.ids)
    clean = trained(x).detach()
    start = near(LINF, x, draws)

    def slope(at):
        points = at.clone().requires_grad_()
        (found,) = torch.autograd.grad(divergence(clean, trained(points)).sum(), points)
        return found.abs().amax((1, 2, 3))

    # the gradient at x is rounding noise: an ascent from there sees nothing on its first step
    assert float(slope(x).amax()) < 1e-5
    assert float((slope(start) / slope(x).clamp_min(1e-9)).median()) > 100
    found = TRADES(LINF, steps=5).points(trained, x, batch.y, draws)
    assert float(divergence(clean, trained(found)).detach().mean()) > 0.05
    assert bool(LINF.contains(x, start).all())
    assert 0 < float((start - x).abs().amax()) < 0.006


def test_trades_starts_near_the_unmoved_parameters(batch) -> None:
    start = near(TURN, batch.x, _draws(batch.ids))
    assert start.shape == (40, 3)
    assert 0 < float(start.abs().amax()) < 0.006


def test_mart_at_its_formula_and_in_its_limits() -> None:
    z = torch.tensor([[2.0, 0.5, -1.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    y = torch.tensor([0, 1])
    p = z.softmax(1)
    expected = torch.stack(
        [-p[0, 0].log() - (1 - p[0, 1]).log(), -p[1, 1].log() - (1 - p[1, 2]).log()]
    )  # the rival of row 1 is class 2, the prediction itself
    assert torch.allclose(boosted(z, y), expected)
    assert bool(boosted(torch.tensor([[80.0, 0.0, 0.0], [0.0, 80.0, 0.0]]), torch.tensor([0, 0])).isfinite().all())


def test_trap_marts_factors_are_differentiated(linear) -> None:
    # the gradient is that of the whole product: a detached 1 − p_y would fail the finite difference
    net, x, y, _ = linear
    objective, moved = MART(sp.Linf("0.1"), weight=5.0), x + 0.1
    (gradient,) = torch.autograd.grad(objective.loss(net, x, moved, y), net[1].weight)
    step, changed = 1e-6, []
    for sign in (1, -1):
        other = fresh(net)
        other.load_state_dict(net.state_dict())
        with torch.no_grad():
            other[1].weight[0, 0] += sign * step
            p, q = other(x).softmax(1), other(moved).softmax(1)
            own = torch.arange(5), y
            bce = -q[own].log() - (1 - q[torch.arange(5), 1 - y]).log()
            kl = (p * (p.log() - q.log())).sum(1)
            changed.append(float((bce + 5.0 * kl * (1 - p[own])).mean().detach()))
    assert float(gradient[0, 0]) == pytest.approx((changed[0] - changed[1]) / (2 * step), rel=1e-6)


def test_alp_without_weight_is_the_mixed_batch_and_with_it_pulls_logits_together(trained, batch) -> None:
    draws = _draws(batch.ids)
    points = Adversarial(LINF).points(trained, batch.x, batch.y, draws)
    mixed = (
        functional.cross_entropy(trained(batch.x), batch.y) + functional.cross_entropy(trained(points), batch.y)
    ) / 2
    assert torch.equal(ALP(LINF, weight=0.0)(trained, batch.x, batch.y, draws), mixed)
    gap = (trained(batch.x) - trained(points)).square().sum(1).mean()
    assert torch.allclose(ALP(LINF, weight=2.0)(trained, batch.x, batch.y, draws), mixed + 2 * gap)


def test_alp_says_what_it_is() -> None:
    assert "masks gradients" in ALP.warning


def test_awp_moves_each_layer_by_its_share_of_the_layer_and_no_bias(trained, batch) -> None:
    draws, objective = _draws(batch.ids), Adversarial(LINF, steps=2)
    for steps in (1, 3):
        awp = AWP(objective, gamma=0.02, steps=steps)
        points = objective.points(trained, batch.x, batch.y, draws)
        moves = awp.moves(trained, batch.x, points, batch.y)
        weights = dict(trained.named_parameters())
        assert set(moves) == {name for name in weights if name.endswith("weight")}
        for name, v in moves.items():
            share = float(v.norm() / weights[name].detach().norm())
            assert share <= 0.02 * (1 + 1e-5)
            if steps == 1:
                assert share == pytest.approx(0.02, rel=1e-5)
        losses = [o(trained, batch.x, batch.y, draws).detach() for o in (awp, objective)]
        assert float(losses[0]) > float(losses[1])


def test_trap_awps_loss_does_not_change_when_a_relu_network_is_rescaled(batch) -> None:
    # one layer times c, the next over c: the same function; a step that is not relative to ‖w‖ would see another one
    net = fresh(nn.Sequential(nn.Flatten(), nn.Linear(64, 16, bias=False), nn.ReLU(), nn.Linear(16, 10, bias=False)))
    scaled = fresh(net)
    scaled.load_state_dict(net.state_dict())
    with torch.no_grad():
        scaled[1].weight.mul_(8.0)
        scaled[3].weight.div_(8.0)
    awp = AWP(Adversarial(LINF, steps=2), gamma=0.05)
    losses = [float(awp(n, batch.x, batch.y, _draws(batch.ids)).detach()) for n in (net, scaled)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_awp_without_gamma_is_its_objective_and_its_gradient_is_taken_at_the_moved_weights(linear) -> None:
    net, x, y, w = linear
    inner = Adversarial(sp.Linf("0.1"), steps=2)
    assert torch.equal(AWP(inner, gamma=0.0)(net, x, y, FIVE), inner(net, x, y, FIVE))
    awp = AWP(inner, gamma=0.1)
    points = inner.points(net, x, y, FIVE)
    v = awp.moves(net, x, points, y)["1.weight"]
    there = (w + v).requires_grad_()
    (expected,) = torch.autograd.grad(functional.cross_entropy(functional.linear(points, there, net[1].bias), y), there)
    (found,) = torch.autograd.grad(awp(net, x, y, FIVE), net[1].weight)
    assert torch.allclose(found, expected)


def test_awps_ascent_moves_no_running_statistics(batch) -> None:
    net = fresh(nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))).train()
    AWP(Adversarial(LINF, steps=2), steps=3)(net, batch.x, batch.y, _draws(batch.ids))
    assert int(net[2].num_batches_tracked) == 1  # the loss that is differentiated, as without AWP


def test_the_gradient_penalty_of_a_linear_model_is_its_weights(linear) -> None:
    net, x, y, w = linear
    across = (w[1] - w[0]).square().sum()
    loss = GradientPenalty(3.0)(net, x, y, FIVE)
    wrong = net(x).softmax(1)[torch.arange(5), 1 - y]  # ∇ℓ = p_wrong (w_wrong − w_y)
    expected = functional.cross_entropy(net(x), y) + 3.0 * (wrong.square() * across).mean()
    assert torch.allclose(loss, expected)


def test_the_gradient_penalty_tends_to_the_squared_weights_where_all_is_wrong(linear) -> None:
    net, x, y, w = linear
    far = x + 1e3 * (torch.where(y == 0, 1.0, -1.0)[:, None] * (w[1] - w[0]))
    penalty = GradientPenalty(1.0)(net, far, y, FIVE) - GradientPenalty(0.0)(net, far, y, FIVE)
    assert float(penalty.detach()) == pytest.approx(float((w[1] - w[0]).square().sum()), rel=1e-9)


def test_the_jacobian_estimate_is_unbiased_and_exact_for_rows_of_equal_length(linear) -> None:
    net, x, _, w = linear
    points = x.clone().requires_grad_()
    many = squared_norms(net(points), points, FIVE, 2000)
    assert torch.allclose(many, w.square().sum().expand(5), rtol=0.1)
    with torch.no_grad():
        net_equal = fresh(net).double()
        net_equal[1].weight.copy_(torch.eye(2, 6))  # orthonormal rows: every projection gives the same length
    one = squared_norms(net_equal(points), points, FIVE, 1)
    assert torch.allclose(one, torch.full((5,), 2.0, dtype=torch.float64))
    loss = JacobianPenalty(0.5)(net_equal, x, torch.zeros(5, dtype=torch.int64), FIVE)
    plain = functional.cross_entropy(net_equal(x), torch.zeros(5, dtype=torch.int64))
    assert float((loss - plain).detach()) == pytest.approx(0.5 / 2 * 2.0)


def test_cure_asks_nothing_of_a_loss_without_curvature_and_grows_with_it(linear) -> None:
    net, x, y, w = linear
    across = w[1] - w[0]
    far = x + 1e3 * (torch.where(y == 0, 1.0, -1.0)[:, None] * across)  # there the loss is linear in x
    flat = CURE(4.0, 0.5)(net, far, y, FIVE) - functional.cross_entropy(net(far), y)
    assert float(flat.detach().abs()) < 1e-9
    # on a linear model ∇ℓ = p (w_wrong − w_y), so the penalty is (p(x + h z) − p(x))² ‖w₁ − w₀‖²
    sign = torch.where(y == 0, 1.0, -1.0)[:, None].double() * across.sign()
    z = sign / sign.norm(dim=1, keepdim=True)
    p = [net(points).softmax(1)[torch.arange(5), 1 - y] for points in (x, x + 0.5 * z)]
    expected = functional.cross_entropy(net(x), y) + 4.0 * ((p[1] - p[0]).square() * across.square().sum()).mean()
    assert torch.allclose(CURE(4.0, 0.5)(net, x, y, FIVE), expected)


def test_label_smoothing_mixes_with_the_uniform_target(linear) -> None:
    net, x, y, _ = linear
    log_p = net(x).log_softmax(1)
    expected = 0.8 * functional.cross_entropy(net(x), y) - 0.2 * log_p.mean()
    assert torch.allclose(LabelSmoothing(0.2)(net, x, y, FIVE), expected)
