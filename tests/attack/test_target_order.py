"""Which targets come first: by logit, or by the linear step to them (MALT)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attack_models import affine, wrap
from torch import Tensor

from saddlepoint.attack import APGDTargeted, EngineSettings, PGDTargeted, Rows, run
from saddlepoint.attack.fixed.target_order import likeliest
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import L1, L2, Linf

CLEAN = torch.tensor([[5.0, 3.0, 1.0, 0.0], [2.0, 1.9, 3.0, -4.0]])
Y = torch.tensor([0, 2])


def test_malt_ranks_by_the_step_that_a_class_needs() -> None:
    slopes = torch.tensor([[0.0, 1.0, 4.0, 10.0], [1.0, 0.0, 0.0, 70.0]])
    assert likeliest(CLEAN, Y, 9).tolist() == [[1, 2, 3], [0, 1, 3]]
    # steps 2/1, 4/4, 5/10; then 1/1, 1.1/0 (never), 7/70
    assert likeliest(CLEAN, Y, 9, slopes).tolist() == [[3, 2, 1], [3, 0, 1]]
    assert likeliest(CLEAN, Y, 1, slopes).tolist() == [[3], [3]]


def test_y_is_never_a_target_whatever_the_numbers() -> None:
    hard = torch.tensor([[torch.nan, 1.0, 1.0], [torch.inf, -torch.inf, 0.0], [0.0, 0.0, 0.0]])
    slopes = torch.zeros(3, 3)
    for y in range(3):
        labels = torch.full((3,), y)
        for given in (None, slopes):
            chosen = likeliest(hard, labels, 9, given)
            assert chosen.shape == (3, 2)
            assert not bool((chosen == y).any())
            assert bool((chosen.sort(1).values == torch.tensor([j for j in range(3) if j != y])).all())


def test_a_sample_that_is_already_wrong_has_its_own_class_first() -> None:
    assert likeliest(CLEAN, torch.tensor([3, 3]), 1, torch.ones(2, 4)).tolist() == [[0], [2]]


@pytest.mark.parametrize("threat", [Linf("1/100"), L2("1/20"), L1("1/10")], ids=["linf", "l2", "l1"])
@pytest.mark.parametrize("kind", [APGDTargeted, PGDTargeted])
def test_one_malt_target_is_enough_on_affine_models(kind: type[APGDTargeted | PGDTargeted], threat: Linf) -> None:
    """Far from the box, the first class of the order is where the smallest perturbation leads."""
    case = affine(7, 6, features=40)
    x = 0.5 + 0.02 * (case.x - 0.5)
    case = replace(case, x=x, y=case.model.fn(x).argmax(1))
    attack = kind(steps=8, loss="margin", count=1, order="malt", polish=True)
    rows = case.rows(threat)
    gaps = case.model.fn(x)
    gaps = gaps.gather(1, case.y[:, None]) - gaps
    weight = case.weight[None] - case.weight[case.y][:, None]
    dual = {"linf": 1, "l2": 2, "l1": torch.inf}[threat.kind]
    steps = gaps / torch.linalg.vector_norm(weight, dual, dim=2).clamp_min(1e-300)
    nearest = steps.scatter(1, case.y[:, None], torch.inf)
    sizes = 1.0001 * nearest.amin(1)
    found = run(case.model, attack, replace(rows, set=type(threat)(sizes)), EngineSettings(drop=False))
    assert bool(found.success.all())
    short = run(case.model, attack, replace(rows, set=type(threat)(sizes * 0.999)), EngineSettings(drop=False))
    assert not bool(short.success.any())
    likely = run(case.model, replace(attack, order="logit"), replace(rows, set=type(threat)(sizes)))
    agree = case.model.fn(x).scatter(1, case.y[:, None], -torch.inf).argmax(1) == nearest.argmin(1)
    assert torch.equal(likely.success, agree)


def test_slopes_cost_a_forward_and_k_minus_1_backwards() -> None:
    case = affine(1, 4)
    rows = case.rows(Linf("1/100"))
    for order, forwards, backwards in (("logit", 0, 0), ("malt", 1, 3)):
        attack = APGDTargeted(steps=5, count=2, order=order)
        found = run(case.model, attack, rows, EngineSettings(drop=False))
        assert found.forwards.tolist() == [1 + 2 * 6 + forwards] * len(case.x)
        assert found.backwards.tolist() == [2 * 5 + backwards] * len(case.x)


def test_every_wrong_class_is_tried_at_most_once() -> None:
    """Multi-targeted: a class that only the third target reaches is reached."""

    def fn(x: Tensor) -> Tensor:
        zero = torch.zeros(len(x), dtype=x.dtype)
        return torch.stack([zero, zero - 0.1, zero - 0.2, 0.2 * (x - 0.5).sum(1) - 0.3], 1)

    rows = Rows(torch.full((2, 50), 0.5), torch.zeros(2, dtype=torch.int64), ("a", "b"), Linf("0.05"))
    for attack, falls in ((PGDTargeted(steps=5, count=2), False), (PGDTargeted(steps=5), True)):
        assert bool(run(wrap(fn, 4, (50,)), attack, rows).success.all()) is falls
    first = run(wrap(fn, 4, (50,)), PGDTargeted(steps=5, count=1, order="malt"), rows)
    assert bool(first.success.all())


def test_what_makes_no_sense_is_refused() -> None:
    for kind in (APGDTargeted, PGDTargeted):
        with pytest.raises(InputError, match="order"):
            kind(order="alphabet")
        with pytest.raises(InputError):
            kind(count=0)
