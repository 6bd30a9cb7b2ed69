"""Can the model's gradients be used? Absent, zero, saturated, or pointing nowhere.

    unavailable     ∇m is zero or not finite at x0 and at random points of S(x0)      Pintor et al. 2022
    saturated       the float32 cross-entropy's gradient is exactly 0 where ∇m is not   (logits × 100)
    misleading      a step of ε/10 along −∇m lowers the margin less than the best of eight random steps of equal size

All three look at the model as a plain attack sees it: with the stand-in for its gradient where it has one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from saddlepoint.core.errors import NotAvailable
from saddlepoint.evaluation.doctor.case import Case, Question
from saddlepoint.spec import Model
from saddlepoint.spec.finding import Finding

_FEW = 0.05  # share of samples that a sound network may lose to dead units
_LOST = 0.25  # share of samples where chance beats the gradient
_STEP = 10
_RANDOM = 8

Loss = Callable[[Tensor, Tensor], Tensor]

UNAVAILABLE = Question(
    "unavailable-gradients",
    "Gradients are there",
    "Replace the backward of the modules that stop them (BPDA), and search without gradients too.",
    ("square",),
)
SATURATED = Question(
    "saturated-loss",
    "The cross-entropy does not saturate",
    "Attack with the margin or DLR. The attacks here are safe: their ce is the log-odds, which does not saturate.",
    ("loss:margin",),
    "warn",
)
MISLEADING = Question(
    "misleading-gradients",
    "The gradient leads further than chance",
    "Replace the backward of the modules whose gradient misleads, average over neighbours, search without gradients.",
    ("square",),
)


def gradients(case: Case) -> list[Finding]:
    """Availability, saturation, direction."""
    if not case.differentiable:
        why = next((n for n in case.model.notes if n.startswith("access SCORES")), "no gradient can be asked for")
        return [UNAVAILABLE.finding(True, 1.0, why)]
    alive = _alive(case, case.margin)
    dead = int((~alive).sum())
    more = " have a zero or non-finite gradient of the margin"
    first = UNAVAILABLE.of_samples(dead > _FEW * len(case), dead, len(case), more)
    return [first, _saturated(case, alive), *_direction(case)]


def slope(model: Model, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """∇ loss at x, zero where it does not depend on x."""
    points = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        value = loss((model.slopes or model)(points), y).sum()
        if not value.requires_grad:
            return torch.zeros_like(x)
        (found,) = torch.autograd.grad(value, points, allow_unused=True)
    return torch.zeros_like(x) if found is None else found


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """The textbook loss in the model's precision, whose slope rounds to 0 on a confident network."""
    return functional.cross_entropy(z, y, reduction="none")


def _alive(case: Case, loss: Loss) -> Tensor:
    """(n,) whether the gradient has a direction at x0 and at a random point of the set."""
    found = torch.ones(len(case), dtype=torch.bool)
    for points in (case.rows.x0, case.near("slope")):
        top = slope(case.model, points, case.rows.y, loss).flatten(1).abs().amax(1)
        found &= ((top > 0) & top.isfinite()).cpu()
    return found


def _saturated(case: Case, alive: Tensor) -> Finding:
    dead = int((alive & ~_alive(case, cross_entropy)).sum())
    more = " lose the gradient of the float32 cross-entropy, not that of the margin"
    return SATURATED.of_samples(dead > _FEW * len(case), dead, len(case), more)


def _direction(case: Case) -> list[Finding]:
    """Does the gradient lead anywhere that chance does not?"""
    rows = case.rows
    if rows.set.parametric:
        return []
    uphill = slope(case.model, rows.x0, rows.y, case.margin).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    try:
        small = rows.set.resized(rows.set.size / _STEP)
        downhill = small.lmo(rows.x0, -uphill)
    except NotAvailable:
        return []
    with torch.no_grad():
        at_rest = case.margin(case.model(rows.x0), rows.y)
        gain = at_rest - case.margin(case.model(downhill), rows.y)
        chance = torch.full_like(gain, -torch.inf)
        for i in range(_RANDOM):
            noise = case.draws(f"direction-{i}").normal(tuple(rows.x0.shape[1:]), dtype=rows.x0.dtype)
            points = small.lmo(rows.x0, noise)
            chance = torch.maximum(chance, at_rest - case.margin(case.model(points), rows.y))
    lost = int((~(gain > chance)).sum())
    more = f": the best of {_RANDOM} random steps of ε / {_STEP} lowers the margin at least as far"
    return [MISLEADING.of_samples(lost > _LOST * len(case), lost, len(case), more)]
