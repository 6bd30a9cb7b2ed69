"""FGSM, BIM, MI-FGSM and Frank–Wolfe: plain loops, closed forms, and trap 44."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from attack_models import UNIT, affine, convnet, images, wrap
from torch import Tensor

from saddlepoint.attack import BIM, FGSM, MIFGSM, Answers, Attack, EngineSettings, FrankWolfe, Rows, run
from saddlepoint.attack.fixed.mi_fgsm import normalised
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import L0, L1, L2, Linf, PerturbationSet

KEEP = EngineSettings(drop=False, hasten=False)
SETS: dict[str, PerturbationSet] = {"linf": Linf("1/5"), "l2": L2("7/10"), "l1": L1("9/5"), "l0": L0(3)}
EPS = 0.05


def points_of(attack: Attack[Any], rows: Rows) -> list[Tensor]:
    """All points asked, x0 first."""
    net, asked = convnet(), []

    def watched(x: Tensor) -> Tensor:
        asked.append(x.detach().clone())
        return net(x)

    run(wrap(watched, 5), attack, rows, KEEP)
    return asked[1:]


def slope(x: Tensor, y: Tensor) -> Tensor:
    """Gradient of the summed cross-entropy."""
    point = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(convnet()(point), y, reduction="sum"), point)
    return g


@pytest.mark.parametrize("attack", [FGSM(), FrankWolfe(steps=1), FrankWolfe(steps=3, step_rule="gap")], ids=repr)
@pytest.mark.parametrize("threat", SETS.values(), ids=SETS.keys())
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_linear_step_solves_affine_models(attack: Attack[Any], threat: PerturbationSet, seed: int) -> None:
    """Two classes, the box active: the vertex is the optimum in every norm."""
    case = affine(seed, 2)
    found = run(case.model, attack, case.rows(threat), KEEP)
    assert torch.allclose(found.best_margin, case.worst(threat.within(case.model.domain)), rtol=1e-9)


def test_fgsm_and_bim_are_their_formulas() -> None:
    rows = images(convnet(), 8, Linf("0.05"))
    lower, upper = (rows.x0 - EPS).clamp(0, 1), (rows.x0 + EPS).clamp(0, 1)
    first, second = points_of(FGSM(), rows)
    assert torch.equal(first, rows.x0)
    want = torch.clamp(rows.x0 + EPS * slope(rows.x0, rows.y).sign(), lower, upper)
    assert torch.allclose(second, want, atol=1e-6)
    x = rows.x0
    for point in points_of(BIM(steps=6), rows):
        assert torch.allclose(point, x, atol=1e-5)
        x = torch.clamp(point + 0.2 * EPS * slope(point, rows.y).sign(), lower, upper)


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_momentum_is_its_formula(decay: float) -> None:
    rows = images(convnet(), 8, Linf("0.05"))
    lower, upper = (rows.x0 - EPS).clamp(0, 1), (rows.x0 + EPS).clamp(0, 1)
    points = points_of(MIFGSM(steps=5, decay=decay), rows)
    assert len(points) == 6
    momentum = torch.zeros_like(rows.x0)
    for before, after in pairwise(points):
        g = slope(before, rows.y)
        momentum = decay * momentum + g / g.abs().sum((1, 2, 3), keepdim=True)
        certain = momentum.abs() > 1e-5  # a sum of gradients that cancels has the sign of its rounding
        want = torch.clamp(before + EPS / 5 * momentum.sign(), lower, upper)
        assert torch.allclose(after[certain], want[certain], atol=1e-6)
        assert float(certain.float().mean()) > 0.9


def test_trap_44_gradients_are_normalised_per_sample() -> None:
    """A row's step may not depend on the size of another row's gradient, nor vanish with its own."""
    g = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    scaled = g * torch.tensor([1.0, 1e6, 1e-38])[:, None, None]
    assert torch.allclose(normalised(scaled)[:2], normalised(g)[:2], rtol=1e-5)
    assert torch.allclose(normalised(scaled).abs().sum((1, 2)), torch.ones(3), rtol=1e-3)
    assert torch.equal(normalised(torch.zeros(1, 4)), torch.zeros(1, 4))
    rows = images(convnet(), 6, Linf("0.05"))
    attack = MIFGSM(steps=3)
    loud = torch.tensor([1.0, 1e4, 1.0, 1e-4, 1.0, 1e8])[:, None, None, None]
    paths = []
    for factor in (torch.ones_like(loud), loud):
        generator = torch.Generator().manual_seed(1)
        state, ask = attack.init(replace(rows, set=rows.set.within(UNIT)))
        for _ in range(3):
            grad = torch.randn(rows.x0.shape, generator=generator) * factor
            state, ask = attack.step(state, Answers(rows.y, slopes=grad))
        assert ask is not None
        paths.append(ask.points)
    assert torch.allclose(*paths, atol=1e-6)


def bowl(x: Tensor) -> Tensor:
    """Margin ‖x − c‖² − 1 with c = (0.7, …): one strictly concave loss, its maximum inside the set."""
    return torch.stack([(x - 0.7).square().sum(1) - 1, torch.zeros(len(x), dtype=x.dtype)], 1)


def test_the_gap_rule_reaches_an_optimum_between_the_vertices() -> None:
    """Where the maximum is inside, full steps never settle; gaps shrink them. Every kept value keeps its promise."""
    x = torch.full((2, 6), 0.5, dtype=torch.float64)
    x[1] = 0.6
    rows = Rows(x, torch.zeros(2, dtype=torch.int64), ("a", "b"), Linf("3/10"))
    model = wrap(lambda v: bowl(v) + 3 * torch.tensor([1.0, 0.0], dtype=v.dtype), 2, (6,))  # never falls
    found = run(model, FrankWolfe(steps=60, step_rule="gap"), rows, KEEP)
    assert float((found.best_margin - 2).max()) < 1e-2  # m* = −1 + 3
    plain = run(model, FrankWolfe(steps=60), rows, KEEP)
    assert float((plain.best_margin - 2).max()) < 5e-2


def test_a_broken_promise_is_taken_back_and_the_next_step_is_shorter() -> None:
    x = torch.full((2, 4), 0.5, dtype=torch.float64)
    threat = Linf("1/10").within(UNIT)
    rows = Rows(x, torch.zeros(2, dtype=torch.int64), ("a", "b"), threat)
    attack, ones = FrankWolfe(steps=10, step_rule="gap"), torch.ones(2, 4, dtype=torch.float64)
    state, ask = attack.init(rows)

    def told(values: list[float]) -> Answers:
        return Answers(rows.y, values=torch.tensor(values, dtype=torch.float64), slopes=ones)

    state, ask = attack.step(state, told([0.0, 0.0]))
    assert ask is not None
    assert torch.allclose(ask.points, x + 0.1)  # the whole way
    state, ask = attack.step(state, told([0.4, -5.0]))  # promised 0.2 by its model: kept, and broken
    assert ask is not None
    assert torch.allclose(state.x, torch.stack([x[0] + 0.1, x[1]]))
    assert torch.allclose(ask.points[1], x[1] + 0.05)  # M doubled: half the way
    assert state.curvature.tolist() == pytest.approx([0.9 * 10, 2 * 10])


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in (
        lambda: FGSM(loss="nll"),
        lambda: MIFGSM(steps=0),
        lambda: MIFGSM(decay=-1.0),
        lambda: FrankWolfe(steps=0),
        lambda: FrankWolfe(step_rule="long"),
    ):
        with pytest.raises(InputError):
            wrong()
