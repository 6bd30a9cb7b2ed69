"""Replay of witnesses: is the point allowed, and what does the deployed model say there?

    m* ≤ margin(f(x'), y)  for any x' in S(x0)

The margin is read in the deployed precision in a batch of one and in a batch of up to 64 witnesses; kernels may
differ by batch shape, so the larger (weaker) of the two is the value, and disagreement is recorded. Where the graph
is known the margin is read in float64 too, with an allowance for float64's own rounding: that tells a numerical
tie from a contradiction.

A randomised predictor has no margin to be read off: there fresh draws are counted (draws.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from saddlepoint.check.draws import Counted, count
from saddlepoint.check.membership import inside
from saddlepoint.check.render import in_range, render
from saddlepoint.graph.ir import Graph
from saddlepoint.spec.goal import Targeted, Untargeted
from saddlepoint.spec.model import Model

BATCH = 64
_FLOAT64_ALLOWANCE = 1e-9  # of the largest logit: float64 forward errors of the deepest nets seen are below 1e-12


@dataclass(frozen=True)
class Replay:
    """What was found per witness. `value` is the upper bound it shows (NaN where it shows none); `size` is the largest
    of its logits, by which the rounding of a margin is measured."""

    allowed: Bool[Tensor, " b"]
    value: Float[Tensor, " b"]
    size: Float[Tensor, " b"]
    disagree: Bool[Tensor, " b"]
    margin_f64_upper: Float[Tensor, " b"] | None
    survives_8bit: Bool[Tensor, " b"] | None
    counted: Counted | None = None


@torch.no_grad()
def replay(
    model: Model,
    threat: str,
    x0: Shaped[Tensor, "b ..."],
    y: Int64[Tensor, " b"],
    witness: Shaped[Tensor, "b ..."] | None = None,
    padded: bool = False,
) -> Replay:
    """Re-check witnesses (points, or parameters of a rendered set) of samples x0 with labels y.

    `witness=None` takes each sample as its own witness. `padded` fills every batch up by repeating its last row, so
    that a value does not depend on how many witnesses are looked at together.
    """
    described = json.loads(threat)
    goal = _goal(described["goal"])
    points, allowed = (x0, _itself(described["set"], x0)) if witness is None else _points(described["set"], x0, witness)
    if model.sampling is not None:
        return _counted(model, goal, points, y, allowed.cpu())
    scores = torch.cat([_scores(model, p, padded) for p in points.split(BATCH)])
    many = goal.margin(scores, y)
    one = many.clone()
    for i in torch.nonzero(many <= 0)[:, 0].tolist():  # only a claim of "broken" rests on the batch layout
        one[i] = goal.margin(model(points[i : i + 1]), y[i : i + 1])[0]
    value = torch.where(allowed.to(many.device), torch.maximum(one, many), torch.nan)
    broken = value <= 0
    return Replay(
        allowed=allowed,
        value=value.cpu(),
        size=scores.abs().amax(1).cpu(),
        disagree=((one <= 0) != (many <= 0)).cpu(),
        margin_f64_upper=_float64(model, goal, points, y, padded) if isinstance(model.graph, Graph) else None,
        survives_8bit=_rounded(model, goal, points, y, broken) if _is_image(model) else None,
    )


def _counted(model: Model, goal: Untargeted | Targeted, points: Tensor, y: Tensor, allowed: Tensor) -> Replay:
    """What counts over fresh draws show."""
    parts = [count(model, goal, p, t) for p, t in zip(points.split(BATCH), y.split(BATCH), strict=True)]
    counted = Counted(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Counted)))
    value = torch.where(allowed, counted.value, torch.nan)
    return Replay(allowed, value, torch.ones_like(value), torch.zeros_like(allowed), None, None, counted)


def _goal(described: dict[str, Any]) -> Untargeted | Targeted:
    return Targeted(described["label"]) if described["kind"] == "targeted" else Untargeted()


def _points(described: dict[str, Any], x0: Tensor, witness: Tensor) -> tuple[Tensor, Tensor]:
    """The points and whether they are allowed; parameters are rendered here, by the checker's own code."""
    if described["kind"] == "spatial":
        return render(described, x0, witness.to(x0)), in_range(described, witness)
    return witness, inside(described, x0, witness)


def _itself(described: dict[str, Any], x0: Tensor) -> Tensor:
    """x0 lies in every set about x0, as long as it lies in the data box."""
    box = described if described["kind"] == "box" else described.get("box")
    return inside(box, x0, x0) if box else x0.isfinite().flatten(1).all(1).cpu()


def _scores(fn: Callable[[Tensor], Tensor], points: Tensor, padded: bool) -> Tensor:
    missing = BATCH - len(points)
    if not padded or missing == 0:
        return fn(points)
    return fn(torch.cat([points, points[-1:].expand(missing, *points.shape[1:])]))[: len(points)]


def _float64(model: Model, goal: Untargeted | Targeted, points: Tensor, y: Tensor, padded: bool) -> Tensor:
    graph = model.graph
    assert isinstance(graph, Graph)  # narrowing for the type checker; the caller has looked
    wide = graph.to(torch.float64)
    margins = []
    for p, t in zip(points.split(BATCH), y.split(BATCH), strict=True):
        z = _scores(wide, p.double(), padded)
        margins.append(goal.margin(z, t) + _FLOAT64_ALLOWANCE * (1 + z.abs().amax(1)))
    return torch.cat(margins).cpu()


def _is_image(model: Model) -> bool:
    unit = model.domain.lower, model.domain.upper
    return len(model.shape) == 3 and model.shape[0] in (1, 3) and unit in ((0.0, 1.0), (0, 1), ((0.0,), (1.0,)))


def _rounded(model: Model, goal: Untargeted | Targeted, points: Tensor, y: Tensor, broken: Tensor) -> Tensor:
    """Does the witness still break the model when stored with 8 bits a channel? Reported, never decisive."""
    survives = torch.zeros_like(broken)
    for i in torch.nonzero(broken)[:, 0].split(BATCH):
        if len(i) == 0:  # not every model takes an empty batch
            continue
        coarse = torch.round(points[i] * 255) / 255
        survives[i] = goal.margin(model(coarse), y[i]) <= 0
    return survives.cpu()
