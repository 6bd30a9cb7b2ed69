"""What every empirical objective owes the loop, in one matrix."""

from __future__ import annotations

import copy
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import saddlepoint as sp
from saddlepoint.core.errors import InputError, InputOutsideDomain, NonFinite
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data import Batch, Data, from_arrays, load
from saddlepoint.training import Adversarial, Trainer, fresh, train
from saddlepoint.training.augment import RandomAugmentation
from saddlepoint.training.curvature import CURE
from saddlepoint.training.gaussian import GaussianAugmentation
from saddlepoint.training.input_gradient import GradientPenalty
from saddlepoint.training.jacobian import JacobianPenalty
from saddlepoint.training.label_smoothing import LabelSmoothing
from saddlepoint.training.logit_pairing import ALP
from saddlepoint.training.macer import MACER
from saddlepoint.training.mart import MART
from saddlepoint.training.msd import MSD
from saddlepoint.training.multi_set import AverageOfSets, MaxOfSets
from saddlepoint.training.objective import Objective
from saddlepoint.training.smoothadv import SmoothAdv
from saddlepoint.training.trades import TRADES
from saddlepoint.training.weight_perturbation import AWP
from saddlepoint.training.worst_of_k import WorstOfK

UNIT = sp.Box(0.0, 1.0)
LINF, L2, L1 = sp.Linf("0.1", box=UNIT), sp.L2("0.5", box=UNIT), sp.L1("2", box=UNIT)
TURN = sp.RotationTranslation("30", "1", UNIT)
OBJECTIVES = {
    "random": RandomAugmentation(LINF),
    "random-turn": RandomAugmentation(TURN),
    "trades": TRADES(LINF, steps=2),
    "mart": MART(LINF, steps=2),
    "alp": ALP(LINF, steps=2),
    "awp": AWP(Adversarial(LINF, steps=2)),
    "awp-trades": AWP(TRADES(LINF, steps=2), steps=2),
    "awp-average": AWP(AverageOfSets((LINF, L2), steps=2)),
    "gradient": GradientPenalty(),
    "jacobian": JacobianPenalty(),
    "cure": CURE(),
    "smoothed-labels": LabelSmoothing(),
    "worst-of-k": WorstOfK(LINF, 3),
    "worst-of-k-turn": WorstOfK(TURN, grid=(3, 3)),
    "max": MaxOfSets((LINF, TURN), steps=2),
    "average": AverageOfSets((LINF, TURN), steps=2),
    "msd": MSD((LINF, L2, L1), steps=2),
    "gaussian": GaussianAugmentation(),
    "smoothadv": SmoothAdv(L2, steps=2),
    "macer": MACER(samples=4),
}
every = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())


@pytest.fixture(scope="module")
def batch():
    return load("digits:test").take(range(12))


def _draws(ids: tuple[str, ...]) -> Draws:
    return Draws(row_keys(0, ids, "test"))


def _net() -> nn.Sequential:
    """Batch norm and dropout in it, so that modes and buffers are seen."""
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Dropout(0.0), nn.Linear(144, 10)
    return fresh(nn.Sequential(*layers)).train()


@every
def test_weights_gradients_and_flags_are_left_as_found(objective: Objective, batch) -> None:
    assert isinstance(objective, Objective)
    net = _net()
    net[1].eval()
    net[1].weight.requires_grad_(False)
    net[5].bias.grad = torch.ones(10)
    before, flags = copy.deepcopy(net), [module.training for module in net.modules()]
    loss = objective(net, batch.x, batch.y, _draws(batch.ids))
    assert loss.shape == ()
    assert loss.requires_grad
    assert [module.training for module in net.modules()] == flags
    assert all(torch.equal(w, v) for w, v in zip(net.parameters(), before.parameters(), strict=True))
    assert torch.equal(net[5].bias.grad, torch.ones(10))
    assert all(w.grad is None for n, w in net.named_parameters() if n != "5.bias")
    assert [w.requires_grad for w in net.parameters()] == [w.requires_grad for w in before.parameters()]


@every
def test_the_gradient_by_every_weight_is_finite_and_not_zero(objective: Objective, batch) -> None:
    net = _net()
    loss = objective(net, batch.x, batch.y, _draws(batch.ids))
    weights = [net[0].weight, net[1].weight, net[5].weight]
    gradients = torch.autograd.grad(loss, weights)
    assert all(bool(g.isfinite().all()) and float(g.abs().amax()) > 0 for g in gradients)


@every
def test_equal_draws_give_equal_losses_whatever_the_global_generator_says(objective: Objective, batch) -> None:
    losses, net = [], _net().eval()
    for outside in (1, 2):
        torch.manual_seed(outside)
        state = torch.get_rng_state()
        losses.append(objective(net, batch.x, batch.y, _draws(batch.ids)).detach())
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(losses[0], losses[1])


@every
def test_the_order_of_the_batch_does_not_matter(objective: Objective, batch) -> None:
    net, turned = _net().eval(), torch.arange(len(batch.y)).flip(0)
    draws = _draws(batch.ids)
    there = objective(net, batch.x, batch.y, draws).detach()
    back = objective(net, batch.x[turned], batch.y[turned], draws.take(turned)).detach()
    assert float(back) == pytest.approx(float(there), rel=1e-5)


SCALED = {  # what an objective's schedule acts on, and what it keeps
    "weight": ("gradient", "jacobian", "macer"),
    "length": ("cure",),
    "alpha": ("smoothed-labels",),
    "gamma": ("awp", "awp-trades", "awp-average"),
}


@every
def test_early_in_training_the_adversary_is_smaller(objective: Objective) -> None:
    early = objective.at(Fraction(1, 4))
    assert type(early) is type(objective)
    assert objective.at(Fraction(1)) == objective
    name = next(name for name, other in OBJECTIVES.items() if other is objective)
    for field, names in SCALED.items():
        if name in names:
            assert getattr(early, field) == getattr(objective, field) / 4
    searching = getattr(objective, "objective", objective), getattr(early, "objective", early)
    if hasattr(searching[0], "set"):
        assert searching[1].set.size == searching[0].set.size / 4
    elif hasattr(searching[0], "sets"):
        assert [s.size for s in searching[1].sets] == [s.size / 4 for s in searching[0].sets]
    elif name == "gaussian":
        assert early == objective
    else:
        assert any(name in names for names in SCALED.values())


class _Spoiled:
    """Data whose third sample holds a NaN: `from_arrays` would refuse the array, a data set of one's own may not."""

    def __init__(self, data: Data) -> None:
        self.data = data

    def __getattr__(self, name: str) -> object:
        return getattr(self.data, name)

    def __len__(self) -> int:
        return len(self.data)

    def take(self, indexes: list[int]) -> Batch:
        batch = self.data.take(indexes)
        x = batch.x.clone()
        if "2" in batch.ids:
            x[batch.ids.index("2"), 0, 2, 2] = torch.nan
        return replace(batch, x=x)


@every
def test_data_that_are_not_numbers_stop_the_training(objective: Objective) -> None:
    x, y = np.full((8, 1, 8, 8), 0.5, np.float32), np.arange(8)
    with pytest.raises((NonFinite, InputOutsideDomain)):
        train(_net(), _Spoiled(from_arrays(x, y)), objective, Trainer(epochs=1))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Adversarial(LINF, steps=0),
        lambda: TRADES(LINF, beta=-1.0),
        lambda: TRADES(LINF, steps=0),
        lambda: MART(LINF, weight=float("nan")),
        lambda: ALP(LINF, weight=-0.1),
        lambda: AWP(Adversarial(LINF), gamma=-0.1),
        lambda: GradientPenalty(-1.0),
        lambda: JacobianPenalty(projections=0),
        lambda: CURE(length=0.0),
        lambda: LabelSmoothing(1.5),
        lambda: WorstOfK(LINF, 0),
        lambda: WorstOfK(LINF, grid=(3, 3)),
        lambda: MaxOfSets(()),
        lambda: MSD((LINF, TURN)),
        lambda: GaussianAugmentation(0.0),
        lambda: SmoothAdv(L2, sigma=0.0),
        lambda: SmoothAdv(L2, samples=0),
        lambda: MACER(sharpness=0.0),
    ],
)
def test_settings_that_mean_nothing_are_refused_when_they_are_given(wrong) -> None:
    with pytest.raises(InputError):
        wrong()


@every
def test_an_epoch_on_digits_leaves_a_better_network(objective: Objective) -> None:
    few = load("digits:test").take(range(128))
    curve = train(
        _net(), from_arrays(few.x.numpy(), few.y.numpy()), objective, Trainer(epochs=3, batch=32, rate=1e-2)
    ).epochs
    assert curve[-1].loss < curve[0].loss
