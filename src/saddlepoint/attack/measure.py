"""Counting how often points break a model that did not help to find them: counts with limits, and a random control.

A share of successes is only worth quoting beside its n, its interval, and what random noise of the same size does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.stats import beta
from torch import Tensor

from saddlepoint.attack.engine.answer import Answerer, Question
from saddlepoint.attack.engine.outcome import EngineSettings
from saddlepoint.attack.protocol import Ask
from saddlepoint.attack.rows import Rows
from saddlepoint.attack.steps import project, unit
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import NotAvailable
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.geometry import L2, Linf
from saddlepoint.spec.access import Access
from saddlepoint.spec.model import Model


@dataclass(frozen=True)
class Rate:
    """k of n."""

    k: int
    n: int

    @property
    def share(self) -> float:
        """k / n; NaN of nothing."""
        return self.k / self.n if self.n else float("nan")

    @property
    def ci95(self) -> tuple[float, float]:
        """95 % limits of Clopper and Pearson; (0, 1) of nothing."""
        lower = float(beta.ppf(0.025, self.k, self.n - self.k + 1)) if self.k else 0.0
        upper = float(beta.ppf(0.975, self.k + 1, self.n - self.k)) if self.k < self.n else 1.0
        return lower, upper

    def __str__(self) -> str:
        low, high = self.ci95
        return f"{self.k}/{self.n} [{low:.3f}, {high:.3f}]"

    @staticmethod
    def of(hit: Bool[Tensor, " n"]) -> Rate:
        """How many are true."""
        return Rate(int(hit.sum()), len(hit))


def margins(model: Model, rows: Rows, points: Float[Tensor, "b ..."], settings: EngineSettings) -> Float[Tensor, " b"]:
    """The deployed model's margin under the rows' goal at the points (or parameters).

    NaN where its logits are not finite, or where it raised: neither a success nor a failure of an attack.
    """
    if len(rows) == 0:
        return rows.x0.new_zeros(0)
    answerer = Answerer(model, settings.rows_per_call(rows.x0), pad=settings.deterministic)
    sample = torch.arange(len(rows), device=rows.x0.device)
    with torch.no_grad():
        return answerer([Question(rows, Ask(points, Access.SCORES), sample)])[0].margin


def clean_margins(model: Model, rows: Rows, settings: EngineSettings) -> Float[Tensor, " b"]:
    """The same at x0 itself, also for parametric sets."""
    plain = Rows(rows.x0, rows.y, rows.ids, model.domain, rows.goal)
    return margins(model, plain, rows.x0, settings)


def noise(rows: Rows, points: Float[Tensor, "b ..."], seed: int) -> Float[Tensor, "b ..."]:
    """Random points as far from x0 as `points` are, in the set's own norm: what an attack has to beat.

    ℓ∞: ±size in every coordinate   ℓ2: a uniform direction of that length   others: a sample of the set of that size
    Each is then put into the data box, as the points of an attack are.
    """
    draws = Draws(row_keys(seed, rows.ids, "noise").to(rows.x0.device))
    x0, shape = rows.x0, rows.x0.shape[1:]
    size = rows.set.gauge(x0, points)
    if isinstance(rows.set, (Linf, L2)):
        rows = Rows(x0, rows.y, rows.ids, rows.set.resized(size), rows.goal)
        normal = draws.normal(shape, dtype=x0.dtype)
        way = normal.sign() if isinstance(rows.set, Linf) else unit(normal)
        return project(rows, x0 + per_row(size.to(x0.dtype), x0) * way)
    try:
        return rows.set.resized(size).sample(x0, draws)
    except NotAvailable:  # a set of one size
        return rows.set.sample(x0, draws)
