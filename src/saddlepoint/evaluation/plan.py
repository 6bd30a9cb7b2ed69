"""Plans: which methods, in which order. Cheapest evidence first.

A plan has a name (named_plans.py) or is a TOML file (plan_file.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
    Universal,
)
from saddlepoint.attack.protocol import Attack
from saddlepoint.bound import CROWN, Interval
from saddlepoint.bound.alpha import AlphaCROWN
from saddlepoint.bound.complete import Complete
from saddlepoint.bound.smoothing import RandomizedSmoothing
from saddlepoint.bound.wong_kolter import WongKolter
from saddlepoint.core.errors import InputError
from saddlepoint.evaluation.named_plans import NAMED
from saddlepoint.evaluation.plan_file import read_plan
from saddlepoint.evaluation.stages import Clean, Stage
from saddlepoint.spec import Model, Threat

METHODS: dict[str, type] = {
    "pgd": PGD,
    "apgd": APGD,
    "apgd-t": APGDTargeted,
    "cw": CarliniWagner,
    "ddn": DDN,
    "deepfool": DeepFool,
    "ead": EAD,
    "fab-t": FAB,
    "fmn": FMN,
    "lbfgs": LBFGS,
    "pdpgd": PDPGD,
    "relay": Relay,
    "sigma-zero": SigmaZero,
    "random": RandomSearch,
    "grid": Grid,
    "pgd-t": PGDTargeted,
    "frank-wolfe": FrankWolfe,
    "mi-fgsm": MIFGSM,
    "bim": BIM,
    "fgsm": FGSM,
    "square": Square,
    "universal": Universal,
    "interval": Interval,
    "crown": CROWN,
    "alpha-crown": AlphaCROWN,
    "complete": Complete,
    "wong-kolter": WongKolter,
    "smoothing": RandomizedSmoothing,
}


@dataclass(frozen=True)
class Plan:
    """A name, and the stages for a threat (the clean pass always comes first)."""

    name: str
    choose: Callable[[Threat], list[Any]]

    def stages(self, threat: Threat) -> list[Stage]:
        """Stages in order, the clean pass first."""
        chosen = (s if isinstance(s, Stage) else Stage(s) for s in self.choose(threat))
        return [Stage(Clean()), *chosen]

    def for_model(self, model: Model) -> Plan:
        """Of a smoothed predictor: certificates from counts after the first attack, and no bounds on a graph."""
        how = model.smoothing
        if how is None:
            return self
        certify = RandomizedSmoothing(how.n0, how.n, how.alpha, how.images)

        def choose(threat: Threat) -> list[Any]:
            kept = [s for s in self.stages(threat)[1:] if isinstance(s.config, (Attack, RandomizedSmoothing))]
            if any(isinstance(s.config, RandomizedSmoothing) for s in kept):  # the plan's own parameters
                return kept
            return [*kept[:1], certify, *kept[1:]]

        return replace(self, choose=choose)


def plan_named(name: str) -> Plan:
    """A plan by name, or from a TOML file. Raises InputError with the known names, or with what the file says wrong."""
    if name in NAMED:
        return Plan(name, NAMED[name])
    path = Path(name)
    if not path.is_file():
        raise InputError(f"there is no plan {name!r}.", f"Choose {', '.join(NAMED)}, or give a TOML file.")
    stages = read_plan(path, METHODS)
    return Plan(name, lambda threat: list(stages))
