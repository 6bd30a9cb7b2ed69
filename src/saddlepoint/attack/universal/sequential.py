"""Universal perturbation by one minimal perturbation after the other: the original method.

    for every sample in turn, if δ does not fool it:   δ ← P_{p,ε}(δ + Δ),   Δ = argmin ‖r‖ : x_i + δ + r is fooled

Moosavi-Dezfooli et al. 2017, Algorithm 1; Δ by DeepFool, passes over the data until the share of fooled samples is
reached. Samples take turns by nature, so this is a driver with a loop, not an attack in lockstep: it asks for single
rows and is slow. `find_universal` (ascent on a mean loss) fools more in less time; this one is there to compare.
DeepFool's overshoot and number of candidates are the house's. For norm balls.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from saddlepoint.attack.engine import EngineSettings, run
from saddlepoint.attack.measure import margins
from saddlepoint.attack.minimum.deepfool import DeepFool
from saddlepoint.attack.rows import Rows, take
from saddlepoint.attack.steps import project
from saddlepoint.attack.universal.find import Shared, counted, split
from saddlepoint.attack.universal.shared import home, points
from saddlepoint.core.errors import NotAvailable
from saddlepoint.geometry.ball import Ball
from saddlepoint.spec.model import Model


def find_universal_sequential(
    model: Model,
    rows: Rows,
    held_out: Rows,
    *,
    passes: int = 5,
    share: float = 0.8,
    minimal: DeepFool | None = None,
    settings: EngineSettings | None = None,
) -> Shared:
    """Find δ on `rows` by Algorithm 1 (`share` is 1 − δ there), and count what it does to `held_out`."""
    if not isinstance(rows.set, Ball):
        raise NotAvailable(f"Algorithm 1 projects onto a norm ball, not {rows.set.kind}.", "Use find_universal.")
    settings, minimal = settings or EngineSettings(), minimal or DeepFool(steps=10, candidates=3, search=0)
    rows, held_out = split(model, rows, held_out, settings)
    one = home(rows, False)
    delta, cost = torch.zeros_like(one.x0), [0, 0]
    for _ in range(passes):
        for i in range(len(rows)):
            delta, spent = _turn(model, take(rows, torch.tensor([i])), delta, one, minimal)
            cost = [a + b for a, b in zip(cost, spent, strict=True)]
        fooled = margins(model, rows, points(rows, delta, False), settings) <= 0
        if float(fooled.float().mean()) >= share:
            break
    told = counted(model, (rows, held_out), delta[0], False, (0, 0), settings)
    return replace(told, forwards=cost[0], backwards=cost[1])


def _turn(model: Model, row: Rows, delta: Tensor, one: Rows, minimal: DeepFool) -> tuple[Tensor, tuple[int, int]]:
    """One sample's turn: δ with its minimal perturbation added, put back into the ball; what was spent."""
    moved = replace(row, x0=points(row, delta, False), limits=None, clean=None)
    found = run(model, minimal, moved, EngineSettings(smallest=True))
    spent = int(found.forwards.sum()), int(found.backwards.sum())
    if not bool(found.success[0]) or float(found.size[0]) == 0:  # out of reach, or fooled by δ already
        return delta, spent
    return project(one, delta + (found.best_point - moved.x0)), spent
