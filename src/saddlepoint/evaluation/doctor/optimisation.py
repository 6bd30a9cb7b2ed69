"""Did the search end where it should? Still moving, more steps, larger sets, no limit at all.

    incomplete      rescaled to [0, 1] along the path, the best loss rises by more than 0.05 in the last 10 steps
                    Pintor et al. 2022, "Indicators of Attack Failure"
    more steps      four times the steps break more samples than the evaluation did, by more than chance
    larger ε        S(ε/2) ⊂ S(ε) ⊂ S(2ε): what falls in the smaller set and stands in the larger one was given up early
    no limit        in the whole data box there is always a point of another class: robust accuracy must be 0

The first three are asked of samples that stand; a sample that has fallen is settled.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from saddlepoint.attack import APGD, Attack, Rows
from saddlepoint.attack.protocol import Answers, Ask
from saddlepoint.core.errors import NotAvailable
from saddlepoint.evaluation.doctor.case import Case, beats, judged, shared
from saddlepoint.spec.finding import Finding

_WINDOW, _MOVING = 10, 0.05
_FEW = 0.1
_MORE = 4


@dataclass(frozen=True)
class Traced(Attack[Any]):
    """Another attack, whose losses are written down: one (b,) entry of `log` per answer. For one cohort only."""

    name: ClassVar[str] = "traced"
    inner: Attack[Any]
    log: list[Tensor] = field(default_factory=list, compare=False)
    restarts: int = 1

    @property
    def forwards(self) -> int:
        return self.inner.forwards

    @property
    def backwards(self) -> int:
        return self.inner.backwards

    @property
    def stream(self) -> str:
        return self.inner.stream

    def init(self, rows: Rows) -> tuple[Any, Ask]:
        return self.inner.init(rows)

    def step(self, state: Any, answers: Answers) -> tuple[Any, Ask | None]:
        if answers.values is not None:
            self.log.append(answers.values.detach().cpu().double())
        return self.inner.step(state, answers)


def optimisation(case: Case) -> list[Finding]:
    """Convergence, steps, sizes."""
    if not case.differentiable:
        return []
    return [_incomplete(case), _steps(case), *_sizes(case), *_unbounded(case)]


def _incomplete(case: Case) -> Finding:
    traced = Traced(replace(case.effort.plain, restarts=1))
    case.attacked(traced, drop=False)
    best = torch.stack(traced.log).nan_to_num(nan=-torch.inf).cummax(0).values
    standing = ~case.broken
    moving = standing & (still_rising(best) > _MOVING)
    n, count = int(standing.sum()), int(moving.sum())
    value, words, ci95 = case.share(count, n)
    bad = count > max(1, _FEW * len(case)) and value > 0.5
    title = "The search has come to rest"
    detail = (
        f"{words} that stand still gain {_MOVING:.0%} of their path in the last {_WINDOW} of {case.effort.steps} steps"
    )
    remedy = f"More steps: {_MORE * case.effort.steps}." if bad else ""
    cures = (f"steps:{_MORE * case.effort.steps}",) if bad else ()
    return Finding(
        "incomplete-optimisation", title, judged(bad, "warn"), value, detail, remedy, "share of samples", ci95, cures
    )


def still_rising(best: Tensor) -> Tensor:
    """(n,) of a path's best losses (T, n): the rise of the last steps as a share of the whole; 0 on a flat path."""
    whole = best[-1] - best[0]
    late = best[-1] - best[-1 - min(_WINDOW, len(best) - 1)]
    return torch.where(whole > 0, late / whole, 0.0).nan_to_num()


def _steps(case: Case) -> Finding:
    longer = case.attacked(replace(case.effort.plain, steps=_MORE * case.effort.steps))
    gained, lost, bad = beats(longer.success.cpu(), case.broken)
    title = "More steps find no more"
    steps = _MORE * case.effort.steps
    detail = f"{steps} steps break {gained} of n = {len(case)} samples that the evaluation left, and miss {lost} of its"
    remedy = f"More steps: {steps}." if bad else ""
    return Finding(
        "more-steps",
        title,
        judged(bad),
        float(gained),
        detail,
        remedy,
        "samples",
        None,
        (f"steps:{steps}",) if bad else (),
    )


def _sizes(case: Case) -> list[Finding]:
    size = case.rows.set.size
    try:
        sets = [case.rows.set.resized(size / 2), case.rows.set.resized(size * 2)]
    except NotAvailable:
        return []
    assert case.white is not None
    half, double = (case.attacked(case.effort.plain, within=s.within(case.model.domain)).success.cpu() for s in sets)
    same = case.white.success.cpu()
    given_up = (half & ~same) | (same & ~double)
    bad = int(given_up.sum()) > _FEW * len(case)
    more = " fall in a set and stand in one twice as large"
    return [shared(case, int(given_up.sum()), "larger-sizes", "A larger set never hurts the attack", judged(bad), more)]


def _unbounded(case: Case) -> list[Finding]:
    domain = case.model.domain
    if case.rows.set.parametric or not bool(torch.isfinite(torch.cat([*domain.limits(case.rows.x0[:1])])).all()):
        return []
    standing = torch.ones(len(case), dtype=torch.bool)
    for loss in ("margin", "ce"):
        attack = APGD(steps=case.effort.steps, loss=loss)
        standing &= ~case.attacked(attack, within=domain).success.cpu()
    count = int(standing.sum())
    title = "Without a limit everything falls"
    return [
        shared(
            case,
            count,
            "unbounded",
            title,
            judged(count > _FEW * len(case)),
            " stand against a white-box attack in the whole data box",
        )
    ]
