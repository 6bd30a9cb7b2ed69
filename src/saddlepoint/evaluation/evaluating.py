"""The main job as one function: model + data + threat → evidence → bracket."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saddlepoint.data import Data
from saddlepoint.evaluation.plan import Plan, plan_named
from saddlepoint.evaluation.request import Request, prepare
from saddlepoint.evaluation.running import run
from saddlepoint.evaluation.seconds import seconds_of
from saddlepoint.geometry import PerturbationSet
from saddlepoint.ledger import Ledger
from saddlepoint.spec import Model, Threat


def evaluate(
    model: Model,
    data: Data,
    threats: PerturbationSet | Threat | Sequence[PerturbationSet | Threat],
    plan: str | Plan = "standard",
    *,
    n: int | None = None,
    budget: str | float | None = None,
    ledger: str | Path | Ledger | None = None,
) -> Ledger:
    """Evaluate a model on data under one or several threats; returns the ledger, whose `bracket()` is the claim.

    Args:
        model: from `from_torch`, `from_onnx`, `from_sklearn`, `from_callable`.
        data: from `data.load` or `from_arrays`.
        threats: a set (`Linf("8/255")`), a `Threat`, or several of them.
        plan: quick, standard or strong, or a `Plan`.
        n: the first n samples; None for all.
        budget: wall time, "10m" or seconds; None runs the plan to its end.
        ledger: a path or an open ledger; the same call again resumes. None: a temporary one.

    Seeds, batches, workers and progress are settings of `Request`, which `run` carries out.

    Raises:
        InputError and its children for what cannot be evaluated; Contradiction when a method proves unsound.
    """
    several = [threats] if isinstance(threats, (PerturbationSet, Threat)) else list(threats)
    request = Request(
        model=model,
        data=data,
        threats=tuple(t if isinstance(t, Threat) else Threat(t) for t in several),
        plan=plan_named(plan) if isinstance(plan, str) else plan,
        n=n,
        budget=seconds_of(budget) if isinstance(budget, str) else budget,
    )
    prepared = prepare(request)  # a refusal leaves no ledger behind
    book = ledger if isinstance(ledger, Ledger) else Ledger.temporary() if ledger is None else Ledger(ledger)
    try:
        run(prepared, book)
    except BaseException:
        if book is not ledger:
            book.close()
        raise
    return book
