"""Transfer: adversarial examples made on surrogates, scored on a target by the target itself.

Only images that all models classify correctly are used: an error of the target that was there before is no transfer.
Beside every rate stands what random noise of the same norm does. The point taken is the one with the surrogate's
smallest margin over the whole run (nothing is dropped): the most confident one transfers best. The target is asked
twice a sample, for x0 and for the point: what it says changes neither.

    transfer          one target                    Szegedy et al. 2014, §4.2; Papernot et al. 2016
    transfer_matrix   every model on every other    the diagonal is the white-box rate
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saddlepoint.attack.engine import EngineSettings, run
from saddlepoint.attack.measure import Rate, clean_margins, margins, noise
from saddlepoint.attack.protocol import Attack
from saddlepoint.attack.rows import Rows, take
from saddlepoint.attack.transfer.ensemble import ensemble
from saddlepoint.core.errors import InputError
from saddlepoint.spec.goal import Targeted, Untargeted
from saddlepoint.spec.model import Model


@dataclass(frozen=True)
class Transfer:
    """What the target says of points made without it, over the images that all classify correctly.

    `points` are inputs (or parameters of a parametric set) of the samples `ids`, `fooled` those that break the target;
    `unanswered` of them had no finite logits there and count as not fooled.
    """

    ids: tuple[str, ...]
    points: Float[Tensor, "n ..."]
    fooled: Bool[Tensor, " n"]
    surrogate: Rate
    target: Rate
    noise: Rate
    unanswered: int
    forwards: int
    backwards: int

    def __str__(self) -> str:
        return f"target fooled {self.target}, surrogate {self.surrogate}, target by noise of that size {self.noise}"


@dataclass(frozen=True)
class Matrix:
    """fooled[i][j]: how often examples made on model i break model j; noise[i][j]: random noise of their sizes."""

    names: tuple[str, ...]
    fooled: tuple[tuple[Rate, ...], ...]
    noise: tuple[tuple[Rate, ...], ...]

    @property
    def n(self) -> int:
        """Images that all models classify correctly."""
        return self.fooled[0][0].n

    def canonical(self) -> dict[str, object]:
        """JSON form: counts, not shares."""
        tables = {"fooled": self.fooled, "noise": self.noise}
        counts = {name: [[rate.k for rate in row] for row in table] for name, table in tables.items()}
        return {"models": list(self.names), "n": self.n, **counts}

    def __str__(self) -> str:
        wide = max(len(name) for name in self.names)
        cell = max(11, wide)
        head = f"{'made on':>{wide}}  " + "  ".join(f"{name:>{cell}}" for name in self.names)
        lines = [f"fooled (by noise of the same size), n = {self.n}", head]
        for name, row, control in zip(self.names, self.fooled, self.noise, strict=True):
            cells = (f"{f'{rate.k} ({random.k})':>{cell}}" for rate, random in zip(row, control, strict=True))
            lines.append(f"{name:>{wide}}  " + "  ".join(cells))
        return "\n".join(lines)


def transfer(
    sources: Model | Sequence[Model],
    target: Model,
    attack: Attack[Any],
    rows: Rows,
    settings: EngineSettings | None = None,
) -> Transfer:
    """Attack the surrogates (several: their averaged logits), and ask the target about what was found.

    Raises InputError where the models take other inputs or have other classes.
    """
    surrogate = ensemble([sources] if isinstance(sources, Model) else list(sources))
    ensemble([surrogate, target])  # only to refuse models that do not belong together
    settings = _to_the_end(settings)
    rows = _right(rows, (surrogate, target), settings)
    made = run(surrogate, attack, rows, settings)
    told = margins(target, rows, made.best_point, settings)
    random = noise(rows, made.best_point, settings.seed)
    return Transfer(
        ids=rows.ids,
        points=made.best_point,
        fooled=told <= 0,
        surrogate=Rate.of(margins(surrogate, rows, made.best_point, settings) <= 0),
        target=Rate.of(told <= 0),
        noise=Rate.of(margins(target, rows, random, settings) <= 0),
        unanswered=int(told.isnan().sum()),
        forwards=int(made.forwards.sum()),
        backwards=int(made.backwards.sum()),
    )


def transfer_matrix(
    models: Mapping[str, Model], attack: Attack[Any], rows: Rows, settings: EngineSettings | None = None
) -> Matrix:
    """Examples made on each model, scored on each, over the images that all classify correctly."""
    if not models:
        raise InputError("a matrix of no models.", "Give {name: model}.")
    each = list(models.values())
    ensemble(each)  # refuses models that do not belong together
    settings = _to_the_end(settings)
    rows = _right(rows, each, settings)
    fooled, control = [], []
    for source in each:
        points = run(source, attack, rows, settings).best_point
        random = noise(rows, points, settings.seed)
        fooled.append(tuple(Rate.of(margins(m, rows, points, settings) <= 0) for m in each))
        control.append(tuple(Rate.of(margins(m, rows, random, settings) <= 0) for m in each))
    return Matrix(tuple(models), tuple(fooled), tuple(control))


def _to_the_end(settings: EngineSettings | None) -> EngineSettings:
    """Nothing dropped, and every point recorded: with a stand-in, a fallen sample keeps the point at which it fell."""
    return replace(settings or EngineSettings(), drop=False, hasten=False)


def _right(rows: Rows, models: Sequence[Model], settings: EngineSettings) -> Rows:
    """The rows that all models classify correctly (and not as a goal's target), with the set in the data box."""
    rows = replace(rows, set=rows.set.within(models[0].domain), clean=None)
    plain = replace(rows, goal=Untargeted())
    right = torch.stack([clean_margins(m, plain, settings) > 0 for m in models]).all(0)  # NaN is not right
    if isinstance(rows.goal, Targeted):
        right &= rows.y != rows.goal.label
    return take(rows, right.nonzero()[:, 0])
