"""Single-step and replayed objectives: closed forms on linear networks, what the set allows, what the loop does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import saddlepoint as sp
from saddlepoint.core.errors import InputError
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data import from_arrays, load
from saddlepoint.training import NFGSM, Adversarial, FastAdversarial, Free, Standard, Trainer, fresh, train
from saddlepoint.training.catalogue import CATALOGUE, entry, objective
from saddlepoint.training.certified.crown_ibp import CrownIBP
from saddlepoint.training.certified.mtl_ibp import MTLIBP
from saddlepoint.training.certified.sabr import SABR
from saddlepoint.training.macer import MACER

UNIT = sp.Box(0, 1)
BALL = sp.Linf("0.1", box=sp.Box(-100, 100))


def _linear(seed: int = 0) -> nn.Sequential:
    return fresh(nn.Sequential(nn.Linear(6, 2)), seed).double()


def _batch(n: int = 12) -> tuple[torch.Tensor, torch.Tensor, Draws]:
    draws = Draws(row_keys(1, [str(i) for i in range(n)], "test"))
    return draws.uniform((6,), dtype=torch.float64), torch.arange(n) % 2, draws


def _corner(net: nn.Sequential, x: torch.Tensor, y: torch.Tensor, size: float) -> torch.Tensor:
    """The maximiser over an ℓ∞ ball, of a linear network with two classes."""
    weight = net[0].weight.detach()
    return x + size * (weight[1 - y] - weight[y]).sign()


def test_fgsm_from_x_with_a_whole_step_is_exact_on_a_linear_network() -> None:
    net, (x, y, draws) = _linear(), _batch()
    points = FastAdversarial(BALL, alpha=1.0, random=False).points(net, x, y, draws)
    assert torch.allclose(points, _corner(net, x, y, 0.1), atol=1e-12)


def test_fgsm_from_a_random_start_stays_in_the_set_and_moves_by_alpha() -> None:
    net, (x, y, draws) = _linear(), _batch()
    points = FastAdversarial(BALL, alpha=0.5).points(net, x, y, draws)
    start = BALL.sample(x, draws)
    step = 0.05 * (_corner(net, x, y, 0.1) - x).sign()
    expected = torch.clamp(start + step, x - 0.1, x + 0.1)
    moved = (points != x).any(1)  # rows where the step did not raise the loss above that at x stay at x
    assert moved.any()
    assert torch.allclose(points[moved], expected[moved], atol=1e-12)
    z = net(points)
    assert bool(
        (
            functional.cross_entropy(z, y, reduction="none") >= functional.cross_entropy(net(x), y, reduction="none")
        ).all()
    )


def test_n_fgsm_adds_one_step_to_wide_noise_and_projects_nothing() -> None:
    net, (x, y, draws) = _linear(), _batch()
    points = NFGSM(BALL).points(net, x, y, draws)
    noise = points - _corner(net, x, y, 0.1)  # on a linear network the sign is the same everywhere
    assert float(noise.abs().max()) <= 0.2 + 1e-12
    assert float(noise.abs().max()) > 0.15
    assert float((points - x).abs().max()) > 0.1  # outside the set, as the paper has it


def test_n_fgsm_stays_in_the_box() -> None:
    net, (x, y, draws) = _linear(), _batch()
    points = NFGSM(sp.Linf("0.5", box=UNIT)).points(net, x.clamp(0, 1), y, draws)
    assert bool(((points >= 0) & (points <= 1)).all())


def test_free_with_one_replay_is_a_step_behind() -> None:
    """The first batch is shown at x; its ascent direction is what the second batch starts with."""
    net, (x, y, _) = _linear(), _batch(4)
    moved = []

    class Watched(Free):
        def begin(self, x, carried):
            moved.append(carried.clone())
            return super().begin(x, carried)

    data = from_arrays(np.tile(x.numpy(), (2, 1)).astype(np.float32), np.tile(y.numpy(), 2))
    train(net.float(), data, Watched(BALL, replays=1), Trainer(epochs=1, batch=4))
    assert len(moved) == 2
    assert not moved[0].any()
    assert torch.allclose(moved[1].abs(), torch.full_like(moved[1], 0.1), atol=1e-6)


def test_free_steps_the_weights_once_a_replay() -> None:
    data = load("digits:test")
    start = fresh(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 0)
    setting = Trainer(epochs=1, batch=len(data), optimiser="sgd", momentum=0.0, rate=0.1, schedule="constant")
    once, thrice = (train(start, data, Free(sp.Linf(0, box=UNIT), m), setting).net for m in (1, 3))
    plain = train(start, data, Standard(), setting).net
    again = train(
        start,
        data,
        Standard(),
        Trainer(epochs=3, batch=len(data), optimiser="sgd", momentum=0.0, rate=0.1, schedule="constant"),
    ).net
    assert torch.allclose(once[1].weight, plain[1].weight, atol=1e-6)  # with an empty set it is standard training
    assert torch.allclose(thrice[1].weight, again[1].weight, atol=1e-5)


def test_single_step_objectives_refuse_what_they_cannot_do() -> None:
    with pytest.raises(InputError, match="one step"):
        NFGSM(BALL, steps=3)
    for kind in (NFGSM, Free):
        with pytest.raises(InputError, match="parameters"):
            kind(sp.RotationTranslation(30, 3))


def test_the_catalogue_builds_every_objective() -> None:
    for name, there in CATALOGUE.items():
        sets = [] if there.sets == "none" else [sp.L2("0.5", box=UNIT) if name in ("smoothadv", "lipschitz") else BALL]
        built = objective(name, sets)
        for option, default in there.options.items():  # every option's default can be written down and read back
            text = str(default).lower() if isinstance(default, bool) else str(default)
            assert objective(f"{name}:{option}={text}", sets) == built


@pytest.mark.parametrize(
    ("text", "sets", "message"),
    [
        ("pdg", [BALL], "no objective 'pdg'"),
        ("pgd:step=3", [BALL], "no option"),
        ("pgd:steps=2.5", [BALL], "no whole number"),
        ("pgd", [], "none was given"),
        ("pgd", [BALL, BALL], "takes one set"),
        ("fgsm:random=perhaps", [BALL], "true or false"),
        ("pgd:steps=0", [BALL], "steps"),
    ],
)
def test_wrong_texts_are_refused(text: str, sets: list[sp.Linf], message: str) -> None:
    with pytest.raises(InputError, match=message):
        objective(text, sets)


def test_options_are_typed_and_reach_the_objective() -> None:
    assert objective("pgd:steps=3,inner=train", [BALL]) == Adversarial(BALL, 3, "train")
    assert entry("fgsm:alpha=1").sets == "one"


@pytest.mark.parametrize("precision", ["auto", "full", "outer", "all"])
def test_every_weight_learns_in_every_precision(precision: str) -> None:
    """Autocast remembers casts made while a search records no gradient: reused in the loss, weights would not learn."""
    data, start = (
        load("digits:test"),
        fresh(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)), 0),
    )
    ball = sp.Linf("0.05", box=UNIT)
    for aim in (Adversarial(ball, 2), Standard(), MACER(samples=2), SABR(ball), MTLIBP(ball), CrownIBP(ball)):
        trained = train(start, data, aim, Trainer(epochs=1, batch=128, precision=precision)).net
        for (name, before), after in zip(start.named_parameters(), trained.parameters(), strict=True):
            assert not torch.equal(before, after), name
