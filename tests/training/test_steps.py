"""What a step is: schedules, optimisers, averages, accumulation, clipping, precision, several processes."""

from __future__ import annotations

import copy
import math
import threading

import pytest
import torch
from torch import nn

import saddlepoint as sp
from saddlepoint.adapters.architectures import build
from saddlepoint.core.errors import InputError, MissingExtra
from saddlepoint.data import from_arrays, load, split
from saddlepoint.training import (
    Adversarial,
    Epoch,
    FastAdversarial,
    Free,
    Measure,
    Note,
    Standard,
    Trainer,
    epochs,
    fresh,
    train,
)
from saddlepoint.training import running as running_module
from saddlepoint.training.one_channel import OneChannel
from saddlepoint.training.precision import search_precision
from saddlepoint.training.several import Accelerated

BALL = sp.Linf("0.1", box=sp.Box(0.0, 1.0))


@pytest.fixture(scope="module")
def digits():
    return load("digits:test")


def _net(*middle: nn.Module) -> nn.Module:
    return fresh(nn.Sequential(nn.Flatten(), nn.Linear(64, 12), *middle, nn.ReLU(), nn.Linear(12, 10)), 0)


def _weights(net: nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in net.parameters()])


def test_rates_at_the_points_that_the_schedules_are_named_for() -> None:
    rates = {kind: Trainer(rate=1.0, schedule=kind).rate_at for kind in ("cosine", "cyclic", "step", "constant")}
    assert [rates["cosine"](p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1, 0.5, 0])
    assert [rates["cyclic"](p) for p in (0.0, 0.2, 0.4, 0.7, 1.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert [rates["step"](p) for p in (0.49, 0.5, 0.74, 0.75)] == pytest.approx([1, 0.1, 0.1, 0.01])
    assert rates["constant"](0.9) == 1


def test_a_step_of_plain_sgd_is_the_gradient_times_the_rate(digits) -> None:
    net = _net()
    batch = digits.take(range(len(digits)))
    loss = nn.functional.cross_entropy(net(batch.x), batch.y)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])
    trainer = Trainer(epochs=1, batch=len(digits), rate=0.1, optimiser="sgd", momentum=0.0, schedule="constant")
    moved = train(net, digits, trainer=trainer, guards=None).net
    assert torch.allclose(_weights(net) - 0.1 * gradient, _weights(moved), atol=1e-6)
    clipped = Trainer(
        epochs=1, batch=len(digits), rate=0.1, optimiser="sgd", momentum=0.0, schedule="constant", clip=1e-3
    )
    moved = train(net, digits, trainer=clipped, guards=None).net
    assert float((_weights(moved) - _weights(net)).norm()) == pytest.approx(0.1 * 1e-3, rel=1e-2)


def test_accumulated_parts_make_the_step_of_the_whole_batch(digits) -> None:
    settings = {"epochs": 1, "batch": 90, "optimiser": "sgd", "rate": 0.1}
    nets = [train(_net(), digits, Adversarial(BALL, 2), Trainer(**settings, accumulate=k)).net for k in (1, 4)]
    assert torch.allclose(_weights(nets[0]), _weights(nets[1]), atol=1e-4)
    assert not torch.equal(_weights(nets[0]), _weights(_net()))


def test_ema_and_swa_are_the_means_they_are_named_for(digits) -> None:
    seen: list[torch.Tensor] = []
    net = _net()
    for _ in epochs(net, digits, Standard(), Trainer(epochs=4, batch=len(digits))):
        seen.append(_weights(net).clone())  # a batch is the whole epoch: one step each
    swa = train(
        _net(), digits, trainer=Trainer(epochs=4, batch=len(digits), averaging="swa", average_from=0.5), guards=None
    )
    assert torch.allclose(_weights(swa.net), (seen[2] + seen[3]) / 2, atol=1e-6)
    ema = train(_net(), digits, trainer=Trainer(epochs=4, batch=len(digits), averaging="ema", decay=0.15), guards=None)
    mean = _weights(_net())
    for step, weights in enumerate(seen):
        keep = min(0.15, (1 + step) / (10 + step))
        mean = keep * mean + (1 - keep) * weights
    assert torch.allclose(_weights(ema.net), mean, atol=1e-6)


def test_batch_norm_of_an_average_is_gathered_anew(digits) -> None:
    trained = train(
        _net(nn.BatchNorm1d(12)), digits, trainer=Trainer(epochs=2, averaging="swa", average_from=0.0), guards=None
    )
    x = digits.take(range(len(digits))).x
    with torch.no_grad():
        before = trained.net[1](x.flatten(1))
    # statistics are means over the two nearly equal batches that the inputs are read in
    parts = before.tensor_split(2)
    expected = torch.stack([part.mean(0) for part in parts]).mean(0)
    assert torch.allclose(trained.net[2].running_mean, expected, atol=1e-4)


@pytest.mark.parametrize(("precision", "low"), [("auto", True), ("full", False), ("outer", False), ("all", True)])
def test_searches_use_bfloat16_where_the_precision_allows_it(precision: str, low: bool, digits, monkeypatch) -> None:
    monkeypatch.setattr("saddlepoint.training.precision._processor_has_bfloat16", lambda: True)
    seen = []

    class Watched(Adversarial):
        def points(self, net, x, y, draws):
            with search_precision(x):
                seen.append(torch.is_autocast_enabled("cpu"))
            return super().points(net, x, y, draws)

    train(_net(), digits, Watched(BALL, 1), Trainer(epochs=1, precision=precision), guards=None)
    assert set(seen) == {low}


@pytest.mark.parametrize("precision", ["outer", "all"])
def test_bfloat16_leaves_weights_in_their_type_and_ends_near_full_precision(precision: str, digits) -> None:
    full = train(_net(), digits, Adversarial(BALL, 2), Trainer(epochs=2), guards=None)
    low = train(_net(), digits, Adversarial(BALL, 2), Trainer(epochs=2, precision=precision), guards=None)
    assert _weights(low.net).dtype == torch.float32
    assert not torch.equal(_weights(low.net), _weights(full.net))
    assert low.epochs[-1].loss == pytest.approx(full.epochs[-1].loss, rel=0.05)


@pytest.mark.parametrize(("kernel", "padding", "side"), [(5, 2, 28), (4, 1, 28), (3, 1, 8), (2, 0, 6), (3, 0, 7)])
def test_the_rewritten_convolution_has_the_values_and_the_gradient_of_the_plain_one(kernel, padding, side) -> None:
    conv = fresh(nn.Conv2d(1, 6, kernel, 2, padding), 1).double()
    x = torch.linspace(-1, 1, 3 * side * side, dtype=torch.float64).reshape(3, 1, side, side).sin().requires_grad_()
    with OneChannel():
        rewritten = conv(x)
    plain = conv(x)
    assert torch.allclose(rewritten, plain, atol=1e-12)
    gradients = [torch.autograd.grad((out**2).sum(), x)[0] for out in (rewritten, plain)]
    assert torch.allclose(*gradients, atol=1e-12)


def test_fgsm_without_a_random_start_overfits_catastrophically_and_is_rolled_back() -> None:
    # a real one: the large step from x itself, on small images with a large set
    data, measured = split(load("digits:train"), 300)
    net = fresh(build("cnn-s", (1, 8, 8), 10), 0)
    ball = sp.Linf("0.25", box=sp.Box(0.0, 1.0))
    objective = FastAdversarial(ball, alpha=1.0, random=False)
    trainer = Trainer(epochs=30, rate=5e-3, warm_up=4, batch=32, schedule="constant")
    events = list(epochs(net, data, objective, trainer, Measure(measured, ball, steps=20)))
    noticed, stopped = [event for event in events if isinstance(event, Note)]
    assert (noticed.guard, stopped.guard) == ("catastrophic overfitting", "stopped")
    curve = [event for event in events if isinstance(event, Epoch)]
    counts = {e.epoch: e.robust_k for e in curve[trainer.warm_up : -1]}
    best = max(counts.values())
    as_good = [number for number, k in counts.items() if k >= best - math.sqrt(best * (1 - best / 300))]
    assert stopped.text == f"back to the weights of epoch {as_good[-1]}"
    assert Measure(measured, ball, steps=20)(net).robust_k == counts[as_good[-1]]
    assert curve[-1].single - curve[-1].robust > 0.3


class Together:
    """Two processes as two threads: what `accelerate` does, without it."""

    num_processes = 2

    def __init__(self, rank: int, slots: list, barrier: threading.Barrier) -> None:
        self.process_index, self._slots, self._barrier = rank, slots, barrier

    def reduce(self, value: torch.Tensor, reduction: str) -> torch.Tensor:
        self._slots[self.process_index] = value
        self._barrier.wait(20)
        total = self._slots[0] + self._slots[1]
        self._barrier.wait(20)
        return total if reduction == "sum" else total / 2


def test_two_processes_make_the_steps_of_one(digits, monkeypatch) -> None:
    settings = {"epochs": 1, "batch": 60, "optimiser": "sgd", "rate": 0.1}
    alone = _net()
    list(epochs(alone, digits, Standard(), Trainer(**settings)))
    nets, slots, barrier = [_net(), _net()], [None, None], threading.Barrier(2)
    here = threading.local()
    monkeypatch.setattr(running_module, "Accelerated", lambda: Accelerated(Together(here.rank, slots, barrier)))

    def work(rank: int) -> None:
        here.rank = rank
        list(epochs(nets[rank], digits, Standard(), Trainer(**settings, devices="accelerate")))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(_weights(nets[0]), _weights(nets[1]))
    assert torch.allclose(_weights(nets[0]), _weights(alone), atol=1e-5)


def test_accelerate_is_an_extra_and_says_so(digits) -> None:
    try:
        import accelerate  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(MissingExtra, match=r"saddlepoint\[accelerate\]"):
            train(_net(), digits, trainer=Trainer(devices="accelerate"))


def test_free_runs_on_one_device(digits, monkeypatch) -> None:
    slots, barrier = [None, None], threading.Barrier(2)
    monkeypatch.setattr(running_module, "Accelerated", lambda: Accelerated(Together(0, slots, barrier)))
    with pytest.raises(InputError, match="one device"):
        train(_net(), digits, Free(BALL), Trainer(devices="accelerate"))


def test_large_data_are_read_ahead_in_the_same_order(digits, monkeypatch) -> None:
    small = train(_net(), digits, trainer=Trainer(epochs=2), guards=None)
    monkeypatch.setattr("saddlepoint.training.feed._IN_MEMORY", 0)
    large = train(_net(), digits, trainer=Trainer(epochs=2), guards=None)
    assert torch.equal(_weights(small.net), _weights(large.net))


def test_a_held_out_part_is_apart_and_the_same_in_any_order(digits) -> None:
    rest, part = split(digits, 50, seed=3)
    assert len(rest) + len(part) == len(digits)
    assert not set(rest.ids) & set(part.ids)
    assert set(part.ids) != set(split(digits, 50, seed=4)[1].ids)
    batch = digits.take(range(len(digits)))
    back = from_arrays(batch.x.numpy()[::-1].copy(), batch.y.numpy()[::-1].copy(), ids=list(batch.ids)[::-1])
    assert set(split(back, 50, seed=3)[1].ids) == set(part.ids)
    assert torch.equal(part.take([1, 0]).y, torch.from_numpy(copy.copy(part.labels[[1, 0]])))
