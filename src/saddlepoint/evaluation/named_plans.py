"""The plans that have names, as lists of stages for a threat.

    quick       a short attack, interval bounds, CROWN
    standard    + Auto-PGD on cross-entropy and on targeted DLR, or the exhaustive grid for rotation + translation
    strong      certificates, and a cascade of attacks that spends its effort where samples are close to falling
    complete    strong, and what stays open is searched completely, a minute for each sample (boxes, and
                rotation + translation)
    autoattack  AutoAttack as published, attacks only; autoattack-plus and autoattack-rand are its other two versions

AutoAttack (Croce & Hein 2020, "Reliable evaluation…", and 2021, "Mind the box" for ℓ1; versions of its documentation):

    standard ℓ∞, ℓ2   APGD-CE 100 steps, 1 restart · APGD-T 100 steps, 9 targets, DLR · FAB-T 100 iterations,
                      9 targets · Square 5,000 queries
    standard ℓ1       APGD-CE 5 restarts with large radii · APGD-T 5 targets with large radii · FAB-T · Square
    plus              APGD-CE and APGD-DLR with 5 restarts · FAB with 5 starts · Square · APGD-T · FAB-T
    rand              APGD-CE and APGD-DLR on the averaged model (`--eot 20`)

Each attack sees the samples that the ones before it left standing. Deviations, all towards what the papers say: the
loss at x0 counts in APGD's first window (trap 21); Square's windows are drawn per sample and reach the last row and
column (traps 32, 36); FAB's 100 iterations of two forwards are 150 asks of one (fab.py); targets are at most K − 1; DLR
falls back to the margin below three classes (targeted: four); a success is a point of the set at which the deployed
model, asked again, is wrong. In `plus` FAB runs on 9 targets too: its untargeted form needs K backward passes a step
(trap 28). For ℓ1, Auto-PGD follows apgd_l1.py.

`strong`'s cut-offs (`near`) and what each would have missed: benchmarks/results/attacks/early_stops.json.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from saddlepoint.attack import APGD, FAB, PGD, APGDTargeted, Grid, RandomSearch, Square
from saddlepoint.bound import CROWN, Interval
from saddlepoint.bound.complete import Complete
from saddlepoint.core.errors import NotAvailable
from saddlepoint.evaluation.stages import Stage
from saddlepoint.geometry import L1, L2, Linf
from saddlepoint.spec import Threat

Choice = Callable[[Threat], list[Any]]


def quick(threat: Threat) -> list[Any]:
    """Seconds: a first bracket."""
    if threat.set.parametric:  # the bounds are asked too: that they refuse is part of what was not tested
        return [RandomSearch(tries=20), PGD(steps=10), Interval(), CROWN()]
    return [PGD(steps=10), Interval(), CROWN(), RandomSearch(tries=20)]


def standard(threat: Threat) -> list[Any]:
    """The default."""
    if threat.set.parametric:
        return [*quick(threat), Grid()]
    return [PGD(steps=10), Interval(), CROWN(), APGD(steps=50), APGDTargeted(steps=50), RandomSearch(tries=20)]


def strong(threat: Threat) -> list[Any]:
    """Certificates, then the cascade; parameters of rendered sets are searched exhaustively."""
    if threat.set.parametric:
        return [*standard(threat), PGD(steps=50, restarts=5)]
    first, *later = cascade_for(threat)
    return [first, Interval(), CROWN(), *later]


def complete(threat: Threat) -> list[Any]:
    """`strong`, and branch and bound on what it leaves open."""
    return [*strong(threat), Complete(seconds=60.0)]


def cascade_for(threat: Threat) -> list[Stage]:
    """The attacks of `strong`: the first three on everybody that stands, the others on who came close."""
    normed = isinstance(threat.set, (Linf, L2, L1))
    look = Square(queries=50) if normed else RandomSearch()
    found = [
        Stage(PGD(steps=10, loss="margin")),
        Stage(APGD(steps=25)),
        Stage(look),
        Stage(APGD(steps=25, loss="margin"), near=1.0),
        Stage(APGDTargeted(steps=30, count=5), near=0.6),
        Stage(Square(queries=1000), near=0.5),
        Stage(APGD(steps=100, restarts=5), near=0.2),
        Stage(APGDTargeted(steps=100), near=0.15),
        Stage(Square(), near=0.08),
        Stage(FAB(steps=50), near=0.05),
    ]
    return found if normed else [s for s in found if not isinstance(s.config, (Square, FAB))]


def autoattack(threat: Threat) -> list[Any]:
    """Standard AutoAttack."""
    if isinstance(threat.set, L1):
        wide = {"steps": 100, "large_radii": True}
        return [APGD(restarts=5, **wide), APGDTargeted(count=5, **wide), FAB(search=0), Square()]
    _norm_ball(threat)
    return [APGD(steps=100), APGDTargeted(steps=100), FAB(search=0), Square()]


def autoattack_plus(threat: Threat) -> list[Any]:
    """AutoAttack with more restarts and a second loss."""
    _norm_ball(threat)
    many = [APGD(steps=100, restarts=5), APGD(steps=100, restarts=5, loss="dlr"), FAB(starts=5, search=0), Square()]
    return [*many, APGDTargeted(steps=100), FAB(search=0)]


def autoattack_rand(threat: Threat) -> list[Any]:
    """AutoAttack for random models: the averaging is the model's (`averaged`, `--eot`)."""
    _norm_ball(threat)
    return [APGD(steps=100), APGD(steps=100, loss="dlr")]


def _norm_ball(threat: Threat) -> None:
    if not isinstance(threat.set, (Linf, L2, L1)):
        raise NotAvailable(
            f"AutoAttack is defined for l-infinity, l2 and l1 balls, not for {type(threat.set).__name__}.",
            "Use the plan strong.",
        )


NAMED: dict[str, Choice] = {
    "quick": quick,
    "standard": standard,
    "strong": strong,
    "complete": complete,
    "autoattack": autoattack,
    "autoattack-plus": autoattack_plus,
    "autoattack-rand": autoattack_rand,
}
