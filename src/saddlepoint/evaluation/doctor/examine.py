"""The examination of a model, or of what a ledger says about one.

Samples that the model gets right are asked about, those that an evaluation left standing first: they carry its claim.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from saddlepoint.adapters.averaging import averaged
from saddlepoint.attack import Rows
from saddlepoint.core.errors import InputError
from saddlepoint.data import Batch
from saddlepoint.evaluation.doctor.answers import answers
from saddlepoint.evaluation.doctor.case import Case, Effort
from saddlepoint.evaluation.doctor.gradients import gradients
from saddlepoint.evaluation.doctor.modules import candidates, modules
from saddlepoint.evaluation.doctor.optimisation import optimisation
from saddlepoint.evaluation.doctor.rivals import black_box, stand_ins, transfer
from saddlepoint.spec import Model, Threat
from saddlepoint.spec.finding import Finding

DRAWS = 8  # of a random model, in each of its answers
LEAST = 4  # samples below which nothing is concluded


def examine(
    model: Model,
    batch: Batch,
    threat: Threat,
    effort: Effort | None = None,
    broken: Bool[Tensor, " n"] | None = None,
) -> list[Finding]:
    """What is wrong with attacking this model in the usual way; with `broken`, with the evaluation that found that.

    `batch` holds the samples to ask about; those that the model gets wrong are left out, and no more than
    `effort.samples` are used.
    """
    return asked(case_of(model, batch, threat, effort or Effort(), broken))


def case_of(
    model: Model, batch: Batch, threat: Threat, effort: Effort, broken: Bool[Tensor, " n"] | None = None
) -> Case:
    """The case: correct samples, and the threat inside the model's domain."""
    threat = threat.within(model.domain)
    with torch.no_grad():
        at_rest = threat.goal.margin(model(batch.x), batch.y)
    right = ((at_rest > 0) & at_rest.isfinite()).nonzero()[:, 0][: effort.samples]
    ids = tuple(batch.ids[i] for i in right.tolist())
    rows = Rows(batch.x[right], batch.y[right], ids, threat.set, threat.goal)
    return Case(model, rows, effort, None if broken is None else broken[right.cpu()].cpu())


def asked(case: Case) -> list[Finding]:
    """Every question that applies."""
    model = case.model
    if len(case) < LEAST:
        detail = f"the model gets {len(case)} of the samples right; at least {LEAST} are needed"
        return [Finding("samples", "There is something to examine", "unknown", float(len(case)), detail)]
    found = answers(case)
    case, trouble = settled(case)
    if trouble is not None:
        return [*found, trouble]
    found += [*gradients(case), *optimisation(case), black_box(case), *transfer(case)]
    hiding, suspected = modules(model, case)
    troubled = any(finding.fires for finding in found)
    return [*found, hiding, stand_ins(case, candidates(case, suspected, troubled))]


def settled(case: Case) -> tuple[Case, Finding | None]:
    """A random model as the mean of a few draws: one lucky draw would be called a success."""
    if not case.model.stochastic:
        return case, None
    try:
        return replace(case, model=averaged(case.model, DRAWS, case.effort.seed)), None
    except InputError as error:
        title = "Randomness can be named"
        return case, Finding("randomness-keyed", title, "unknown", None, error.what, error.remedy)
