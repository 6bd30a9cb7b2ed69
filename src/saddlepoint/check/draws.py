"""Judging a point of a randomised predictor: fresh draws are counted, and the count's limit is what is claimed.

    m(x) = P(right) − P(wrong) = 1 − 2 P_ω(f(x, ω) wrong) ≤ 1 − 2 L(k, n)     with probability ≥ 1 − failure

k of n fresh draws were wrong, L is the one-sided lower limit of Clopper and Pearson. The point breaks the predictor
(m ≤ 0) only if L ≥ 1/2: a single answer is wrong at least as often as right. One lucky draw shows nothing: L(1, 256) is
about 4e-9 at failure 1e-6. The draws that the point was found with are not among the n, and how many are drawn is
decided by those: all where half of them are wrong, else as many as they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saddlepoint.check.counts import clopper_pearson
from saddlepoint.core.errors import NotAvailable
from saddlepoint.spec.goal import Goal
from saddlepoint.spec.model import Model


@dataclass(frozen=True)
class Counted:
    """Per point: wrong of drawn, the upper bound 1 − 2 L on its margin (float64), and how probably that fails."""

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
