"""Does the model give one answer? Randomness, the rest of the batch, and jumps under tiny noise.

    instability = median over samples of  mean over ρ of |m(x + ρ) − m(x)| / |m(x)|,   ρ ~ S(x)'s shape at ε / 100

Unstable predictions are an indicator of Pintor et al. 2022 ("Indicators of Attack Failure"), here on the margin in
place of the cross-entropy, which is 0 on a confident network and divides by itself. A smooth network moves by about a
hundredth of what ε moves it; one that jumps (k-winners, thresholds, random layers) moves by much more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.core.errors import NotAvailable
from saddlepoint.evaluation.doctor.case import Case, judged, shared
from saddlepoint.spec.finding import Finding

_CALLS = 4
_ROUNDING = 1e-4  # of the largest logit: sums in another order
_JUMP = 0.1  # relative change of the margin at a hundredth of ε
_TINY = 100
_DRAWS = 8


@torch.no_grad()
def answers(case: Case) -> list[Finding]:
    """Randomness, dependence on the batch, stability."""
    first = case.model(case.rows.x0)
    return [_randomness(case, first), _alone(case, first), *_stability(case, first)]


def _randomness(case: Case, first: Tensor) -> Finding:
    moved = torch.zeros(len(case), dtype=torch.bool)
    flipped = torch.zeros(len(case), dtype=torch.bool)
    for _ in range(_CALLS):
        again = case.model(case.rows.x0)
        moved |= _differ(again, first)
        flipped |= (again.argmax(1) != first.argmax(1)).cpu()
    bad = bool(moved.any())
    found = shared(
        case,
        int(moved.sum()),
        "randomness",
        "Two calls on one input agree",
        judged(bad),
        f" answered differently in {_CALLS + 1} calls, {int(flipped.sum())} with another label",
    )
    return (
        _with(found, "Average gradients and predictions over draws: one lucky draw is no success.", "eot:32")
        if bad
        else found
    )


def _alone(case: Case, first: Tensor) -> Finding:
    if case.model.stochastic:
        return Finding("batch", "An answer depends on its own sample alone", "pass", None, "random; see randomness")
    some = case.rows.x0[:8]
    alone = torch.cat([case.model(x[None]) for x in some])
    moved = int(_differ(alone, first[: len(some)]).sum())
    value, words, ci95 = case.share(moved, len(some))
    bad = moved > 0
    remedy = (
        "Evaluate with --batch 1, as deployed: a sample's neighbours are not the adversary's to choose." if bad else ""
    )
    title = "An answer depends on its own sample alone"
    detail = f"{words} answered differently when alone"
    return Finding("batch", title, judged(bad), value, detail, remedy, "share of samples", ci95)


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
    found = Finding(
        "unstable-predictions",
        "Tiny noise moves the margin little",
        judged(value > _JUMP),
        value,
        f"median over n = {len(case)} samples, noise of ε / {_TINY}, {_DRAWS} draws each",
        unit="relative change of the margin",
    )
    if value <= _JUMP:
        return [found]
    return [
        _with(
            found, "Differentiate an average over neighbours (smoothed gradients), with more restarts.", "smooth:0.25"
        )
    ]


def _differ(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b).abs().amax(1) > _ROUNDING * (1 + b.abs().amax(1))).cpu()


def _with(found: Finding, remedy: str, *cures: str) -> Finding:
    return Finding(
        found.id, found.title, found.verdict, found.value, found.detail, remedy, found.unit, found.ci95, cures
    )
