"""The record of a run: per sample, the best admissible point seen so far. Never the last iterate.

    best margin ← min over points x of S(x0) with finite logits of m(x)

A point counts only if `contains(slack=0)` says so; a NaN margin never counts. Losing nothing to ordering: of
several items of one sample that improve in the same step, the smallest margin wins, the first among equals.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.attack.engine.answer import Answerer, Reply
from saddlepoint.attack.engine.outcome import Outcome, Status
from saddlepoint.attack.engine.work import Work
from saddlepoint.attack.rows import Rows, take
from saddlepoint.attack.steps import inside


@dataclass
class Tracker:
    """Growing record of n samples; all tensors are (n, …)."""

    margin: Tensor
    point: Tensor | None
    item: Tensor
    forwards: Tensor
    backwards: Tensor
    first: Tensor
    dead: Tensor
    seconds: Tensor
    finite: Tensor

    @staticmethod
    def empty(rows: Rows) -> Tracker:
        """Nothing seen."""
        n, device = len(rows), rows.x0.device

        def zeros() -> Tensor:
            return torch.zeros(n, dtype=torch.int64, device=device)

        return Tracker(
            margin=torch.full((n,), torch.inf, dtype=rows.x0.dtype, device=device),
            point=None if rows.set.parametric else rows.x0.clone(),
            item=zeros() - 1,
            forwards=zeros(),
            backwards=zeros(),
            first=zeros() - 1,
            dead=zeros(),
            seconds=torch.zeros(n, dtype=torch.float64, device=device),
            finite=torch.zeros(n, dtype=torch.bool, device=device),
        )

    def start(self, rows: Rows, clean: Tensor) -> None:
        """x0 itself is the first point of every sample (it belongs to every set of points that holds it)."""
        margin = rows.goal.margin(clean, rows.y).to(self.margin.dtype)
        self.finite |= ~margin.isnan()
        if rows.set.parametric:
            return
        good = ~margin.isnan() & inside(rows, rows.x0)
        self.margin = torch.where(good, margin, self.margin)
        self.first = torch.where(self.margin <= 0, self.forwards, self.first)

    def charge(self, sample: Tensor, live: Tensor, backward: bool) -> None:
        """One forward, and a backward, for each live row."""
        count = live.to(torch.int64)
        self.forwards.index_add_(0, sample, count)
        if backward:
            self.backwards.index_add_(0, sample, count)

    def see(self, rows: Rows, points: Tensor, reply: Reply, where: tuple[Tensor, Tensor, Tensor]) -> None:
        """Note the answers of one question; `where` is (sample, item, live), each (b,)."""
        sample, item, live = where
        margin = reply.margin.to(self.margin.dtype)
        self.finite.index_put_((sample,), self.finite[sample] | (~margin.isnan() & live))
        self.dead.index_add_(0, sample, (reply.dead & live).to(torch.int64))
        better = live & (margin < self.margin[sample])  # NaN compares false
        index = better.nonzero()[:, 0]
        if len(index) == 0:
            return
        if len(index) < len(sample):
            rows, points, margin, sample, item = take((rows, points, margin, sample, item), index)
        admissible = inside(rows, points)
        if not bool(admissible.all()):
            index = admissible.nonzero()[:, 0]
            points, margin, sample, item = take((points, margin, sample, item), index)
        self._keep(points, margin, sample, item)

    def _keep(self, points: Tensor, margin: Tensor, sample: Tensor, item: Tensor) -> None:
        kept = self.point if self.point is not None else points.new_zeros(len(self.margin), *points.shape[1:])
        winners = _smallest_of_each(sample, margin)
        if len(winners) < len(sample):
            points, margin, sample, item = take((points, margin, sample, item), winners)
        fell = (margin <= 0) & (self.first[sample] < 0)
        self.first[sample] = torch.where(fell, self.forwards[sample], self.first[sample])
        self.margin[sample] = margin
        kept[sample] = points
        self.point = kept
        self.item[sample] = item

    @property
    def fallen(self) -> Tensor:
        """(n,) the goal is reached: m ≤ 0."""
        return self.margin <= 0


def _smallest_of_each(sample: Tensor, margin: Tensor) -> Tensor:
    """Row indexes of each sample's smallest margin, the first among equals."""
    by_margin = margin.argsort(stable=True)
    order = by_margin[sample[by_margin].argsort(stable=True)]
    ordered = sample[order]
    head = torch.ones_like(ordered, dtype=torch.bool)
    head[1:] = ordered[1:] != ordered[:-1]
    return order[head]


def report(rows: Rows, tracker: Tracker, work: Work, answerer: Answerer, stopped: bool) -> Outcome:
    """The outcome of a run, as far as it went."""
    success, finite = tracker.fallen.tolist(), tracker.finite.tolist()

    def status(s: int) -> Status:
        if success[s]:
            return "ok"
        if s in answerer.errors:
            return "error"
        if stopped and not work.over(s):
            return "stopped"
        return "ok" if finite[s] else "nan"

    point = tracker.point if tracker.point is not None else rows.x0.new_zeros(len(rows), 0)
    return Outcome(
        ids=rows.ids,
        best_margin=tracker.margin,
        best_point=point,
        success=tracker.fallen,
        item=tracker.item,
        restart=torch.where(tracker.item < 0, -1, tracker.item // work.targets),
        first=tracker.first,
        forwards=tracker.forwards,
        backwards=tracker.backwards,
        dead=tracker.dead,
        seconds=tracker.seconds,
        status=tuple(status(s) for s in range(len(rows))),
        message=tuple(answerer.errors.get(s, "") for s in range(len(rows))),
        parametric=rows.set.parametric,
        notes=tuple(answerer.notes),
    )
