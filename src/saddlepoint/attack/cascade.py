"""A cascade: cheap attacks on everybody, dear ones where they may still pay.

A stage takes the samples that the stages before it left standing. With `near` it takes of them only those that came
close: let m_0 be the margin at x0 and m the smallest margin seen so far;

    ρ = m / (m_0 − m) ≤ near        what is left of the way, in units of the way that was gone

ρ has no unit, so one number serves every model, norm and size: 0.5 says "half as much again would break it". What each
rule leaves out is measured: `benchmarks/results/attacks/early_stops.json` lists, for the values that plans use, the
samples that an exhaustive attack breaks beyond the rule.

Verdicts are the union over stages, per sample, so no stage can make a result weaker (trap 47).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saddlepoint.attack.engine import EngineSettings, Outcome, run
from saddlepoint.attack.protocol import Attack
from saddlepoint.attack.rows import Rows, take
from saddlepoint.core.errors import InputError
from saddlepoint.spec.model import Model


@dataclass(frozen=True)
class Step:
    """One attack of a cascade, for samples with ρ ≤ near (None: for all that stand)."""

    attack: Attack[Any]
    near: float | None = None


@dataclass(frozen=True)
class Yield:
    """What a stage cost and brought: samples asked, broken, passes and seconds summed over them."""

    name: str
    asked: int
    broken: int
    forwards: int
    backwards: int
    seconds: float


@dataclass(frozen=True)
class Cascade:
    """Per sample the margin at x0, the smallest margin over all stages and whether it fell; per stage its yield, and
    the smallest margins as they stood before it."""

    clean_margin: Float[Tensor, " n"]
    best_margin: Float[Tensor, " n"]
    best_point: Float[Tensor, "n ..."]
    success: Bool[Tensor, " n"]
    stages: tuple[Yield, ...]
    before: tuple[Float[Tensor, " n"], ...]
    errors: dict[int, str]


def worth(clean: Float[Tensor, " n"], best: Float[Tensor, " n"], near: float | None) -> Bool[Tensor, " n"]:
    """Which samples a stage should still try: ρ ≤ near, i.e. m ≤ near · (m_0 − m). All of them without a rule.

    >>> worth(torch.tensor([3.0, 3.0]), torch.tensor([1.0, 2.0]), 0.5).tolist()
    [True, False]
    """
    if near is None:
        return torch.ones_like(best, dtype=torch.bool)
    return best <= near * (clean - best)


def cascade(model: Model, steps: Sequence[Step], rows: Rows, settings: EngineSettings | None = None) -> Cascade:
    """Run the steps in order. Raises InputError for parametric sets and for an empty list; see `engine.run`."""
    if not steps or rows.set.parametric:
        raise InputError("a cascade has at least one step and works on sets of points.")
    settings = settings or EngineSettings()
    best = torch.full((len(rows),), torch.inf, dtype=rows.x0.dtype, device=rows.x0.device)
    clean, point = best.clone(), rows.x0.clone()
    found: list[Yield] = []
    before: list[Tensor] = []
    errors: dict[int, str] = {}
    for number, step in enumerate(steps):
        before.append(best.clone())
        standing = best > 0
        if number:
            standing &= worth(clean, best, step.near)
        index = standing.nonzero()[:, 0]
        outcome = run(model, step.attack, take(rows, index), settings)
        if number == 0:  # logits at x0 are asked for once
            rows = replace(rows, clean=outcome.clean)
            clean = rows.goal.margin(outcome.clean, rows.y)
        better = outcome.best_margin < best[index]
        best[index[better]] = outcome.best_margin[better]
        point[index[better]] = outcome.best_point[better]
        errors |= {int(index[i]): m for i, m in enumerate(outcome.message) if m}
        found.append(_yield(step, outcome))
    errors = {i: m for i, m in errors.items() if best[i] > 0}
    return Cascade(clean, best, point, best <= 0, tuple(found), tuple(before), errors)


def _yield(step: Step, outcome: Outcome) -> Yield:
    return Yield(
        name=step.attack.name,
        asked=len(outcome.ids),
        broken=int(outcome.success.sum()),
        forwards=int(outcome.forwards.sum()),
        backwards=int(outcome.backwards.sum()),
        seconds=float(outcome.seconds.sum()),
    )
