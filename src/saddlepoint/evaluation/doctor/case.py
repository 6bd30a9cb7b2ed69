"""The case under examination: a model, samples that it gets right, a threat, and what an evaluation broke of them.

The measurements that several questions share (above all the plain attack) are made once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Bool
from scipy.stats import binom
from torch import Tensor

from saddlepoint.attack import APGD, PGD, Attack, EngineSettings, Outcome, Rows, run
from saddlepoint.check.counts import clopper_pearson
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.geometry import PerturbationSet
from saddlepoint.spec import Access, Model
from saddlepoint.spec.finding import Assessment, Finding

_LEVEL = 0.05  # of the sign test: how likely chance alone may make one attack look better than another


@dataclass(frozen=True)
class Effort:
    """How much an examination costs: samples, the white-box attack, queries of the black-box search.

    `plain` is what an evaluation would run; its result is examined where no ledger says what one has found.
    """

    samples: int = 32
    plain: APGD | PGD = field(default_factory=lambda: APGD(steps=40))
    tries: int = 200
    seed: int = 0

    @property
    def steps(self) -> int:
        """Of every white-box attack of the examination."""
        return self.plain.steps


@dataclass(frozen=True)
class Case:
    """Samples with correct labels; the rows' set is inside the domain. `broken` (n,): by the evaluation examined."""

    model: Model
    rows: Rows
    effort: Effort
    told: Bool[Tensor, " n"] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def differentiable(self) -> bool:
        """Whether the model's gradients, such as they are, can be asked for."""
        return Access.GRADIENT in self.model.access

    def attacked(
        self, attack: Attack, model: Model | None = None, within: PerturbationSet | None = None, drop: bool = True
    ) -> Outcome:
        """The outcome of an attack on the samples, optionally on another view of the model or in another set."""
        rows = self.rows if within is None else replace(self.rows, set=within)
        settings = EngineSettings(batch=max(1, len(rows)), seed=self.effort.seed, hasten=False, drop=drop)
        return run(model or self.model, attack, rows, settings)

    @cached_property
    def white(self) -> Outcome | None:
        """The plain attack on the model as it is; None where it has no gradients."""
        return self.attacked(self.effort.plain) if self.differentiable else None

    @cached_property
    def broken(self) -> Bool[Tensor, " n"]:
        """What the evaluation broke: as told, else by the plain attack."""
        if self.told is not None:
            return self.told
        if self.white is None:
            return torch.zeros(len(self), dtype=torch.bool)
        return self.white.success.cpu()

    def margin(self, z: Tensor, y: Tensor) -> Tensor:
        """The margin under the threat's goal: broken at ≤ 0."""
        return self.rows.goal.margin(z, y)

    def draws(self, purpose: str) -> Draws:
        """Random numbers per row for a purpose of their own."""
        return Draws(row_keys(self.effort.seed, self.rows.ids, f"doctor-{purpose}").to(self.rows.x0.device))

    def near(self, purpose: str) -> Tensor:
        """A random point of each sample's set, rendered."""
        return self.rows.set.render(self.rows.x0, self.rows.set.sample(self.rows.x0, self.draws(purpose)))


def beats(more: Tensor, fewer: Tensor) -> tuple[int, int, bool]:
    """Samples only in `more`, only in `fewer`, and whether the first outnumber the second by more than chance.

    One-sided sign test on the samples that differ: P(Bin(b + w, ½) ≥ b) < 0.05.
    """
    gained, lost = int((more & ~fewer).sum()), int((fewer & ~more).sum())
    return gained, lost, gained > lost and float(binom.sf(gained - 1, gained + lost, 0.5)) < _LEVEL


@dataclass(frozen=True)
class Question:
    """What is asked, and what to do where the answer is bad."""

    id: str
    title: str
    remedy: str
    cures: tuple[str, ...] = ()
    if_bad: Assessment = "fail"

    def finding(
        self,
        bad: bool,
        value: float | None,
        detail: str,
        unit: str = "share of samples",
        ci95: tuple[float, float] | None = None,
    ) -> Finding:
        """The answer."""
        if not bad:
            return Finding(self.id, self.title, "pass", value, detail, "", unit, ci95)
        return Finding(self.id, self.title, self.if_bad, value, detail, self.remedy, unit, ci95, self.cures)

    def of_samples(self, bad: bool, count: int, n: int, more: str = "") -> Finding:
        """The answer as a share of n samples."""
        detail = f"{count} of n = {n} samples{more}"
        return self.finding(bad, count / max(1, n), detail, ci95=clopper_pearson(count, n))
