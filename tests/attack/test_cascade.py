"""A cascade: the union over its stages, and cut-offs that only leave out."""

from __future__ import annotations

import pytest
import torch
from attack_models import UNIT, convnet, images, wrap

from saddlepoint.attack import APGD, PGD, APGDTargeted, EngineSettings, run
from saddlepoint.attack.cascade import Step, cascade, worth
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import Linf, RotationTranslation

NET = convnet()
MODEL = wrap(NET, 5)
ROWS = images(NET, 40, Linf("0.03"))
STEPS = (PGD(steps=3, loss="margin"), APGD(steps=8), APGDTargeted(steps=8, count=2))


def test_a_cascade_is_the_union_of_its_stages() -> None:
    """Trap 47: the worst case is per sample, over all attacks, never an average."""
    found = cascade(MODEL, [Step(a) for a in STEPS], ROWS)
    alone = [run(MODEL, attack, ROWS, EngineSettings(drop=False)) for attack in STEPS]
    assert torch.equal(found.success, torch.stack([o.success for o in alone]).any(0))
    assert 0 < int(found.success.sum()) < len(ROWS)  # else the union would prove little
    assert bool(ROWS.set.within(UNIT).contains(ROWS.x0, found.best_point).all())


def test_every_stage_sees_who_stands_and_is_paid_for() -> None:
    found = cascade(MODEL, [Step(a) for a in STEPS], ROWS)
    left = len(ROWS)
    for stage in found.stages:
        assert stage.asked == left
        left -= stage.broken
    assert left == int((~found.success).sum())
    assert found.stages[0].forwards >= len(ROWS) > found.stages[1].asked


def test_a_cut_off_leaves_out_the_far_ones_only() -> None:
    everyone = cascade(MODEL, [Step(STEPS[0]), Step(STEPS[1])], ROWS)
    before, clean = everyone.before[1], everyone.clean_margin
    near = float((before / (clean - before))[before > 0].median())
    some = cascade(MODEL, [Step(STEPS[0]), Step(STEPS[1], near)], ROWS)
    chosen = (before > 0) & worth(clean, before, near)
    assert 0 < int(chosen.sum()) < int((before > 0).sum())
    assert some.stages[1].asked == int(chosen.sum())
    assert torch.equal(some.success, everyone.success & (chosen | (before <= 0)))


def test_the_measure_of_nearness_has_no_unit() -> None:
    """Logits × 1000 change no choice."""
    clean, best = torch.tensor([4.0, 4.0, 4.0]), torch.tensor([1.0, 2.0, 3.9])
    for near in (0.2, 0.5, 1.0):
        assert torch.equal(worth(clean, best, near), worth(1000 * clean, 1000 * best, near))
    assert worth(clean, best, 1.0).tolist() == [True, True, False]


def test_crashes_are_errors_not_robustness() -> None:
    """Trap 8."""

    def broken(x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:
            raise RuntimeError("no backward here")
        return NET(x)

    found = cascade(wrap(broken, 5), [Step(STEPS[0])], ROWS)
    assert set(found.errors) == set(range(len(ROWS)))


def test_what_it_refuses() -> None:
    with pytest.raises(InputError, match="at least one step"):
        cascade(MODEL, [], ROWS)
    with pytest.raises(InputError, match="sets of points"):
        cascade(MODEL, [Step(STEPS[0])], images(NET, 4, RotationTranslation(5, 1)))
