"""What is asked of an evaluation, and looking at it before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from saddlepoint.core.errors import InputError, NotAvailable, StochasticModel
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data import Data
from saddlepoint.evaluation.plan import Plan
from saddlepoint.evaluation.pool import Source
from saddlepoint.evaluation.subjects import Sample, choose, scan
from saddlepoint.evaluation.unit import Work
from saddlepoint.spec import Model, Targeted, Threat


@dataclass(frozen=True)
class Request:
    """What is asked: model + data + threats, how hard to try, and how to carry it out.

    `budget` is in seconds of wall time (None: until the plan ends). `source` loads the model in a worker process.
    """

    model: Model
    data: Data
    threats: tuple[Threat, ...]
    plan: Plan
    n: int | None = None
    sample: str = "first"
    budget: float | None = None
    workers: int | str = 1
    work: Work = field(default_factory=Work)
    source: Source | None = None
    model_spec: str = ""
    model_options: dict[str, Any] = field(default_factory=dict)
    adapted: tuple[str, ...] = ()
    """The cures applied to `model` and `plan` (evaluation/adapt.py)."""


@dataclass(frozen=True)
class Prepared:
    """A request that was looked at and can be carried out: its threats inside the data box, its samples."""

    request: Request
    threats: tuple[Threat, ...]
    samples: tuple[Sample, ...]


def prepare(request: Request) -> Prepared:
    """Look at model, data and threats before anything is written. Raises InputError and its children."""
    _refuse_stochastic(request.model)
    request = replace(request, plan=request.plan.for_model(request.model))
    if not request.threats:
        raise InputError("no threat was given.", "Say what the adversary may do, e.g. linf:8/255.")
    threats = tuple(threat.within(request.model.domain) for threat in request.threats)
    positions = choose(request.data, request.n, request.sample, request.work.seed)
    _fit(request, threats, positions)
    for threat in threats:  # a plan that has nothing for a threat says so now
        request.plan.stages(threat)
    return Prepared(request, threats, tuple(scan(request.model, request.data, positions)))


def _fit(request: Request, threats: Sequence[Threat], positions: list[int]) -> None:
    """A threat that does not fit the samples (a patch larger than the image, a target that is no class) is said now."""
    one = request.data.take(positions[:1])
    draws = Draws(row_keys(0, one.ids, "fit"))
    for threat in threats:
        if isinstance(threat.goal, Targeted) and not 0 <= threat.goal.label < request.model.classes:
            raise InputError(
                f"target {threat.goal.label} is not one of {request.model.classes} classes.", "Classes count from 0."
            )
        with suppress(NotAvailable):
            threat.set.sample(one.x, draws)


def _refuse_stochastic(model: Model) -> None:
    if model.stochastic:
        raise StochasticModel(
            f"{model.name} gives different outputs for the same input, so the margin of one draw bounds nothing.",
            "Evaluate the mean of its draws, judged by counts over fresh ones: --eot 20, or "
            "saddlepoint.adapters.averaged(model); or fix its randomness (eval mode, a seed inside the model).",
        )
