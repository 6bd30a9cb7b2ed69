"""Judging a point of a randomised predictor: fresh draws are counted, and the count's limit is what is claimed.

    m(x) = P(right) − P(wrong) = 1 − 2 P_ω(f(x, ω) wrong) ≤ 1 − 2 L(k, n)     with probability ≥ 1 − failure

k of n fresh draws were wrong, L is the one-sided lower limit of Clopper and Pearson. The point breaks the predictor
(m ≤ 0) only if L ≥ 1/2: a single answer is wrong at least as often as right. One lucky draw shows nothing: L(1, 256) is
about 4e-9 at failure 1e-6. The draws that the point was found with are not among the n, and how many are drawn is
decided by those: all where half of them are wrong, else as many as they were.

A smoothed predictor answers what most draws answer: m(x) = P(y) − max_j P(j). There the first draws choose the rival j,
and among the fresh ones that answer y or j the rival's k of n are binomial with ρ = P(j) / (P(j) + P(y)), whatever n:

    m(x) ≤ P(y) − P(j) = (P(y) + P(j)) (1 − 2 ρ) ≤ max(0, 1 − 2 L(k, n))         Cohen et al. 2019, PREDICT
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saddlepoint.check.counts import clopper_pearson
from saddlepoint.core.errors import NotAvailable
from saddlepoint.spec.goal import Goal, Untargeted
from saddlepoint.spec.model import Model, Sampling


@dataclass(frozen=True)
class Counted:
    """Per point: wrong of drawn, the upper bound 1 − 2 L on its margin (float64), and how probably that fails.

    Of a smoothed predictor: the rival's answers, of those for y or the rival."""

    wrong: Int64[Tensor, " b"]
    drawn: Int64[Tensor, " b"]
    value: Float[Tensor, " b"]
    failure_probability: Float[Tensor, " b"]


@torch.no_grad()
def count(model: Model, goal: Goal, points: Float[Tensor, "b ..."], y: Int64[Tensor, " b"]) -> Counted:
    """Count wrong answers at points of a model with `sampling` (adapters.averaged). Raises NotAvailable for others."""
    how = model.sampling
    if how is None:
        raise NotAvailable(f"{model.name} has no draws to count.", "Give averaged(model, draws) of a random model.")
    if how.plurality:
        return _plurality(model, how, goal, points, y)
    votes = torch.zeros_like(y)
    for i in range(how.draws):
        votes += goal.margin(how.draw(points, i), y) <= 0
    drawn = torch.where(2 * votes >= how.draws, how.confirm, min(how.draws, how.confirm))
    wrong = torch.zeros_like(y)
    for i in range(how.confirm):
        left = (i < drawn).nonzero()[:, 0]
        if len(left) == 0:
            break
        wrong[left] += goal.margin(how.draw(points[left], how.draws + i), y[left]) <= 0
    lower = [clopper_pearson(k, n, 1 - 2 * how.failure)[0] for k, n in zip(wrong.tolist(), drawn.tolist(), strict=True)]
    limit = torch.tensor(lower, dtype=torch.float64)
    failure = how.failure * (wrong.cpu() > 0).double()  # P(wrong) ≥ 0 needs no luck
    return Counted(wrong.cpu(), drawn.cpu(), 1 - 2 * limit, failure)


def _plurality(model: Model, how: Sampling, goal: Goal, points: Tensor, y: Tensor) -> Counted:
    """The rival that the first draws choose against y, on fresh draws."""
    if not isinstance(goal, Untargeted):
        raise NotAvailable("targets of smoothed predictors are not judged.", "Ask for the untargeted threat.")
    own, place = torch.nn.functional.one_hot(y, model.classes), torch.arange(len(y), device=y.device)
    first = torch.zeros_like(own)
    for i in range(how.draws):
        first += _answers(how.draw(points, i))
    rival = (first - own * (how.draws + 1)).argmax(1)  # never y itself
    pair = torch.stack([y, rival], 1)
    near = first[place, rival] >= first[place, y]
    most = torch.where(near, how.confirm, min(how.draws, how.confirm))
    seen = torch.zeros_like(pair)
    for i in range(how.confirm):
        left = (i < most).nonzero()[:, 0]
        if len(left) == 0:
            break
        seen[left] += _answers(how.draw(points[left], how.draws + i)).gather(1, pair[left])
    wrong, drawn = seen[:, 1].cpu(), seen.sum(1).cpu()
    # nobody answered y or the rival: L(0, 0) = 0
    counts = zip(wrong.tolist(), drawn.tolist(), strict=True)
    lower = [clopper_pearson(k, n, 1 - 2 * how.failure)[0] if n else 0.0 for k, n in counts]
    limit = torch.tensor(lower, dtype=torch.float64)
    return Counted(wrong, drawn, (1 - 2 * limit).clamp(min=0.0), how.failure * (wrong > 0).double())


def _answers(z: Float[Tensor, "b k"]) -> Int64[Tensor, "b k"]:
    """One-hot; zeros where a score is not finite: that answer is nobody's."""
    hot = torch.nn.functional.one_hot(torch.nan_to_num(z).argmax(1), z.shape[1])
    return hot * z.isfinite().all(1, keepdim=True)
