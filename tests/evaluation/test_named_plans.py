"""The plans that have names: AutoAttack line by line, and a cascade that loses nothing by its cut-offs."""

from __future__ import annotations

import pytest

from saddlepoint.attack import APGD, FAB, APGDTargeted, Square
from saddlepoint.attack.fixed.apgd import checkpoints
from saddlepoint.core.errors import NotAvailable
from saddlepoint.evaluation import plan_named
from saddlepoint.geometry import L0, L1, L2, Linf, PerturbationSet, RotationTranslation
from saddlepoint.spec import Threat


def configs(plan: str, threat: PerturbationSet) -> list[object]:
    return [stage.config for stage in plan_named(plan).stages(Threat(threat))][1:]


@pytest.mark.parametrize("threat", [Linf("8/255"), L2("1/2")])
def test_standard_autoattack_is_the_published_list(threat: PerturbationSet) -> None:
    """100 steps each, DLR for 9 targets, FAB for 9 targets without a final search, 5,000 queries of Square."""
    ce, targeted, fab, square = configs("autoattack", threat)
    assert ce == APGD(steps=100, restarts=1, loss="ce", polish=False)
    assert targeted == APGDTargeted(steps=100, restarts=1, loss="dlr", count=9, polish=False)
    assert fab == FAB(steps=150, starts=1, count=9, alpha_max=0.1, eta=1.05, beta=0.9, search=0)
    assert isinstance(square, Square)
    assert (square.queries, square.p_init) == (5000, 0.8)


def test_autoattack_in_l1_has_five_restarts_and_five_targets() -> None:
    ce, targeted, fab, square = configs("autoattack", L1(12))
    assert (ce.restarts, targeted.count, fab.count, square.queries) == (5, 5, 9, 5000)  # pyright: ignore
    assert (ce.large_radii, targeted.large_radii) == (True, True)  # pyright: ignore


def test_autoattack_plus_and_rand() -> None:
    names = [(type(c).__name__, getattr(c, "loss", ""), c.restarts) for c in configs("autoattack-plus", Linf("0.1"))]  # pyright: ignore
    assert names == [
        ("APGD", "ce", 5),
        ("APGD", "dlr", 5),
        ("FAB", "", 1),
        ("Square", "", 1),
        ("APGDTargeted", "dlr", 1),
        ("FAB", "", 1),
    ]
    assert configs("autoattack-plus", Linf("0.1"))[2].starts == 5  # pyright: ignore
    assert [c.loss for c in configs("autoattack-rand", Linf("0.1"))] == ["ce", "dlr"]  # pyright: ignore


def test_its_checkpoints_are_the_papers() -> None:
    """p = 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 of 100 steps; ⌈p N⌉ of any other number (trap 22)."""
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(10) == (3, 5, 6, 7, 8, 9, 10)
    assert checkpoints(50) == (11, 21, 29, 35, 40, 44, 47, 50)


@pytest.mark.parametrize("threat", [L0(3), RotationTranslation(10, 1)])
def test_autoattack_says_where_it_is_not_defined(threat: PerturbationSet) -> None:
    with pytest.raises(NotAvailable, match="plan strong"):
        plan_named("autoattack").stages(Threat(threat))


def test_the_first_stages_of_strong_are_for_everybody_and_certificates_come_early() -> None:
    stages = plan_named("strong").stages(Threat(Linf("0.1")))
    assert [s.side for s in stages[:4]] == ["upper", "upper", "lower", "lower"]
    cuts = [s.near for s in stages if s.side == "upper"]
    assert cuts[:4] == [None] * 4  # clean pass, PGD, cross-entropy, a look without gradients
    later = [cut for cut in cuts[4:] if cut is not None]
    assert len(later) == len(cuts) - 4
    assert later == sorted(later, reverse=True)  # the dearer, the nearer
