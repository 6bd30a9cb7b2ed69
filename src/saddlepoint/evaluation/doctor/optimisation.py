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
from saddlepoint.evaluation.doctor.case import Case, Question, beats
from saddlepoint.spec.finding import Finding

_WINDOW, _MOVING = 10, 0.05
_FEW = 0.1
_MORE = 4

LARGER = Question(
    "larger-sizes",
    "A larger set never hurts the attack",
    "The search gives up early in the larger set: more restarts, smaller first steps, another loss.",
    ("loss:margin",),
)
UNBOUNDED = Question(
    "unbounded",
    "Without a limit everything falls",
    "The attack does not find what is there: replace the backward of what hides gradients, take another loss.",
    ("loss:margin", "square"),
)


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
        state, ask = self.inner.init(rows)
        return state, replace(ask, values=True)

    def step(self, state: Any, answers: Answers) -> tuple[Any, Ask | None]:
        if answers.values is not None:
            self.log.append(answers.values.detach().cpu().double())
        state, ask = self.inner.step(state, answers)
        return state, None if ask is None else replace(ask, values=True)


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
    n, count = int(standing.sum()), int((standing & (still_rising(best) > _MOVING)).sum())
    steps = case.effort.steps
    more = f" that stand still gain {_MOVING:.0%} of their path in the last {_WINDOW} of {steps} steps"
    question = Question(
        "incomplete-optimisation",
        "The search has come to rest",
        f"More steps: {_MORE * steps}.",
        (f"steps:{_MORE * steps}",),
        "warn",
    )
    return question.of_samples(count > _FEW * len(case) and 2 * count > n, count, n, more)


def still_rising(best: Tensor) -> Tensor:
    """(n,) of a path's best losses (T, n): the rise of the last steps as a share of the whole; 0 on a flat path."""
    whole = best[-1] - best[0]
    late = best[-1] - best[-1 - min(_WINDOW, len(best) - 1)]
    return torch.where(whole > 0, late / whole, 0.0).nan_to_num()


def _steps(case: Case) -> Finding:
    steps = _MORE * case.effort.steps
    longer = case.attacked(replace(case.effort.plain, steps=steps))
    gained, lost, bad = beats(longer.success.cpu(), case.broken)
    detail = f"{steps} steps: {gained} of n = {len(case)} samples broken that the evaluation left, {lost} of its missed"
    question = Question("more-steps", "More steps find no more", f"More steps: {steps}.", (f"steps:{steps}",))
    return question.finding(bad, float(gained), detail, "samples")


def _sizes(case: Case) -> list[Finding]:
    size = case.rows.set.size
    try:
        sets = [case.rows.set.resized(size / 2), case.rows.set.resized(size * 2)]
    except NotAvailable:
        return []
    assert case.white is not None  # asked of differentiable models only
    half, double = (case.attacked(case.effort.plain, within=s.within(case.model.domain)).success.cpu() for s in sets)
    same = case.white.success.cpu()
    count = int(((half & ~same) | (same & ~double)).sum())
    more = " fall in a set and stand in one twice as large"
    return [LARGER.of_samples(count > _FEW * len(case), count, len(case), more)]


def _unbounded(case: Case) -> list[Finding]:
    domain = case.model.domain
    limits = torch.cat([*domain.limits(case.rows.x0[:1])])
    if case.rows.set.parametric or not bool(limits.isfinite().all()):
        return []
    standing = torch.ones(len(case), dtype=torch.bool)
    for loss in ("margin", "ce"):
        if bool(standing.any()):
            attack = APGD(steps=case.effort.steps, loss=loss)
            standing &= ~case.attacked(attack, within=domain).success.cpu()
    count = int(standing.sum())
    more = " stand against a white-box attack in the whole data box"
    return [UNBOUNDED.of_samples(count > _FEW * len(case), count, len(case), more)]
