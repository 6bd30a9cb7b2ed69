"""Does a weaker adversary do better? Search without gradients, and points made for another view of the model.

    black box      scores alone break samples that the evaluation left standing
    transfer       points made for a copy of the model, trained on its scores, break them
    stand-ins      gradients of another backward (modules replaced, neighbours averaged) break them

A white-box adversary can run all three, so one that does better by more than chance says that the white-box attack was
broken (Carlini et al. 2019, "On Evaluating Adversarial Robustness"; Pintor et al. 2022). Of the stand-ins the one that
breaks most is prescribed: a cure is chosen by what it does, not by what the model looks like.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.attack import APGD, Attack, RandomSearch
from saddlepoint.core.errors import InputError
from saddlepoint.evaluation.cures import cured
from saddlepoint.evaluation.doctor.case import Case, beats, judged
from saddlepoint.evaluation.doctor.surrogate import copy_of
from saddlepoint.spec.finding import Finding


def search_of(case: Case) -> Attack:
    """The attack that needs scores alone."""
    return RandomSearch(tries=case.effort.tries)


def black_box(case: Case) -> Finding:
    """Search without gradients against the evaluation."""
    attack = search_of(case)
    success = case.attacked(attack).success.cpu()
    remedy = "The gradients mislead: replace the backward of what hides them, and search without gradients too."
    who = f"{case.effort.tries} queries ({attack.name})"
    return _compared(case, "black-box", "Scores alone do no better than gradients", who, success, remedy, ("square",))


def transfer(case: Case) -> list[Finding]:
    """Points made for a copy."""
    if case.rows.set.parametric:
        return []
    points = case.attacked(APGD(steps=case.effort.steps, loss="margin"), copy_of(case), drop=False).best_point
    with torch.no_grad():
        success = (case.margin(case.model(points), case.rows.y) <= 0).cpu()
    remedy = "Gradients of a crude copy lead further than the model's own: replace the backward of what hides them."
    title = "A copy's gradients do no better than the model's"
    return [_compared(case, "transfer", title, "points made for a copy", success, remedy, ("square",))]


def stand_ins(case: Case, candidates: list[tuple[str, ...]]) -> Finding:
    """The stand-in that breaks most, against the evaluation."""
    best: tuple[int, tuple[str, ...], Tensor] = (-1, (), torch.zeros(len(case), dtype=torch.bool))
    failed: list[str] = []
    for cures in candidates:
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
    remedy = f"Differentiate through {words}: `saddlepoint run --adapt` does."
    return _compared(case, "stand-in", title, f"gradients through {words}", success, remedy, cures)


def _compared(
    case: Case, id: str, title: str, who: str, success: Tensor, remedy: str, cures: tuple[str, ...]
) -> Finding:
    gained, lost, bad = beats(success, case.broken)
    detail = f"{who}: {gained} of n = {len(case)} samples broken that the evaluation left, {lost} of its missed"
    if not bad:
        return Finding(id, title, "pass", float(gained), detail, unit="samples")
    return Finding(id, title, judged(bad), float(gained), detail, remedy, "samples", cures=cures)
