"""Each guard fires on the failure it is there for, and keeps quiet otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

import saddlepoint as sp
from saddlepoint.core.errors import InputError
from saddlepoint.data import load
from saddlepoint.training import (
    Adversarial,
    Epoch,
    FastAdversarial,
    Guards,
    Measure,
    Standard,
    Trainer,
    epochs,
    fresh,
    train,
)
from saddlepoint.training.loop import validation
from saddlepoint.training.measure import Counts
from saddlepoint.training.multi_set import MaxOfSets
from saddlepoint.training.stability import ReluStability
from saddlepoint.training.weight_perturbation import AWP

BALL = sp.Linf("0.1", box=sp.Box(0.0, 1.0))


class Scripted(Measure):
    """A measure that tells what a script says, epoch by epoch, and keeps the weights that it saw."""

    def __init__(self, data, rows: list[tuple[int, int, float]]) -> None:
        super().__init__(data, BALL)
        object.__setattr__(self, "rows", iter(rows))
        object.__setattr__(self, "seen", [])

    rows: Iterator[tuple[int, int, float]]
    seen: list[dict[str, torch.Tensor]]

    def __call__(self, net: nn.Module) -> Counts:
        self.seen.append({k: v.clone() for k, v in net.state_dict().items()})
        robust, single, predicted = next(self.rows)
        return Counts(100, 90, robust, single, predicted, 9.9)


@pytest.fixture(scope="module")
def digits():
    return load("digits:test")


def _net() -> nn.Module:
    return fresh(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 0)


def _run(digits, rows, objective=None, guards: Guards | None = None, epochs_: int = 4):
    measure, net = Scripted(digits, rows), _net()
    objective = objective or Adversarial(BALL, steps=1)
    events = list(epochs(net, digits, objective, Trainer(epochs=epochs_), measure, guards or Guards()))
    notes = [event for event in events if not isinstance(event, Epoch)]
    kept = next((i for i, state in enumerate(measure.seen) if _same(state, net.state_dict())), None)
    return len(measure.seen), kept, [(note.epoch, note.guard) for note in notes]


def _same(a, b) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_catastrophic_overfitting_stops_and_goes_back_to_the_last_good_epoch(digits) -> None:
    ran, kept, notes = _run(digits, [(50, 55, 9.0), (60, 66, 9.0), (5, 95, 9.0), (70, 71, 9.0)])
    assert (ran, kept) == (3, 1)
    assert notes == [(3, "catastrophic overfitting"), (3, "stopped")]


def test_without_a_good_epoch_behind_there_is_nothing_to_go_back_to(digits) -> None:
    ran, kept, notes = _run(digits, [(5, 95, 9.0), (60, 66, 9.0)], epochs_=2)
    assert (ran, kept) == (2, 1)
    assert notes == [(1, "catastrophic overfitting")]


def test_standard_training_does_not_overfit_to_a_search_it_never_meets(digits) -> None:
    ran, _, notes = _run(digits, [(5, 95, 9.0)] * 2, Standard(), epochs_=2)
    assert ran == 2
    assert notes == []


def test_a_collapse_is_said_at_once_and_stops_after_patience(digits) -> None:
    rows = [(50, 50, 9.0), *[(10, 10, 1.0)] * 3, (60, 60, 9.0)]
    ran, kept, notes = _run(digits, rows, epochs_=5)
    assert (ran, kept) == (4, 0)
    assert notes == [(2, "collapse"), (3, "collapse"), (4, "collapse"), (4, "stopped")]


def test_the_epoch_that_is_best_on_validation_is_kept_and_the_last_one_without_the_guard(digits) -> None:
    rows = [(50, 50, 9.0), (70, 70, 9.0), (60, 60, 9.0)]
    ran, kept, notes = _run(digits, rows, epochs_=3)
    assert (ran, kept, notes) == (3, 1, [(3, "overfitting")])
    assert _run(digits, rows, guards=Guards(keep_best=False), epochs_=3)[1:] == (2, [])


def test_among_epochs_that_differ_by_chance_the_last_one_is_kept(digits) -> None:
    """70 of 100 has a standard error of 4.6; what counts as near is near the best, not near the one before."""
    assert _run(digits, [(50, 50, 9.0), (70, 70, 9.0), (66, 66, 9.0)], epochs_=3) == (3, 2, [])
    ran, kept, notes = _run(digits, [(70, 70, 9.0), (66, 66, 9.0), (62, 62, 9.0)], epochs_=3)
    assert (ran, kept, notes) == (3, 1, [(3, "overfitting")])


def test_a_set_that_is_too_large_too_soon_collapses_a_small_network_and_the_guard_says_so(digits) -> None:
    # entropy of the predictions, measured on a real run: a linear model against ℓ∞ 1 has nothing to hold on to
    measure = Measure(digits, sp.Linf("1", box=sp.Box(0.0, 1.0)), steps=3)
    objective = Adversarial(measure.set, steps=3)
    events = list(epochs(_net(), digits, objective, Trainer(epochs=3, rate=0.02, batch=32), measure))
    assert any(getattr(event, "guard", "") == "collapse" for event in events)


def test_label_leaking_the_inner_maximum_holds_the_sample_itself(digits) -> None:
    # a network whose every step of ascent goes down: its input gradient is that of another function
    class Leaking(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1.0

        @staticmethod
        def backward(ctx, g):
            return -g

    net = _net()
    batch = digits.take(range(32))
    from saddlepoint.core.rng import Draws, row_keys
    from saddlepoint.training import worst_points
    from saddlepoint.training.adversarial import cross_entropy

    draws = Draws(row_keys(0, batch.ids, "t"))
    for search in (Adversarial(BALL).search(), FastAdversarial(BALL).search()):
        found = worst_points(lambda x: net(Leaking.apply(x)), replace(search, low=False), batch.x, batch.y, draws)
        assert bool((cross_entropy(net(found), batch.y) >= cross_entropy(net(batch.x), batch.y)).all())


def test_training_holds_out_its_own_validation_part(digits) -> None:
    curve = train(_net(), digits, Adversarial(BALL, steps=1), Trainer(epochs=1)).epochs
    assert curve[0].n == round(0.05 * len(digits))
    assert train(_net(), digits, Adversarial(BALL, steps=1), Trainer(epochs=1), guards=None).epochs[0].n == 0


@pytest.mark.parametrize("wrong", [{"gap": -1.0}, {"classes": 0.5}, {"patience": 0}])
def test_thresholds_that_mean_nothing_are_refused(wrong) -> None:
    with pytest.raises(InputError):
        Guards(**wrong)


def test_a_collapse_of_two_classes_that_are_not_equally_frequent_is_noticed() -> None:
    epoch = Epoch(1, 0.7, 100, 52, 50, 50, predicted=1.0, present=1.997)
    assert Guards().collapsed(epoch) is not None
    rare = replace(epoch, present=1.2)  # one class is nearly all there is: saying it always is no collapse
    assert Guards().collapsed(rare) is None


def test_without_keep_best_a_run_that_was_not_stopped_ends_with_its_last_weights(digits) -> None:
    rows = [(50, 50, 9.0), (60, 60, 9.0), (10, 10, 1.0)]
    assert _run(digits, rows, guards=Guards(keep_best=False), epochs_=3) == (3, 2, [(3, "collapse")])


@pytest.mark.parametrize("wrapped", [False, True])
def test_several_sets_are_all_looked_at(digits, wrapped: bool) -> None:
    sets = BALL, sp.L2("0.5", box=sp.Box(0.0, 1.0))
    several = MaxOfSets(sets, steps=1)
    _, measure = validation(digits, AWP(several) if wrapped else several)
    assert measure.set == sets
    net = _net()
    together = measure(net)
    alone = [replace(measure, set=ball)(net) for ball in sets]
    assert together.robust_k <= min(counts.robust_k for counts in alone)
    assert validation(digits, ReluStability(BALL))[1].set == BALL
