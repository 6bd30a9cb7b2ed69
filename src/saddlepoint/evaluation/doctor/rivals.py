"""Does a weaker adversary do better? Search without gradients, and points made for another view of the model.

    black box      scores alone break samples that the evaluation left standing
    transfer       points made for a copy of the model, trained on its scores, break them
    stand-ins      gradients of another backward (modules replaced, neighbours averaged) break them

A white-box adversary can run all three, so one that does better by more than chance says that the white-box attack was
broken (Carlini et al. 2019, "On Evaluating Adversarial Robustness"; Pintor et al. 2022). Of the stand-ins the one that
breaks most is prescribed: a cure is chosen by what it does, not by what the model looks like.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from saddlepoint.attack import APGD, Attack, RandomSearch, Square
from saddlepoint.core.errors import InputError
from saddlepoint.evaluation.cures import cured
from saddlepoint.evaluation.doctor.case import Case, Question, beats
from saddlepoint.evaluation.doctor.surrogate import copy_of
from saddlepoint.geometry import L1, L2, Linf
from saddlepoint.spec.finding import Finding

_ENOUGH = 0.85  # share of the samples broken at which no further stand-in is tried

BLACK_BOX = Question(
    "black-box",
    "Scores alone do no better than gradients",
    "The gradients mislead: replace the backward of what hides them, and search without gradients too.",
    ("square",),
)
TRANSFER = Question(
    "transfer",
    "A copy's gradients do no better than the model's",
    "Gradients of a crude copy lead further than the model's own: replace the backward of what hides them.",
    ("square",),
)


def search_of(case: Case) -> Attack:
    """The attack that needs scores alone: Square where it has a rule for the set, else random points."""
    square = isinstance(case.rows.set, (Linf, L2, L1))
    return Square(case.effort.tries) if square else RandomSearch(case.effort.tries)


def black_box(case: Case) -> Finding:
    """Search without gradients against the evaluation."""
    attack = search_of(case)
    who = f"{case.effort.tries} queries ({attack.name})"
    return _compared(case, BLACK_BOX, who, case.attacked(attack).success.cpu())


def transfer(case: Case) -> list[Finding]:
    """Points made for a copy."""
    if case.rows.set.parametric:
        return []
    points = case.attacked(APGD(steps=case.effort.steps, loss="margin"), copy_of(case), drop=False).best_point
    with torch.no_grad():
        success = (case.margin(case.model(points), case.rows.y) <= 0).cpu()
    return [_compared(case, TRANSFER, "points made for a copy", success)]


def stand_ins(case: Case, candidates: list[tuple[str, ...]]) -> Finding:
    """The stand-in that breaks most, against the evaluation."""
    best: tuple[int, tuple[str, ...], Tensor] = (-1, (), torch.zeros(len(case), dtype=torch.bool))
    failed: list[str] = []
    for cures in candidates:
        if best[0] >= _ENOUGH * len(case):
            break  # later candidates cost more
        try:
            view = cured(case.model, cures)
        except InputError as error:
            failed.append(f"{' '.join(cures)}: {error.what}")
            continue
        success = case.attacked(APGD(steps=case.effort.steps, loss="margin"), view).success.cpu()
        if int(success.sum()) > best[0]:
            best = (int(success.sum()), cures, success)
    _, cures, success = best
    title = "No stand-in's gradients do better than the model's"
    if not cures:
        why = failed[0] if failed else "no module hides gradients: nothing to replace"
        return Finding("stand-in", title, "unknown" if failed else "pass", None, why)
    words = " ".join(cures)
    question = Question("stand-in", title, f"Differentiate through {words}: `saddlepoint run --adapt` does.", cures)
    found = _compared(case, question, f"gradients through {words}", success)
    # without gradients of its own a model can be attacked through the best stand-in only, whatever that breaks here
    return found if found.fires or case.differentiable else replace(found, cures=cures)


def _compared(case: Case, question: Question, who: str, success: Tensor) -> Finding:
    gained, lost, bad = beats(success, case.broken)
    detail = f"{who}: {gained} of n = {len(case)} samples broken that the evaluation left, {lost} of its missed"
    return question.finding(bad, float(gained), detail, "samples")
