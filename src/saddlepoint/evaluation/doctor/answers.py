"""Does the model give one answer? Randomness, the rest of the batch, and jumps under tiny noise.

    instability = median over samples of  mean over ρ of |m(x + ρ) − m(x)| / |m(x)|,   ρ ~ S at a hundredth of its size

Unstable predictions are an indicator of Pintor et al. 2022 ("Indicators of Attack Failure"), here on the margin in
place of the cross-entropy, which is 0 on a confident network and divides by itself. A smooth network moves by about a
hundredth of what ε moves it; one that jumps (k-winners, thresholds, random layers) moves by much more.
Cost: 13 forwards a sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.core.errors import NotAvailable
from saddlepoint.evaluation.doctor.case import Case, Question
from saddlepoint.spec.finding import Finding

_CALLS = 4
_ROUNDING = 1e-4  # of the largest logit: sums in another order
_JUMP = 0.1  # relative change of the margin at a hundredth of ε
_TINY = 100
_DRAWS = 8
_ALONE = 8

RANDOMNESS = Question(
    "randomness",
    "Two calls on one input agree",
    "Average gradients and predictions over draws: one lucky draw is no success.",
    ("eot:20",),
)
BATCH = Question(
    "batch",
    "An answer depends on its own sample alone",
    "Evaluate with --batch 1, as deployed: a sample's neighbours are not the adversary's to choose.",
)
UNSTABLE = Question(
    "unstable-predictions",
    "Tiny noise moves the margin little",
    "Differentiate an average over neighbours, and give the attack more restarts.",
)


@torch.no_grad()
def answers(case: Case) -> list[Finding]:
    """Randomness, dependence on the batch, stability."""
    first = case.model(case.rows.x0)
    return [_randomness(case, first), *_alone(case, first), *_stability(case, first)]


def _randomness(case: Case, first: Tensor) -> Finding:
    moved = torch.zeros(len(case), dtype=torch.bool)
    flipped = torch.zeros(len(case), dtype=torch.bool)
    for _ in range(_CALLS):
        again = case.model(case.rows.x0)
        moved |= _differ(again, first)
        flipped |= (again.argmax(1) != first.argmax(1)).cpu()
    count = int(moved.sum())
    more = f" answered differently in {_CALLS + 1} calls, {int(flipped.sum())} with another label"
    return RANDOMNESS.of_samples(count > 0, count, len(case), more)


def _alone(case: Case, first: Tensor) -> list[Finding]:
    if case.model.stochastic:
        return []  # every call differs
    some = case.rows.x0[:_ALONE]
    alone = torch.cat([case.model(x[None]) for x in some])
    count = int(_differ(alone, first[: len(some)]).sum())
    return [BATCH.of_samples(count > 0, count, len(some), " answered differently when alone")]


def _stability(case: Case, first: Tensor) -> list[Finding]:
    try:
        tiny = case.rows.set.resized(case.rows.set.size / _TINY)
    except NotAvailable:
        return []
    x0, y = case.rows.x0, case.rows.y
    at_rest = case.margin(first, y)
    change = torch.zeros_like(at_rest)
    for i in range(_DRAWS):
        points = tiny.render(x0, tiny.sample(x0, case.draws(f"tiny-{i}")))
        change += (case.margin(case.model(points), y) - at_rest).abs() / _DRAWS
    relative = (change / at_rest.abs().clamp_min(torch.finfo(change.dtype).tiny)).nan_to_num(posinf=1e6, nan=1e6)
    value = float(relative.median())
    detail = f"median over n = {len(case)} samples, noise of ε / {_TINY}, {_DRAWS} draws each"
    return [UNSTABLE.finding(value > _JUMP, value, detail, "relative change of the margin")]


def _differ(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b).abs().amax(1) > _ROUNDING * (1 + b.abs().amax(1))).cpu()
