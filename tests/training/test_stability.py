"""ReLU stability: the penalty's closed form, what it buys, and pruning that says what it changed."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

import saddlepoint as sp
from saddlepoint.bound import CROWN
from saddlepoint.bound.interval import region_of
from saddlepoint.core.errors import InputError, UnsupportedModel
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data import load
from saddlepoint.graph.capture import capture
from saddlepoint.spec import margin_matrix
from saddlepoint.training import Adversarial, Standard, Trainer, fresh, train
from saddlepoint.training.pruning import Pruning
from saddlepoint.training.stability import ReluStability, current_graph, relu_inputs, unstable

UNIT = sp.Box(0.0, 1.0)
BALL = sp.Linf("0.03", box=UNIT)


def _net(seed: int = 0) -> nn.Module:
    return fresh(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10)), seed
    )


@pytest.fixture(scope="module")
def batch():
    return load("digits:test").take(range(50))


def _draws(ids: tuple[str, ...]) -> Draws:
    return Draws(row_keys(0, ids, "test"))


def test_the_penalty_of_one_unit_by_hand() -> None:
    net = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[2.0, -1.0]]))
        net[0].bias.zero_()
    x, y = torch.tensor([[0.1, 0.2]], dtype=torch.float64), torch.tensor([0])
    draws = _draws(("0",))
    # v = 0, radius 3 ε: l = −0.3, u = 0.3
    base = Standard()(net, x, y, draws)
    loss = ReluStability(sp.Linf("0.1"), weight=0.5, l1=0.01, objective=Standard())(net, x, y, draws)
    l1 = sum(w.abs().sum().item() for w in (net[0].weight, net[2].weight))
    assert loss.item() == pytest.approx(base.item() - 0.5 * math.tanh(1 - 0.09) + 0.01 * l1, rel=1e-12)


def test_no_weights_is_the_base_objective(batch) -> None:
    net, draws = _net(), _draws(batch.ids)
    plain = ReluStability(BALL, weight=0.0, l1=0.0)(net, batch.x, batch.y, draws)
    assert plain.item() == pytest.approx(Adversarial(BALL)(net, batch.x, batch.y, draws).item(), rel=1e-6)


def test_improved_bounds_lie_inside_the_naive_ones_and_hold_everywhere(batch) -> None:
    net = _net(1)
    graph, region = current_graph(net, batch.x), region_of(BALL, batch.x)
    naive, improved = (relu_inputs(graph, region, bounds) for bounds in ("naive", "improved"))
    values = [graph.values(BALL.sample(batch.x, Draws(row_keys(i, batch.ids, "s")))) for i in range(5)]
    for name, (lower, upper) in improved.items():
        assert bool((lower >= naive[name][0] - 1e-6).all())
        assert bool((upper <= naive[name][1] + 1e-6).all())
        for value in values:
            read = value[graph.node(name).inputs[0]]
            assert bool(((read >= lower - 1e-5) & (read <= upper + 1e-5)).all())
    assert bool((unstable(improved) <= unstable(naive)).all())
    assert bool((unstable(improved) < unstable(naive)).any())


def test_training_for_stability_halves_the_unstable_units(batch) -> None:
    data, ball = load("digits:train"), sp.Linf("0.1", box=UNIT)
    base = Adversarial(ball, steps=2)
    region, counts, right = region_of(ball, batch.x), [], []
    for objective in (base, ReluStability(ball, 1e-2, objective=base)):
        net = train(_net(), data, objective, Trainer(epochs=8, rate=5e-3, warm_up=2), guards=None).net
        counts.append(unstable(relu_inputs(current_graph(net, batch.x), region, "naive")).mean().item())
        right.append((net(batch.x).argmax(1) == batch.y).double().mean().item())
    assert counts[1] < 0.5 * counts[0]
    assert right[1] >= right[0] - 0.08


def test_pruned_units_are_stable_and_the_rest_is_unchanged(batch) -> None:
    net = _net(2)
    pruned = Pruning(BALL, weights=0.0, share=1.0)(net, batch.x)
    # stable for every sample of the batch: on these, and around them, it is the same function
    points = BALL.sample(batch.x, _draws(batch.ids))
    assert torch.allclose(pruned(points), net(points), atol=1e-6)
    looser = Pruning(BALL, weights=0.01, share=0.6)(net, batch.x)
    assert float((looser[1].weight == 0).sum()) == float((net[1].weight.abs() < 0.01).sum())
    before = unstable(relu_inputs(current_graph(net, batch.x), region_of(BALL, batch.x), "naive"))
    after = unstable(relu_inputs(current_graph(looser, batch.x), region_of(BALL, batch.x), "naive"))
    assert after.mean() < before.mean()
    assert net[2].__class__ is nn.ReLU  # the caller's network is left as it was
    lower = CROWN()(capture(looser, batch.x), BALL, batch.x, margin_matrix(batch.y, 10)).lower
    assert bool((lower <= torch.einsum("bmk,bk->bm", margin_matrix(batch.y, 10), looser(batch.x)) + 1e-4).all())


def test_a_relu_that_is_no_module_cannot_be_pruned(batch) -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(64, 8), nn.Linear(8, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.first(x.flatten(1))))

    with pytest.raises(UnsupportedModel, match=r"nn\.ReLU"):
        Pruning(BALL)(Functional(), batch.x)


def test_the_schedule_and_wrong_settings(batch) -> None:
    net, draws = _net(3), _draws(batch.ids)
    objective = ReluStability(BALL, objective=Standard())
    early = objective.at(Fraction(1, 10))(net, batch.x, batch.y, draws)
    assert early.item() < objective(net, batch.x, batch.y, draws).item()  # a smaller set has fewer unstable units
    for wrong in (
        lambda: ReluStability(BALL, weight=-1.0),
        lambda: Pruning(BALL, share=0.2),
    ):
        with pytest.raises(InputError):
            wrong()
