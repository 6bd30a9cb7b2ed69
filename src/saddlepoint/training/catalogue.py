"""Objectives by the names that the command line knows: `pgd`, `trades:beta=3,steps=5`, …

An entry is a callable whose first argument is the set (or the sets, or none) and whose further ones are options with
defaults; an option's type is that of its default.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from saddlepoint.core.arithmetic import exact
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import PerturbationSet
from saddlepoint.training.adversarial import Adversarial
from saddlepoint.training.augment import RandomAugmentation
from saddlepoint.training.certified import IBP, MTLIBP, SABR, CrownIBP, DualLoss
from saddlepoint.training.curvature import CURE
from saddlepoint.training.fgsm import FastAdversarial
from saddlepoint.training.free import Free
from saddlepoint.training.gaussian import GaussianAugmentation
from saddlepoint.training.input_gradient import GradientPenalty
from saddlepoint.training.jacobian import JacobianPenalty
from saddlepoint.training.label_smoothing import LabelSmoothing
from saddlepoint.training.lipschitz_margin import LipschitzMargin
from saddlepoint.training.logit_pairing import ALP
from saddlepoint.training.macer import MACER
from saddlepoint.training.mart import MART
from saddlepoint.training.msd import MSD
from saddlepoint.training.multi_set import AverageOfSets, MaxOfSets
from saddlepoint.training.n_fgsm import NFGSM
from saddlepoint.training.objective import Objective, Standard
from saddlepoint.training.smoothadv import SmoothAdv
from saddlepoint.training.stability import ReluStability
from saddlepoint.training.trades import TRADES
from saddlepoint.training.weight_perturbation import AWP
from saddlepoint.training.worst_of_k import WorstOfK

_INTERNAL = ("fraction", "grid")  # a schedule's own state, and what has no short text


@dataclass(frozen=True)
class Choice:
    """How an objective is built, how many sets it takes, and which of the loop's settings it wants otherwise."""

    make: Callable[..., Objective]
    sets: Literal["none", "one", "several"] = "one"
    trainer: Mapping[str, Any] = field(default_factory=dict)
    interval_weights: bool = False
    """Whether intervals explode under the usual initial weights (certified/warmup.py)."""

    @property
    def options(self) -> dict[str, Any]:
        """Names and defaults of the options."""
        found = list(inspect.signature(self.make).parameters.values())[0 if self.sets == "none" else 1 :]
        return {p.name: p.default for p in found if p.name not in _INTERNAL}


def _awp(ball: PerturbationSet, steps: int = 7, gamma: float = 0.005, beta: float = 0.0) -> AWP:
    """On PGD; on TRADES where β is given."""
    return AWP(TRADES(ball, steps, beta=beta) if beta else Adversarial(ball, steps), gamma)


def _stability(ball: PerturbationSet, weight: float = 1e-4, l1: float = 2e-5, steps: int = 7) -> ReluStability:
    """On PGD."""
    return ReluStability(ball, weight, l1, objective=Adversarial(ball, steps))


_FAST = {"rate": 8e-3, "batch": 128}  # one step a batch bears, and wants, a higher peak; small batches give it nothing
_CERTIFIED = {"epochs": 40, "warm_up": 20, "rate": 5e-3, "batch": 128, "clip": 10.0, "schedule": "cosine"}

CATALOGUE: dict[str, Choice] = {
    "standard": Choice(Standard, "none", {"warm_up": 0}),
    "augment": Choice(RandomAugmentation),
    "label-smoothing": Choice(LabelSmoothing, "none", {"warm_up": 0}),
    "pgd": Choice(Adversarial),
    "fgsm": Choice(FastAdversarial),
    "n-fgsm": Choice(NFGSM, "one", _FAST),
    "free": Choice(Free),
    "trades": Choice(TRADES),
    "mart": Choice(MART),
    "awp": Choice(_awp),
    "alp": Choice(ALP),
    "worst-of-k": Choice(WorstOfK),
    "max": Choice(MaxOfSets, "several"),
    "average": Choice(AverageOfSets, "several"),
    "msd": Choice(MSD, "several"),
    "gradient-penalty": Choice(GradientPenalty, "none"),
    "jacobian": Choice(JacobianPenalty, "none"),
    "cure": Choice(CURE, "none"),
    "gaussian": Choice(GaussianAugmentation, "none"),
    "smoothadv": Choice(SmoothAdv),
    "macer": Choice(MACER, "none"),
    "lipschitz": Choice(LipschitzMargin),
    "relu-stability": Choice(_stability),
    "ibp": Choice(IBP, "one", _CERTIFIED, True),
    "crown-ibp": Choice(CrownIBP, "one", _CERTIFIED, True),
    "sabr": Choice(SABR, "one", _CERTIFIED, True),
    "mtl-ibp": Choice(MTLIBP, "one", _CERTIFIED, True),
    "wong-kolter": Choice(DualLoss, "one", _CERTIFIED, False),
}


def entry(text: str) -> Choice:
    """The entry that `name` or `name:option=value,…` names. Raises InputError with the names there are."""
    name = text.partition(":")[0].strip()
    if name not in CATALOGUE:
        raise InputError(f"there is no objective {name!r}.", f"There are: {', '.join(CATALOGUE)}.")
    return CATALOGUE[name]


def objective(text: str, sets: Sequence[PerturbationSet] = ()) -> Objective:
    """The objective that `name` or `name:option=value,…` names, against these sets.

    Raises InputError for unknown names, options and values, and for a number of sets that the objective cannot take.
    """
    found = entry(text)
    name, _, rest = text.partition(":")
    options = _options(name, found.options, rest)
    if found.sets == "none":
        return found.make(**options)
    if not sets:
        raise InputError(f"{name} trains against a set, and none was given.", "Give --threat linf:8/255, say.")
    if found.sets == "several":
        return found.make(tuple(sets), **options)
    if len(sets) > 1:
        raise InputError(f"{name} takes one set, {len(sets)} were given.", "Use max, average or msd for several.")
    return found.make(sets[0], **options)


def _options(name: str, known: Mapping[str, Any], text: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or key not in known:
            there = ", ".join(f"{k}={v}" for k, v in known.items()) or "none"
            raise InputError(f"{name} has no option {part!r}.", f"Options and their defaults: {there}.")
        options[key] = _typed(f"{name}:{key}", known[key], value)
    return options


def _typed(name: str, default: Any, text: str) -> Any:
    """The text as a value of the default's type."""
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise InputError(f"{name}={text}.", "Write true or false.")
        return text == "true"
    value = exact(text)
    if isinstance(default, int):
        if value.denominator != 1:
            raise InputError(f"{name}={text} is no whole number.")
        return int(value)
    if isinstance(default, Fraction):
        return value
    try:
        return float(value)
    except OverflowError as error:
        raise InputError(f"{name}={text} is beyond all floating-point numbers.") from error
