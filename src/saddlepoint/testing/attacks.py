"""The contract that every attack keeps, one function per promise.

    report = check_attack(MyAttack())                    # raises ContractBroken with the whole report
    report = check_attack(MyAttack(), L2("0.3"))         # under another set

`BASIC` promises are about `init` and `step` themselves, walked through by hand; `PROMISES` has them all. Each takes a
`Trial`: the attack, a set, and (unless one's own is given) a small network of five classes on 1 × 8 × 8 images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from saddlepoint.attack.protocol import Attack
from saddlepoint.geometry import Linf, PerturbationSet
from saddlepoint.testing.report import Promise, Report, examine
from saddlepoint.testing.runs import RUNS
from saddlepoint.testing.steps import BASIC, STEPS
from saddlepoint.testing.trial import Trial

PROMISES: tuple[Promise[Trial], ...] = (*BASIC, *STEPS, *RUNS)


def check_attack(
    attack: Attack[Any], threat: PerturbationSet | None = None, *, net: Callable[[], nn.Module] | None = None
) -> Report:
    """Check one's own attack in seconds: under Linf("0.05") and on a small network, unless others are given.

    `net` makes the network: (b, 1, 8, 8) → (b, 5). Raises ContractBroken, whose text and `report` say which promise is
    broken, with what, and the remedy. Returns the report where all are kept.
    """
    threat = Linf("0.05") if threat is None else threat
    subject = f"{getattr(attack, 'name', type(attack).__name__)} under {threat.kind}"
    return examine(subject, PROMISES, Trial(attack, threat, net), basic=len(BASIC))
