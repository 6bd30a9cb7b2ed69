"""The record of a run: per sample, the best admissible point seen so far. Never the last iterate.

    best margin ← min over points x of S(x0) with finite logits of m(x)
    smallest    ← min over points x of the domain with m(x) ≤ 0 of gauge(x)           (minimum-size attacks)

A point counts only if `contains(slack=0)` says so; a NaN margin never counts. Losing nothing to ordering: of
several items of one sample that improve in the same step, the best one wins, the first among equals.
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
from saddlepoint.core.arithmetic import per_row


@dataclass
class Tracker:
    """Growing record of n samples; all tensors are (n, …). `smallest` says which of the two records is kept."""

    margin: Tensor
    size: Tensor
    point: Tensor | None
    item: Tensor
    forwards: Tensor
    backwards: Tensor
    first: Tensor
    dead: Tensor
    seconds: Tensor
    finite: Tensor
    within: Tensor  # finite logits at x0, a point of the set; the margin may be infinite (a target that is the label)
    smallest: bool = False

    @staticmethod
    def empty(rows: Rows, smallest: bool = False) -> Tracker:
        """Nothing seen."""
        n, device = len(rows), rows.x0.device

        def zeros() -> Tensor:
            return torch.zeros(n, dtype=torch.int64, device=device)

        return Tracker(
            margin=torch.full((n,), torch.inf, dtype=rows.x0.dtype, device=device),
            size=torch.full((n,), torch.inf, dtype=torch.float64, device=device),
            point=None if rows.set.parametric else rows.x0.clone(),
            item=zeros() - 1,
            forwards=zeros(),
            backwards=zeros(),
            first=zeros() - 1,
            dead=zeros(),
            seconds=torch.zeros(n, dtype=torch.float64, device=device),
            finite=torch.zeros(n, dtype=torch.bool, device=device),
            within=torch.zeros(n, dtype=torch.bool, device=device),
            smallest=smallest,
        )

    def start(self, rows: Rows, clean: Tensor) -> None:
        """x0 itself is the first point of every sample (it belongs to every set of points that holds it)."""
        margin = rows.goal.margin(clean, rows.y).to(self.margin.dtype)
        self.finite |= ~margin.isnan()
        if rows.set.parametric:
            self.within = ~margin.isnan()
            return
        good = ~margin.isnan() & inside(rows, rows.x0)
        self.within = good
        self.margin = torch.where(good, margin, self.margin)
        self.size = torch.where(self.margin <= 0, 0.0, self.size)
        self.first = torch.where(self.margin <= 0, self.forwards, self.first)

    def charge(self, sample: Tensor, live: Tensor, backward: bool, forward: bool = True) -> None:
        """A forward, and a backward, for each live row."""
        count = live.to(torch.int64)
        if forward:
            self.forwards.index_add_(0, sample, count)
        if backward:
            self.backwards.index_add_(0, sample, count)

    def see(self, rows: Rows, points: Tensor, reply: Reply, where: tuple[Tensor, Tensor, Tensor]) -> None:
        """Note the answers of one question; `where` is (sample, item, live), each (b,)."""
        sample, item, live = where
        margin = reply.margin.to(self.margin.dtype)
        self.finite.index_put_((sample,), self.finite[sample] | (~margin.isnan() & live))
        self.dead.index_add_(0, sample, (reply.dead & live).to(torch.int64))
        # NaN compares false; a point that breaks nothing is no candidate for the smallest one
        better = live & (margin <= 0 if self.smallest else margin < self.margin[sample])
        # a stand-in's margin is kept until `settle` reads the model's, and only where nothing fell yet
        better &= reply.sure | (self.margin[sample] > 0) & (margin > 0) & ~reply.rough
        boxed = rows.limits is not None and not self.smallest
        if boxed and bool(better.any()):
            better &= inside(rows, points)  # two comparisons, cheaper than picking the rows out
        index = better.nonzero()[:, 0]
        if len(index) == 0:
            return
        if len(index) < len(sample):
            points, margin, sample, item = take((points, margin, sample, item), index)
            rows = rows if boxed else take(rows, index)
        size = self._size(rows, points)
        admissible = better[index] if boxed else size < self.size[sample] if self.smallest else inside(rows, points)
        if not bool(admissible.all()):
            index = admissible.nonzero()[:, 0]
            points, margin, sample, item, size = take((points, margin, sample, item, size), index)
        self._keep(points, margin, sample, item, size)

    def doubtful(self, reply: Reply, where: tuple[Tensor, Tensor, Tensor], slack: float) -> Tensor:
        """(b,) rows of standing samples that may break the model, by a stand-in's word."""
        sample, _, live = where
        return live & ~reply.sure & (reply.margin <= slack) & (self.margin[sample] > 0)

    def settle(self, index: Tensor, margin: Tensor) -> None:
        """What the model itself says at the best points of these samples."""
        self.margin[index] = margin.to(self.margin.dtype)
        fell = (margin <= 0) & (self.first[index] < 0)
        self.first[index] = torch.where(fell, self.forwards[index], self.first[index])

    def _size(self, rows: Rows, points: Tensor) -> Tensor:
        """(b,) the gauge of each point where sizes are what is kept; inf outside the domain."""
        if not self.smallest:
            return torch.full((len(points),), torch.inf, dtype=torch.float64, device=points.device)
        finite = points.isfinite().flatten(1).all(1)
        size = rows.set.gauge(rows.x0, torch.where(per_row(finite, points), points, rows.x0))
        return torch.where(finite, size, torch.inf)

    def _keep(self, points: Tensor, margin: Tensor, sample: Tensor, item: Tensor, size: Tensor) -> None:
        kept = self.point if self.point is not None else points.new_zeros(len(self.margin), *points.shape[1:])
        winners = _smallest_of_each(sample, size if self.smallest else margin)
        if len(winners) < len(sample):
            points, margin, sample, item, size = take((points, margin, sample, item, size), winners)
        fell = (margin <= 0) & (self.first[sample] < 0)
        self.first[sample] = torch.where(fell, self.forwards[sample], self.first[sample])
        self.margin[sample] = margin
        self.size[sample] = size
        kept[sample] = points
        self.point = kept
        self.item[sample] = item

    @property
    def fallen(self) -> Tensor:
        """(n,) the goal is reached: m ≤ 0."""
        return self.margin <= 0


def _smallest_of_each(sample: Tensor, value: Tensor) -> Tensor:
    """Row indexes of each sample's smallest value, the first among equals."""
    by_value = value.argsort(stable=True)
    order = by_value[sample[by_value].argsort(stable=True)]
    ordered = sample[order]
    head = torch.ones_like(ordered, dtype=torch.bool)
    head[1:] = ordered[1:] != ordered[:-1]
    return order[head]


def report(rows: Rows, tracker: Tracker, work: Work, answerer: Answerer, stopped: bool) -> Outcome:
    """The outcome of a run, as far as it went."""
    # minimum attacks also ask outside the set: finite logits there say nothing about the set
    seen = tracker.finite if tracker.smallest else tracker.within | (tracker.margin < torch.inf)
    success, finite = tracker.fallen.tolist(), seen.tolist()

    def status(s: int) -> Status:
        if success[s]:
            return "ok"
        if s in answerer.errors:
            return "error"
        if stopped and not work.over(s):
            return "stopped"
        return "ok" if finite[s] else "nan"

    point = tracker.point if tracker.point is not None else rows.x0.new_zeros(len(rows), 0)
    size = tracker.size
    if not tracker.smallest and bool(tracker.fallen.any()):
        index = tracker.fallen.nonzero()[:, 0]
        fell = take(rows, index)
        size = size.index_copy(0, index, fell.set.gauge(fell.x0, point[index]))
    return Outcome(
        ids=rows.ids,
        clean=rows.x0.new_zeros(len(rows), answerer.model.classes) if rows.clean is None else rows.clean,
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
        size=size,
        status=tuple(status(s) for s in range(len(rows))),
        message=tuple(answerer.errors.get(s, "") for s in range(len(rows))),
        parametric=rows.set.parametric,
        notes=tuple(answerer.notes),
    )
