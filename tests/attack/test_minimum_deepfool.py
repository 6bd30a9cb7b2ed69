"""DeepFool: closed forms on affine models, and its named traps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attack_models import affine, convnet, images, wrap
from hypothesis import given, settings
from hypothesis import strategies as st
from minimum_oracles import ratio
from torch import Tensor

from saddlepoint.attack import DeepFool, EngineSettings, run
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.geometry import L0, L1, L2, Linf, PerturbationSet
from saddlepoint.spec.goal import Targeted

NORMS: dict[str, PerturbationSet] = {"linf": Linf(1), "l2": L2(1), "l1": L1(1)}
SMALLEST = EngineSettings(smallest=True)


@pytest.mark.parametrize("threat", NORMS.values(), ids=NORMS.keys())
@settings(max_examples=3)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 5))
def test_affine_models_take_one_step_to_the_closed_form(threat: PerturbationSet, seed: int, classes: int) -> None:
    """The nearest of the K − 1 boundaries, the box active; the search takes the overshoot back."""
    case = affine(seed, classes)
    assert ratio(DeepFool(steps=3), case, threat)[0] <= 1.01
    bare, outcome = ratio(DeepFool(steps=3, search=0), case, threat)
    assert bare <= 1.02 * (1 + 1e-9)  # what the published overshoot costs, and no more
    spent = outcome.backwards[outcome.success]
    assert bool((spent <= classes - 1 + 2).all())  # one step, the check, an empty ask


def test_trap_43_the_walk_leaves_the_label_not_the_prediction() -> None:
    """A sample that the model gets wrong is broken at x0: nothing to do, and no step away from the prediction."""
    net = convnet()
    rows = images(net, 6, L2(1))
    wrong = replace(rows, y=(rows.y + 1) % 5)
    found = run(wrap(net, 5), DeepFool(steps=5), wrong, SMALLEST)
    assert torch.equal(found.best_point, rows.x0)
    assert found.size.tolist() == [0.0] * 6


def test_a_step_asks_once_per_candidate_at_one_point() -> None:
    net = convnet()
    rows = replace(images(net, 1, L2(1)), clean=None)
    seen: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return net(x)

    run(wrap(watched, 5), DeepFool(steps=1, search=0), rows, SMALLEST)
    assert len(seen) >= 1 + 4 + 1  # x0, four gradients there, the point walked to
    assert all(torch.equal(x, rows.x0) for x in seen[:5])
    assert not torch.equal(seen[5], rows.x0)


@pytest.mark.parametrize("threat", NORMS.values(), ids=NORMS.keys())
def test_the_search_never_makes_it_larger(threat: PerturbationSet) -> None:
    # in float64: rows that leave a batch at other times change the rounding of those that stay
    net, rows = convnet().double(), images(convnet(), 10, threat)
    rows = replace(rows, x0=rows.x0.double(), clean=None)
    sizes = [run(wrap(net, 5), DeepFool(steps=20, search=s), rows, SMALLEST).size for s in (0, 2, 5)]
    assert bool(sizes[0].isfinite().all())
    assert bool((sizes[1] <= sizes[0] * (1 + 1e-12)).all())
    assert bool((sizes[2] <= sizes[1] * (1 + 1e-12)).all())
    assert float((sizes[1] / sizes[0]).median()) < 0.995


def test_the_budget_holds_without_a_single_success() -> None:
    """A network that no input moves: all steps are taken, and nothing is claimed."""
    attack = DeepFool(steps=3, candidates=2, search=2)
    scale = torch.tensor([5.0, 0, 0, 0, 0])

    def flat(x: Tensor) -> Tensor:
        return x.flatten(1)[:, :5] * 1e-6 + scale

    rows = replace(images(convnet(), 4, L2(1)), y=torch.zeros(4, dtype=torch.int64))
    found = run(wrap(flat, 5), attack, rows, SMALLEST)
    assert not bool(found.success.any())
    assert int(found.forwards.max()) <= 1 + attack.forwards
    assert found.backwards.tolist() == [attack.backwards] * 4


def test_a_targeted_goal_is_reached() -> None:
    net = convnet()
    rows = replace(images(net, 8, L2(1)), goal=Targeted(2))
    found = run(wrap(net, 5), DeepFool(), rows, SMALLEST)
    away = rows.y != 2
    assert bool(found.success[away].all())
    assert bool((net(found.best_point[away])[:, 2] >= net(found.best_point[away]).amax(1) - 1e-5).all())


def test_refusals() -> None:
    with pytest.raises(NotAvailable, match="L0"):
        run(wrap(convnet(), 5), DeepFool(), images(convnet(), 2, L0(3)))
    with pytest.raises(InputError, match="overshoot"):
        DeepFool(overshoot=-0.1)
