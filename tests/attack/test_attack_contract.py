"""Every attack under every kind of set keeps every promise of contract.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from contract import Trial, promises

from saddlepoint.attack import (
    APGD,
    BIM,
    DDN,
    EAD,
    FAB,
    FGSM,
    FMN,
    LBFGS,
    MIFGSM,
    PDPGD,
    PGD,
    APGDTargeted,
    CarliniWagner,
    DeepFool,
    FrankWolfe,
    Grid,
    PGDTargeted,
    RandomSearch,
    Relay,
    SigmaZero,
    Square,
)
from saddlepoint.attack.transfer import Diverse, Nesterov, Scaled, Smoothed
from saddlepoint.attack.universal import Universal
from saddlepoint.geometry import L0, L1, L2, Linf, Patch, RotationTranslation

LINF, L2_, L1_, SPATIAL = Linf("0.05"), L2("0.3"), L1("1"), RotationTranslation(20, 1)
TRIALS = {
    "pgd-linf": Trial(PGD(steps=4), LINF),
    "pgd-l2-restarts": Trial(PGD(steps=3, restarts=2, loss="margin"), L2_),
    "pgd-l1": Trial(PGD(steps=4, loss="dlr"), L1_),
    "pgd-l0": Trial(PGD(steps=3), L0(3)),
    "pgd-patch": Trial(PGD(steps=3), Patch(2, 2)),
    "pgd-spatial": Trial(PGD(steps=3), SPATIAL),
    "apgd-linf": Trial(APGD(steps=6), LINF),
    "apgd-l2": Trial(APGD(steps=6, loss="dlr", restarts=2), L2_),
    "apgd-l1-polished": Trial(APGD(steps=5, polish=True), L1_),
    "apgd-targeted": Trial(APGDTargeted(steps=4, count=3), LINF),
    "cw-l2": Trial(CarliniWagner(steps=6, constants=2, constant=1.0, rate=0.2), L2_),
    "ead-l1": Trial(EAD(steps=5, constants=2, constant=1.0, rate=0.1), L1_),
    "lbfgs-l2": Trial(LBFGS(steps=4, constants=2, count=2), L2_),
    "deepfool-linf": Trial(DeepFool(steps=2, candidates=3), LINF),
    "deepfool-l2": Trial(DeepFool(steps=3, candidates=2, search=0), L2_),
    "deepfool-l1": Trial(DeepFool(steps=2, candidates=3), L1_),
    "fab-linf": Trial(FAB(steps=4, count=2), LINF),
    "fab-l2-starts": Trial(FAB(steps=3, count=2, starts=2), L2_),
    "fab-l1": Trial(FAB(steps=4, count=2, search=0), L1_),
    "ddn": Trial(DDN(steps=5, restarts=2, radius=0.3), L2_),
    "fmn-linf": Trial(FMN(steps=4), LINF),
    "fmn-l1": Trial(FMN(steps=4), L1_),
    "fmn-l0": Trial(FMN(steps=4), L0(3)),
    "pdpgd-l2": Trial(PDPGD(steps=5), L2_),
    "pdpgd-l1": Trial(PDPGD(steps=5, price=0.3), L1_),
    "sigma-zero": Trial(SigmaZero(steps=5), L0(3)),
    "relay-linf": Trial(Relay(steps=7), LINF),
    "relay-l2-targets": Trial(Relay(steps=7, count=2), L2_),
    "square-linf": Trial(Square(queries=8), LINF),
    "square-l2": Trial(Square(queries=8, restarts=2), L2_),
    "square-l1": Trial(Square(queries=8), L1_),
    "apgd-l1-large": Trial(APGD(steps=7, large_radii=True), L1_),
    "apgd-targeted-l1": Trial(APGDTargeted(steps=4, count=2), L1_),
    "fgsm": Trial(FGSM(), LINF),
    "fgsm-l1": Trial(FGSM(loss="margin"), L1_),
    "fgsm-spatial": Trial(FGSM(), SPATIAL),
    "bim": Trial(BIM(steps=3), L2_),
    "mi-fgsm": Trial(MIFGSM(steps=4), LINF),
    "mi-fgsm-l1": Trial(MIFGSM(steps=4), L1_),
    "frank-wolfe-linf": Trial(FrankWolfe(steps=5), LINF),
    "frank-wolfe-l2": Trial(FrankWolfe(steps=4, restarts=2, random_start=True, loss="ce"), L2_),
    "frank-wolfe-l1-open": Trial(FrankWolfe(steps=5, step_rule="open"), L1_),
    "frank-wolfe-patch": Trial(FrankWolfe(steps=4), Patch(2, 2)),
    "pgd-targeted": Trial(PGDTargeted(steps=4, count=2, order="malt"), LINF),
    "apgd-targeted-malt": Trial(APGDTargeted(steps=3, count=2, order="malt", loss="pm"), L2_),
    "pgd-cycles": Trial(PGD(steps=20, step_size=0.8, loss="margin"), LINF),
    "grid": Trial(Grid(angles=3, shifts=3), SPATIAL),
    "random-linf": Trial(RandomSearch(tries=6), LINF),
    "random-spatial": Trial(RandomSearch(tries=6, restarts=2), SPATIAL),
    "si-ni-di-ti": Trial(Diverse(Scaled(Smoothed(Nesterov(PGD(steps=2)), radius=1), copies=2), low=0.7), LINF),
    "si-apgd-l2": Trial(Scaled(APGD(steps=3), copies=2), L2_),
    "universal": Trial(Universal(steps=3), LINF),
}


@pytest.mark.parametrize("promise", promises, ids=lambda p: p.__name__)
@pytest.mark.parametrize("trial", TRIALS.values(), ids=TRIALS.keys())
def test_promise(trial: Trial, promise: Callable[[Trial], None]) -> None:
    promise(trial)


def test_the_trials_leave_room_for_both_verdicts() -> None:
    """A matrix in which everything falls, or nothing, would prove little."""
    rates = [float(t.run().success.float().mean()) for t in TRIALS.values()]
    assert any(0 < r < 1 for r in rates)
    assert max(rates) > 0.3
