"""The engine: everything about an attack but its update rule.

    work items (samples × restarts × targets) → cohorts of rows in lockstep → one forward, one backward a step

A cohort is a set of rows that started together, so an attack's step counter is a plain number. Several cohorts
share each model call; rows leave when their sample falls (in any item) or fails, and a new cohort of waiting
items takes the free places. Every success is read off the deployed model's logits at a point for which
`contains(slack=0)` holds; crashes and NaN are never "robust". Random numbers are keyed by (seed, sample id,
method, item), so verdicts do not depend on batch, order or workers as far as the model's own rows do not.

Costs are counted per sample as asked for: padding and rows computed for nobody are not charged.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from saddlepoint.attack.engine.answer import REFUSALS, Answerer, Question, Reply, describe
from saddlepoint.attack.engine.outcome import EngineSettings, Outcome, Progress
from saddlepoint.attack.engine.tracker import Tracker, report
from saddlepoint.attack.engine.work import Work
from saddlepoint.attack.protocol import Ask, Attack
from saddlepoint.attack.rows import Rows, check_rows, take
from saddlepoint.attack.stand_in.choose import choose, chosen
from saddlepoint.attack.steps import dual_norm, strict_limits
from saddlepoint.core.errors import DataError, InputError, NotAvailable
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.spec.access import Access
from saddlepoint.spec.goal import Targeted
from saddlepoint.spec.model import Model

_WORTH = 16  # compaction pays when a sixteenth of the rows has fallen: copying a row is cheap beside a forward
_MEASURE = 48  # timing stand-ins costs about as much as so many calls
_REFILL = 8  # a new cohort starts when an eighth of the batch is free, which bounds the number of cohorts


def run(model: Model, attack: Attack[Any], rows: Rows, settings: EngineSettings | None = None) -> Outcome:
    """Attack every sample of `rows` and say what was found. The rows' set is kept inside the model's domain.

    Raises InputError before anything runs if the model gives less access than the attack needs, or if the
    inputs are not what the model takes. NotAvailable and UnsupportedOperator (the attack has no rule for this
    set or graph) pass through at any time; whatever else the model or the attack raises later becomes the
    status "error" of the rows concerned.
    """
    if attack.needs not in model.access:
        raise NotAvailable(
            f"{attack.name} needs {attack.needs.name}, the model gives {model.access.name}.",
            "Choose an attack that needs less, e.g. random search.",
        )
    if tuple(rows.x0.shape[1:]) != tuple(model.shape):
        raise InputError(f"inputs of shape {tuple(rows.x0.shape[1:])} do not fit the model's {model.shape}.")
    if len(rows) and not bool(((rows.y >= 0) & (rows.y < model.classes)).all()):
        raise DataError(
            f"labels span [{int(rows.y.min())}, {int(rows.y.max())}], the model has {model.classes} classes."
        )
    with torch.no_grad():
        return _Run(model, attack, rows, settings or EngineSettings()).outcome()


@dataclass(frozen=True)
class Cohort:
    """Rows in lockstep. Everything but the attack's own numbers has the row dimension first."""

    rows: Rows
    state: Any
    ask: Ask
    sample: Tensor
    item: Tensor
    live: Tensor

    @property
    def where(self) -> tuple[Tensor, Tensor, Tensor]:
        """Whose rows these are."""
        return self.sample, self.item, self.live


class _Run:
    """One call of `run`."""

    def __init__(self, model: Model, attack: Attack[Any], rows: Rows, settings: EngineSettings) -> None:
        self.model, self.attack, self.settings = model, attack, settings
        self.rows = replace(rows, set=rows.set.within(model.domain))
        self.drop = settings.drop and not attack.coupled and not settings.smallest
        self.padded = settings.deterministic and not attack.coupled
        self.capacity = len(rows) if attack.coupled else settings.rows
        self.answerer = Answerer(model, settings.rows_per_call(rows.x0), pad=settings.deterministic)
        self.tracker = Tracker.empty(self.rows, settings.smallest)
        self.cohorts: list[Cohort] = []
        self.work = Work(len(rows), settings.sequential)
        self.stopped = False
        self.changed = False  # whether samples closed since rows were last compacted
        self.began = time.monotonic()

    def outcome(self) -> Outcome:
        """Clean logits, then cohorts until nothing waits."""
        if len(self.rows):
            self._clean()
            self._hasten()
            self._drive()
            self._settle()
        return report(self.rows, self.tracker, self.work, self.answerer, self.stopped)

    # -- preparation ---------------------------------------------------------------------------------------
    def _clean(self) -> None:
        """Logits at x0 (asked for unless the caller has them), limits, targets and the list of work."""
        rows, clean = self.rows, self.rows.clean
        if clean is None:
            began = time.perf_counter()
            everyone = torch.arange(len(rows), device=rows.x0.device)
            plain = replace(rows, set=self.model.domain)  # x0 itself, not rendered
            clean = self.answerer([Question(plain, Ask(rows.x0, Access.SCORES), everyone)])[0].answers.logits
            self.tracker.charge(everyone, torch.ones_like(everyone, dtype=torch.bool), backward=False)
            self.tracker.seconds += (time.perf_counter() - began) / len(rows)
        self.rows = replace(rows, clean=clean, limits=strict_limits(rows))
        self.tracker.start(self.rows, clean)
        self._note_gone()
        try:
            self.targets = self._targets(clean)
        except REFUSALS:
            raise
        except Exception as error:
            self._fail(range(len(rows)), error)
        else:
            self.work.open(self.attack.restarts, 1 if self.targets is None else self.targets.shape[1])
        if self.settings.queries is not None:
            self.work.finish((self.tracker.forwards >= self.settings.queries).nonzero()[:, 0].tolist())

    def _targets(self, clean: Tensor) -> Tensor | None:
        """(n, T) classes to drive to; a targeted goal has one for all."""
        rows = self.rows
        if isinstance(rows.goal, Targeted):
            return torch.full_like(rows.y, rows.goal.label)[:, None]
        if not self.attack.ranks_by_slope:
            return self.attack.targets(clean, rows.y)
        began = time.perf_counter()
        index = (~self.work.gone).nonzero()[:, 0].to(rows.x0.device)
        slopes = torch.zeros_like(clean)
        slopes[index] = self.answerer.slopes(take(rows, index), dual_norm)
        live = torch.ones_like(index, dtype=torch.bool)
        for extra in range(self.model.classes - 1):  # K − 1 backwards, one forward
            self.tracker.charge(index, live, backward=True, forward=extra == 0)
        self.tracker.seconds[index] += (time.perf_counter() - began) / max(1, len(index))
        return self.attack.targets(clean, rows.y, slopes)

    def _hasten(self) -> None:
        """Look for a faster function to differentiate; verdicts keep coming from the model."""
        settings = self.settings
        wanted = settings.hasten and not settings.deterministic and not settings.smallest and settings.queries is None
        if not wanted or self.rows.set.parametric or self.attack.needs < Access.SCORES:
            return
        rows, limit = self.rows, self.answerer.limit
        calls = int((~self.work.gone).sum()) / limit * self.work.items * self.attack.forwards
        if calls < _MEASURE and not chosen(self.model):
            return
        self.answerer.faster = choose(self.model, rows.x0[: 4 * limit], rows.y[: 4 * limit], limit)
        self.answerer.notes.extend(self.answerer.faster.notes)

    def _settle(self) -> None:
        """The model's own margin at the best point of every sample that a stand-in left standing."""
        if self.answerer.faster.exact is None or self.tracker.point is None:
            return
        index = (self.tracker.margin > 0).nonzero()[:, 0]
        index = index[self.tracker.item[index] >= 0]
        if len(index) == 0:
            return
        ask = Ask(self.tracker.point[index], Access.SCORES)
        reply = self.answerer([Question(take(self.rows, index), ask, index)], sure=True)[0]
        self.tracker.charge(index, torch.ones_like(index, dtype=torch.bool), backward=False)
        self.tracker.settle(index, reply.margin)

    # -- the loop ------------------------------------------------------------------------------------------
    def _drive(self) -> None:
        while not self._interrupted():
            self._refill()
            if not self.cohorts:
                return
            began = time.perf_counter()
            cohorts, self.cohorts = self.cohorts, []
            questions = [Question(c.rows, c.ask, c.sample) for c in cohorts]
            replies = self._confirmed(cohorts, questions, self.answerer(questions))
            for cohort, reply in zip(cohorts, replies, strict=True):
                self.tracker.charge(cohort.sample, cohort.live, cohort.ask.want >= Access.GRADIENT)
                self.tracker.see(cohort.rows, cohort.ask.points, reply, cohort.where)
            self._note_gone()
            changed, self.changed = self.changed, False
            for cohort, reply in zip(cohorts, replies, strict=True):
                self._advance(cohort, reply, changed)
            self._share(cohorts, time.perf_counter() - began)

    def _confirmed(self, cohorts: list[Cohort], questions: list[Question], replies: list[Reply]) -> list[Reply]:
        """Points that may break the model by a stand-in's word are shown to the model itself."""
        doubtful = []
        for cohort, reply in zip(cohorts, replies, strict=True):
            stand_in = self.answerer.faster.to_answer(cohort.ask)
            doubtful.append(self.tracker.doubtful(reply, cohort.where, 0.0 if stand_in is None else stand_in.slack))
        if not any(bool(d.any()) for d in doubtful):
            return replies
        for cohort, rows in zip(cohorts, doubtful, strict=True):
            self.tracker.charge(cohort.sample, rows, backward=False)
        return self.answerer.confirm(questions, replies, doubtful)

    def _note_gone(self) -> None:
        """Close the samples that need no more work: fallen (when dropping) or failed."""
        self.changed |= self.work.close(self.answerer.errors)
        if self.drop:
            self.changed |= self.work.close(self.tracker.fallen & ~self.work.gone.to(self.rows.x0.device))

    def _advance(self, cohort: Cohort, reply: Reply, changed: bool) -> None:
        """Drop the rows that are done, and let the attack take its step on the others."""
        cohort = self._retire(cohort)
        answers = reply.answers
        if changed or cohort.ask.done is not None or self.settings.queries is not None:
            live = int(cohort.live.sum())
            if live == 0:
                return
            if not self.padded and (len(cohort.live) - live) * _WORTH >= len(cohort.live):
                cohort, answers = take((cohort, answers), cohort.live.nonzero()[:, 0])
        try:
            state, ask = self.attack.step(cohort.state, answers)
        except REFUSALS:
            raise
        except Exception as error:
            self._fail(cohort.sample[cohort.live].tolist(), error)
            return
        if ask is None:
            self.work.end(cohort.sample[cohort.live].tolist(), cohort.item[cohort.live].tolist())
            return
        self.cohorts.append(replace(cohort, state=state, ask=ask))

    def _retire(self, cohort: Cohort) -> Cohort:
        """Mark rows as no longer live: gone in any item, done by the attack's own word, or out of queries."""
        live, sample = cohort.live, cohort.sample
        live = live & ~self.work.gone.to(live.device)[sample]
        if cohort.ask.done is not None:
            over = live & cohort.ask.done
            self.work.end(sample[over].tolist(), cohort.item[over].tolist())
            live = live & ~over
        if self.settings.queries is not None:
            spent = live & (self.tracker.forwards[sample] >= self.settings.queries)
            self.work.finish(sample[spent].tolist())
            live = live & ~spent
        return replace(cohort, live=live)

    def _fail(self, samples: Iterable[int], error: Exception) -> None:
        """The attack itself raised: an error for each of these samples, never "robust"."""
        for s in samples:
            self.answerer.errors.setdefault(s, describe(error))
        self._note_gone()

    # -- cohorts -------------------------------------------------------------------------------------------
    def _refill(self) -> None:
        """Start cohorts of waiting items while a worthwhile part of the batch is free."""
        while True:
            free = self.capacity - sum(len(c.live) for c in self.cohorts)
            if self.cohorts and (self.padded or free < max(1, self.capacity // _REFILL)):
                return
            items = self.work.next(free)
            if not items:
                return
            self._start(items)

    def _start(self, items: list[tuple[int, int]]) -> None:
        """A cohort of these (sample, item) pairs; padded by repeating its rows when deterministic."""
        device, count = self.rows.x0.device, len(items)
        if self.padded:
            items = [items[i % count] for i in range(self.capacity)]
        sample = torch.tensor([s for s, _ in items], device=device)
        item = torch.tensor([i for _, i in items], device=device)
        rows = take(self.rows, sample)
        keys = [row_keys(self.settings.seed, [self.rows.ids[s]], self.attack.stream, i) for s, i in items]
        target = None if self.targets is None else self.targets[sample, item % self.targets.shape[1]]
        rows = replace(rows, draws=Draws(torch.cat(keys).to(device)), target=target)
        try:
            state, ask = self.attack.init(rows)
            check_rows((state, ask), len(items), self.attack.name)
        except REFUSALS:
            raise
        except Exception as error:
            self._fail(sample.tolist(), error)
            return
        live = torch.arange(len(items), device=device) < count
        self.cohorts.append(Cohort(rows, state, ask, sample, item, live))

    # -- from outside --------------------------------------------------------------------------------------
    def _interrupted(self) -> bool:
        """Between two steps: tell the progress, ask whether to go on."""
        settings = self.settings
        if settings.watch is not None:
            settings.watch(
                Progress(
                    samples=len(self.rows),
                    settled=self.work.settled,
                    broken=int(self.tracker.fallen.sum()),
                    forwards=int(self.tracker.forwards.sum()),
                    seconds=time.monotonic() - self.began,
                )
            )
        late = settings.deadline is not None and time.monotonic() >= settings.deadline
        self.stopped = late or (settings.stop is not None and settings.stop())
        return self.stopped

    def _share(self, cohorts: list[Cohort], seconds: float) -> None:
        """The step's wall time, shared evenly by its rows."""
        share = seconds / sum(len(c.sample) for c in cohorts)
        for cohort in cohorts:
            self.tracker.seconds.index_add_(
                0, cohort.sample, torch.full_like(cohort.sample, share, dtype=torch.float64)
            )
