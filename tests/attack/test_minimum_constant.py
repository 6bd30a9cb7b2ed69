"""Attacks with a constant to search: Carlini–Wagner, EAD, box-constrained L-BFGS; and the search itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from attack_models import Affine, affine, convnet, images, wrap
from hypothesis import given, settings
from hypothesis import strategies as st
from minimum_oracles import ratio, smallest
from torch import Tensor

from saddlepoint.attack import EAD, LBFGS, Attack, CarliniWagner, EngineSettings, run
from saddlepoint.attack.minimum.carlini_wagner import hinge
from saddlepoint.attack.minimum.constant import begin, counted, finished
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.geometry import L1, L2, Box, Linf, PerturbationSet
from saddlepoint.spec import Access, Model
from saddlepoint.spec.goal import Targeted

SMALLEST = EngineSettings(smallest=True)
EVERY: dict[str, tuple[Attack[Any], PerturbationSet]] = {
    "cw": (CarliniWagner(steps=40, constants=2, constant=1.0, rate=0.1), L2(1)),
    "ead": (EAD(steps=40, constants=2, constant=1.0, rate=0.05), L1(1)),
    "lbfgs": (LBFGS(steps=10, constants=6), L2(1)),
}


def central(case: Affine) -> Affine:
    """The same classifier around points in the middle of the box, where no side is near."""
    x = 0.4 + case.x / 5
    return replace(case, x=x, y=case.model(x).argmax(1))


# -- closed forms ------------------------------------------------------------------------------------------
@settings(max_examples=3)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 5))
def test_lbfgs_reaches_the_closed_form_with_the_box_active(seed: int, classes: int) -> None:
    """One target per class and a linear loss: each constant is a projection, and the search finds the boundary."""
    assert ratio(LBFGS(count=4, loss="margin", constants=12), affine(seed, classes), L2(1))[0] <= 1.01


@settings(max_examples=2)
@given(seed=st.integers(0, 10_000))
def test_lbfgs_on_cross_entropy_is_exact_for_two_classes(seed: int) -> None:
    assert ratio(LBFGS(constants=12), affine(seed, 2), L2(1))[0] <= 1.01


def test_carlini_wagner_comes_within_three_percent_for_most_samples_away_from_the_box() -> None:
    """Two classes, five models, 30 samples: the tanh slows some of them, so the median is what is claimed.

    Of several classes the hinge follows the rival that leads at the moment, not the nearest one.
    """
    attack = CarliniWagner(steps=100, constants=4, constant=1.0, rate=0.02)
    found = []
    for seed in range(5):
        case = central(affine(seed, 2))
        sizes = run(case.model, attack, case.rows(L2(1)), SMALLEST).size
        found.append(sizes / smallest(case, L2(1)))
    ratios = torch.cat(found)
    assert bool((ratios >= 1 - 1e-9).all())
    assert float(ratios.median()) <= 1.03


def test_ead_finds_smaller_l1_with_more_of_it() -> None:
    """β is what makes it sparse: on one problem, the ℓ1 size falls and the ℓ2 attack's is larger."""
    case = central(affine(2, 2, features=60))
    found = [
        run(case.model, EAD(steps=100, constants=6, constant=0.1, rate=0.02, beta=b), case.rows(L1(1)), SMALLEST).size
        for b in (0.0, 0.01)
    ]
    assert bool((found[1] < 0.9 * found[0]).all())


# -- the search for the constant -----------------------------------------------------------------------------
def test_trap_40_the_constant_grows_until_it_hits_and_is_halved_between_then() -> None:
    """Two rows that need c ≥ 0.05 and c ≥ 3."""
    need = torch.tensor([0.05, 3.0])
    search, tried = begin(torch.zeros(2), 1e-2), []
    over = torch.ones(2, dtype=torch.bool)
    for _ in range(6):
        tried.append(search.c)
        search = finished(replace(search, hit=search.c >= need), over)
    path = torch.stack(tried, 1)
    assert torch.allclose(path[0], torch.tensor([0.01, 0.1, 0.055, 0.0325, 0.04375, 0.049375]))
    assert torch.allclose(path[1], torch.tensor([0.01, 0.1, 1.0, 10.0, 5.5, 3.25]))
    assert bool((search.low < need).all())
    assert bool((search.high >= need).all())


def test_trap_39_a_row_leaves_a_constant_when_its_own_loss_stalls() -> None:
    """The batch's sum still falls, by the second row; the first one goes on with its next constant."""
    search = begin(torch.zeros(2), 1.0)
    hit = torch.ones(2, dtype=torch.bool)
    for step in range(4):
        loss = torch.tensor([1.0, 1.0 - 0.1 * step])
        search, over = counted(search, hit, loss, steps=100, patience=2)
    assert over.tolist() == [True, False]
    assert search.tried.tolist() == [1, 0]
    assert search.step.tolist() == [0, 4]


def test_trap_39_what_a_row_finds_does_not_depend_on_its_neighbours() -> None:
    rows = images(convnet(), 6, L2(1))
    attack = CarliniWagner(steps=40, constants=2, constant=1.0, rate=0.1)
    together = run(wrap(convnet(), 5), attack, rows, SMALLEST)
    alone = run(wrap(convnet(), 5), attack, rows, EngineSettings(smallest=True, batch=4))
    assert torch.equal(together.forwards, alone.forwards)
    assert torch.allclose(together.size, alone.size, rtol=1e-3)
    assert len(together.forwards.unique()) > 1  # they stall at different times


# -- Carlini–Wagner's traps --------------------------------------------------------------------------------
def test_trap_37_the_hinge_sees_negative_logits() -> None:
    rows = images(convnet(), 2, L2(1))
    z = torch.tensor([[-1.0, -3.0, -2.0], [-5.0, -4.0, -9.0]])
    value = hinge(rows, 0.5)(z, torch.tensor([0, 0]), None)
    assert value.tolist() == [-1.0, 0.5]  # not −1 → 0 − (−1), and capped at κ


def test_trap_38_black_and_white_pixels_move() -> None:
    """Images of zeros and ones only: artanh(±1) would hold every pixel."""
    net = convnet()
    rows = images(net, 6, L2(1))
    x = (rows.x0 > 0.5).float()
    rows = replace(rows, x0=x, y=net(x).argmax(1))
    attack = CarliniWagner(steps=100, constants=2, constant=1.0, rate=0.1)
    found = run(wrap(net, 5), attack, rows, SMALLEST)
    assert bool(found.success.all())
    assert float((found.best_point - x).abs().max()) > 0.1


def test_kappa_asks_for_a_margin() -> None:
    """With κ the iterates go on past the boundary, so that the hits are at a margin of −κ; the record is smaller."""
    net, rows = convnet(), images(convnet(), 4, L2(1))
    margins: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        z = net(x)
        margins.append((z.detach().topk(2, 1).values.diff(dim=1)[:, 0]).abs().max())
        return z

    run(wrap(watched, 5), CarliniWagner(steps=40, constants=2, constant=1.0, rate=0.1, kappa=2.0), rows, SMALLEST)
    assert float(torch.stack(margins).max()) > 2.0


def test_a_box_without_sides_is_refused_by_tanh_and_taken_by_the_others() -> None:
    case = affine(0, 2)
    free = Model(case.model.fn, Box(-torch.inf, torch.inf), 2, Access.GRADIENT, "free", (12,))
    with pytest.raises(NotAvailable, match="bounded"):
        run(free, CarliniWagner(), case.rows(L2(1)), SMALLEST)
    gap = case.weight[0] - case.weight[1]
    best = ((case.x @ gap + case.constant[0] - case.constant[1]) / gap.norm()).abs()
    found = run(free, LBFGS(constants=12), case.rows(L2(1)), SMALLEST)
    assert bool((found.size <= 1.01 * best).all())


# -- what all three promise ----------------------------------------------------------------------------------
@pytest.mark.parametrize(("attack", "threat"), EVERY.values(), ids=EVERY.keys())
def test_a_targeted_goal_is_reached(attack: Attack[Any], threat: PerturbationSet) -> None:
    net = convnet()
    rows = replace(images(net, 6, threat), goal=Targeted(2))
    found = run(wrap(net, 5), attack, rows, SMALLEST)
    away = (rows.y != 2) & found.success
    assert int(away.sum()) >= 2
    assert bool((net(found.best_point[away])[:, 2] >= net(found.best_point[away]).amax(1) - 1e-5).all())


@pytest.mark.parametrize(("attack", "threat"), EVERY.values(), ids=EVERY.keys())
def test_a_point_already_broken_has_size_zero_and_a_flat_network_none(
    attack: Attack[Any], threat: PerturbationSet
) -> None:
    net, rows = convnet(), images(convnet(), 4, threat)
    wrong = run(wrap(net, 5), attack, replace(rows, y=(rows.y + 1) % 5), SMALLEST)
    assert wrong.size.tolist() == [0.0] * 4

    def flat(x: Tensor) -> Tensor:
        return x.flatten(1)[:, :5] * 0 + torch.tensor([1.0, 0, 0, 0, 0])

    stuck = run(wrap(flat, 5), attack, replace(rows, y=torch.zeros(4, dtype=torch.int64)), SMALLEST)
    assert not bool(stuck.success.any())
    assert set(stuck.status) == {"ok"}
    assert int(stuck.forwards.max()) <= 1 + attack.forwards


def test_refusals() -> None:
    for attack, _ in EVERY.values():
        with pytest.raises(NotAvailable, match="Linf"):
            run(wrap(convnet(), 5), attack, images(convnet(), 2, Linf(1)))
    for wrong in ({"steps": 0}, {"constants": 0}):
        for kind in (CarliniWagner, EAD, LBFGS):
            with pytest.raises(InputError):
                kind(**wrong)
