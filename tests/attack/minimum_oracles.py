"""The smallest perturbation that breaks an affine model, box active, without any attack."""

from __future__ import annotations

import torch
from attack_models import Affine
from torch import Tensor

from saddlepoint.attack import Attack, EngineSettings, Outcome, run
from saddlepoint.geometry import PerturbationSet


def smallest(case: Affine, threat: PerturbationSet) -> Tensor:
    """min {ε : m*(ε) ≤ 0} per sample, by bisection on the worst margin over the set of size ε; inf if none.

    m*(ε) = c − support_ε(−w) falls with ε, so 60 halvings of [0, 64] leave 6e-17 of it.
    """
    low = torch.zeros(len(case.x), dtype=torch.float64)
    high = torch.full_like(low, 64.0)
    reached = case.worst(threat.resized(high).within(case.model.domain)) <= 0
    for _ in range(60):
        middle = (low + high) / 2
        breaks = case.worst(threat.resized(middle).within(case.model.domain)) <= 0
        low, high = torch.where(breaks, low, middle), torch.where(breaks, middle, high)
    return torch.where(reached, high, torch.inf)


def ratio(attack: Attack, case: Affine, threat: PerturbationSet) -> tuple[float, Outcome]:
    """The largest found size / optimum. Where the box holds no adversarial point, none may be found."""
    found = run(case.model, attack, case.rows(threat), EngineSettings(smallest=True))
    best = smallest(case, threat)
    assert torch.equal(found.success, best.isfinite())
    assert bool((found.size >= best * (1 - 1e-9)).all())  # below the optimum there is nothing
    real = best.isfinite() & (best > 0)
    return float((found.size[real] / best[real]).max()) if bool(real.any()) else 1.0, found
