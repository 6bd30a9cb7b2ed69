"""The loop: equal seeds, equal weights; nothing of the caller's is moved; failures are said."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import saddlepoint as sp
from saddlepoint.core.errors import DataError, InputError, NonFinite, NotAvailable, UnsupportedModel
from saddlepoint.data import PartOfData, from_arrays, load
from saddlepoint.training import (
    AWP,
    Adversarial,
    Epoch,
    Free,
    MaxOfSets,
    Measure,
    Standard,
    Trainer,
    epochs,
    fresh,
    train,
)
from saddlepoint.training.fits import check_kinds
from saddlepoint.training.measure import batches


def _holding(objective, **values):
    """An objective whose sets are what the type checks of these tests would not let in."""
    made = copy.copy(objective)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


BALL = sp.Linf("0.1")
GIVEN_A_NUMBER = _holding(Adversarial(BALL), set=0.1)
GIVEN_ONE_SET = _holding(MaxOfSets((BALL,)), sets=BALL)


@pytest.fixture(scope="module")
def digits():
    return load("digits:test")


def _net(dropout: float = 0.0) -> nn.Sequential:
    layers = nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(dropout), nn.Linear(24, 10)
    return nn.Sequential(*layers)


def _same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


def test_equal_seeds_give_equal_weights_whatever_the_global_generator_says(digits) -> None:
    start = fresh(_net(0.5), seed=3)
    runs = []
    for outside in (1, 2):
        torch.manual_seed(outside)
        runs.append(train(start, digits, trainer=Trainer(epochs=2, seed=7)))
    assert _same(runs[0].net, runs[1].net)
    assert runs[0].epochs == runs[1].epochs
    assert not _same(runs[0].net, train(start, digits, trainer=Trainer(epochs=2, seed=8)).net)


def test_the_global_generator_is_left_where_it_was(digits) -> None:
    net = _net(0.5)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(fresh(net), digits, trainer=Trainer(epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_the_loss_falls_and_the_held_out_accuracy_rises(digits) -> None:
    held_out = Measure(load("digits:train"))
    curve = train(fresh(_net()), digits, trainer=Trainer(epochs=12, batch=16, rate=5e-3), measure=held_out).epochs
    losses = [event.loss for event in curve]
    assert losses[-1] < 0.2 * losses[0]
    assert curve[-1].clean is not None
    assert curve[-1].clean > 0.85  # chance is 0.1; a linear model reaches about 0.95
    assert curve[-1].robust is None
    assert [event.epoch for event in curve] == list(range(1, 13))


def test_the_callers_network_is_not_touched(digits) -> None:
    net = fresh(_net()).eval()
    before = copy.deepcopy(net)
    trained = train(net, digits, trainer=Trainer(epochs=1))
    assert _same(net, before)
    assert all(weight.grad is None for weight in net.parameters())
    assert not _same(trained.net, before)


def test_between_epochs_the_network_is_whole(digits) -> None:
    net = fresh(_net())
    net[2].eval()  # one layer apart from the others: each flag must come back, not one for all
    flags = [module.training for module in net.modules()]
    for event in epochs(net, digits, Standard(), Trainer(epochs=3), Measure(digits)):
        assert [module.training for module in net.modules()] == flags
        assert all(weight.grad is None for weight in net.parameters())
        if event.epoch == 2:
            break  # leaving early is allowed
    assert event.epoch == 2


def test_frozen_weights_stay(digits) -> None:
    net = fresh(_net())
    net[1].requires_grad_(False)
    before = copy.deepcopy(net)
    trained = train(net, digits, trainer=Trainer(epochs=1)).net
    assert _same(trained[1], before[1])
    assert not _same(trained[5], before[5])


@given(step=st.integers(0, 600), halves=st.integers(0, 100), per_epoch=st.integers(1, 12))
def test_warm_up_grows_to_the_whole_set_and_stays_there(step: int, halves: int, per_epoch: int) -> None:
    trainer = Trainer(epochs=50, warm_up=halves / 2)
    here, after = trainer.fraction(step, per_epoch), trainer.fraction(step + 1, per_epoch)
    assert 0 < here <= after <= 1
    assert (here == 1) == (step >= round(halves * per_epoch / 2))


def test_the_objective_sees_the_warm_up_step_by_step(digits) -> None:
    seen: list[Fraction] = []

    @dataclass(frozen=True)
    class Watching(Standard):
        def at(self, fraction: Fraction) -> Standard:
            seen.append(fraction)
            return self

    data = from_arrays(np.zeros((40, 2, 2), np.float32), np.arange(40) % 2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    train(net, data, Watching(), Trainer(epochs=3, warm_up=2, batch=20))
    assert seen == [Fraction(1, 5), Fraction(2, 5), Fraction(3, 5), Fraction(4, 5), 1, 1]


@given(n=st.integers(1, 200), size=st.integers(1, 64))
def test_batches_cover_the_data_in_nearly_equal_parts(n: int, size: int) -> None:
    data = from_arrays(np.zeros((200, 2), np.float32), np.arange(200) % 2)
    parts = [batch.ids for batch in batches(data, torch.arange(n), size)]
    assert [i for part in parts for i in part] == [str(i) for i in range(n)]
    lengths = [len(part) for part in parts]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1


def test_fresh_weights_are_a_function_of_the_seed() -> None:
    net = _net()
    assert _same(fresh(net, 1), fresh(net, 1))
    assert not _same(fresh(net, 1), fresh(net, 2))


def test_fresh_refuses_weights_that_it_cannot_draw() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

    with pytest.raises(UnsupportedModel, match=r"1 .Scale.*reset_parameters"):
        fresh(nn.Sequential(nn.Linear(2, 2), Scale()))


def test_nothing_to_train_is_an_error(digits) -> None:
    with pytest.raises(UnsupportedModel, match="no trainable weights"):
        train(_net().requires_grad_(False), digits)
    empty = replace(digits, labels=digits.labels[:0], ids=[])
    with pytest.raises(DataError, match="no samples"):
        train(_net(), empty)


def test_a_loss_that_leaves_the_numbers_stops_the_training(digits) -> None:
    net = fresh(_net())
    with torch.no_grad():
        net[5].weight.fill_(torch.inf)
    with pytest.raises(NonFinite, match=r"epoch 1.*rate"):
        train(net, digits)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch": 0}, {"rate": float("nan")}, {"rate": 0.0}])
def test_settings_that_train_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Trainer(**wrong)


def test_an_event_says_what_the_ledger_expects() -> None:
    event = Epoch(3, 0.5, n=8, clean_k=6, robust_k=2).event("std")
    assert event == {
        "kind": "epoch",
        "run": "std",
        "epoch": 3,
        "loss": 0.5,
        "n": 8,
        "clean": 0.75,
        "robust": 0.25,
        "single": None,
    }
    assert Epoch(1, 0.5).event("std")["clean"] is None


def test_what_does_not_fit_together_is_said_before_the_first_step(digits) -> None:
    few = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    with pytest.raises(InputError, match="10 classes"):
        train(few, digits)
    with pytest.raises(InputError, match="float64"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double(), digits)
    with pytest.raises(InputError, match="does not take"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(65, 10)), digits)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(InputError, match="replay"):
        train(net, digits, Free(sp.Linf("0.1")), Trainer(accumulate=2))
    with pytest.raises(InputError, match="warm-up"):
        Trainer(epochs=2, warm_up=3)
    with pytest.raises(InputError, match="not scores"):
        train(_Told(net), digits)
    with pytest.raises(InputError, match="Held-out samples"):
        train(net, digits, measure=Measure(from_arrays(np.zeros((4, 1, 4, 4)), np.arange(4))))
    with pytest.raises(NotAvailable, match="warm-up"):
        train(net, digits, Adversarial(sp.Patch(2, 2, box=sp.Box(0.0, 1.0)), 1), Trainer(epochs=2, warm_up=1))


class _Told(nn.Module):
    """A network that gives its scores by name."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.net(x)}


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"net": "resnet"}, "no network"),
        ({"data": ([[0.0]], [0])}, "no data"),
        ({"objective": "pgd"}, "'pgd' is no objective"),
        ({"objective": Adversarial}, "Adversarial is no objective"),
        ({"objective": sp.Linf("0.1")}, "no objective"),
        ({"trainer": {"epochs": 3}}, "no settings"),
        ({"objective": GIVEN_A_NUMBER}, "0.1 as its set"),
        ({"objective": GIVEN_ONE_SET}, "as its sets"),
        ({"objective": AWP(GIVEN_A_NUMBER)}, "0.1 as its set"),
    ],
)
def test_arguments_of_another_kind_are_named(change, answer, digits) -> None:
    given = {"net": _net(), "data": digits, "objective": Standard(), "trainer": Trainer()}
    check_kinds(**given)
    with pytest.raises(InputError, match=answer):
        check_kinds(**{**given, **change})


@pytest.mark.parametrize(("n", "batch", "accumulate"), [(3, 2, 1), (64, 1, 1), (64, 4, 4), (7, 4, 2)])
def test_single_rows_under_batch_norm_are_refused(n, batch, accumulate, digits) -> None:
    few, settings = PartOfData(digits, np.arange(n)), Trainer(epochs=1, batch=batch, accumulate=accumulate)
    net = fresh(_net(), 0)
    before = copy.deepcopy(net)
    with pytest.raises(InputError, match="one row"):
        train(net, few, trainer=settings)
    assert _same(net, before)
    # images keep many values a channel, and networks without batch norm do not mind
    images = fresh(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10)), 0)
    plain = fresh(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 0)
    for fine in (images, plain):
        assert len(train(fine, few, trainer=settings).epochs) == 1


def test_averages_of_batch_norm_take_any_number_of_samples(digits) -> None:
    net = fresh(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)), 0)
    odd = PartOfData(digits, np.arange(257))
    assert len(train(net, odd, trainer=Trainer(epochs=1, averaging="ema"), guards=None).epochs) == 1
