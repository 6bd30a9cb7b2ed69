"""Branch and bound on the input box, for few inputs.

    lines below every atom on many boxes at once (boxes.py)  →  clauses whose best mixture is > 0 are closed  →
    clip: where a line is > 0 nothing violates, so that part of the box is closed by the same line  →  bisect the rest

The coordinate to bisect is the one with the largest strain_i · width: the relaxation's errors, |coefficient| · distance
of the two lines of every neuron, handed down to the inputs in proportion to |W| (where a bounder does not say, |a_i|).
Against |a_i| alone this needs a third to a ninth of the boxes on safenlp and acasxu.
Clipping is "relaxed clip-and-verify" (Zhou et al. 2025, arXiv 2512.11087, §3.1): with the line's minimum m < 0 at a
corner, ⟨a, x⟩ + c > 0 as soon as coordinate i is further than −m / |a_i| from that corner.
Depth first; a stack of boxes in float64; boxes are told apart by masks of the clauses they still owe.
A box whose bound lies within rounding of 0 waits for float64, where the same search goes on once the others are done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from saddlepoint.bound.backward import OutOfTime
from saddlepoint.bound.search.boxes import Line
from saddlepoint.bound.search.mix import mixture
from saddlepoint.bound.search.record import Recorder
from saddlepoint.bound.search.task import Found, Refute, Task

GAIN = 0.1  # a clip must take this part of a side
ROUND = 0.1  # seconds that a round should take
FORWARD = 20  # times the slack that backward bounds need: rounding goes through every layer twice
MISSES = 4096  # points where the property fails but no witness was accepted, after which no box can be expected to hold


@runtime_checkable
class Bounder(Protocol):
    """Boxes (b, d) of the free inputs → lines below every row, with bound sets of one effort."""

    effort: ClassVar[int]
    """As spec/certificate.py numbers it."""

    def __call__(self, lower: Tensor, upper: Tensor, /) -> Line:
        """The lines."""
        ...


@dataclass(frozen=True)
class Boxes:
    """lower, upper (b, d) float64, node (b,), owed bool (b, clauses), value (b,): the parent's bound."""

    lower: Tensor
    upper: Tensor
    node: np.ndarray
    owed: Tensor
    value: Tensor

    def take(self, index: Tensor) -> Boxes:
        """Some boxes."""
        return Boxes(
            self.lower[index], self.upper[index], self.node[index.numpy()], self.owed[index], self.value[index]
        )


@dataclass(frozen=True)
class Level:
    """One precision of the search: the task in it, and what bounds boxes there."""

    task: Task
    bounder: Bounder


@dataclass
class InputSearch:
    """The state of one search. `free` are the inputs that vary; `batch` boxes are bounded at once.

    fine: the level in float64, made when a box needs it; None where the task is in float64 already.
    """

    level: Level
    free: Tensor
    batch: int
    recorder: Recorder
    largest: int = 256
    fine: Callable[[], Level] | None = None

    def __post_init__(self) -> None:
        self.visited = 0
        self.stuck = False
        self.missed = 0
        self.least = torch.inf  # of the bounds that closed something
        self.witness: Tensor | None = None
        query = self.task.query
        owed = torch.ones((1, self.task.clauses), dtype=torch.bool)
        node = np.zeros(1, dtype=np.int64)
        start = Boxes(
            query.lower[self.free][None], query.upper[self.free][None], node, owed, torch.tensor([-torch.inf])
        )
        self.stack = [start]
        self.waiting: list[Boxes] = []  # for float64

    @property
    def task(self) -> Task:
        """In the precision of now."""
        return self.level.task

    @property
    def open(self) -> int:
        """Boxes that are left."""
        return sum(len(b.node) for b in self.stack + self.waiting)

    @property
    def lower(self) -> float:
        """A lower bound of the property's value."""
        if self.stuck:
            return -torch.inf
        return min((float(b.value.min()) for b in self.stack + self.waiting), default=self.least)

    def run(self, deadline: float, refute: Refute | None, most: int | None = None) -> Found:
        """Until nothing is left, a witness is found, the deadline comes, or `most` boxes were bounded."""
        limit = torch.inf if most is None else self.visited + most
        while self.open and self.witness is None and time.monotonic() < deadline and self.visited < limit:
            if self.missed >= MISSES:
                break
            if not self.stack:
                self._refine()
            boxes, start = self._pop(), time.monotonic()
            try:
                self._round(boxes, refute)
            except OutOfTime:
                self.stack.append(boxes)
                break
            self.visited += len(boxes.node)
            self._pace(time.monotonic() - start)
        if self.witness is not None:
            return Found("violated", self.lower, self.witness, None, self.visited)
        done = not self.open and not self.stuck
        return Found("holds" if done else "open", self.lower, None, None, self.visited)

    def _refine(self) -> None:
        """Go on in float64 with the boxes that wait for it."""
        if self.fine is None:
            raise RuntimeError("boxes wait for a precision that there is not")
        self.level, self.fine = self.fine(), None
        self.stack, self.waiting = self.waiting, []

    def _pace(self, seconds: float) -> None:
        """Rounds of a tenth of a second or so: the deadline is looked at between them."""
        if seconds > 2 * ROUND:
            self.batch = max(1, self.batch // 2)
        elif seconds < ROUND / 2:
            self.batch = min(self.largest, 2 * self.batch)

    def _pop(self) -> Boxes:
        boxes = self.stack.pop()
        extra = len(boxes.node) - self.batch
        while extra < 0 and self.stack:  # small leftovers go together
            other = self.stack.pop()
            boxes = _joined(other, boxes)
            extra = len(boxes.node) - self.batch
        if extra > 0:
            every = torch.arange(len(boxes.node))
            self.stack.append(boxes.take(every[:extra]))
            boxes = boxes.take(every[extra:])
        return boxes

    def _round(self, boxes: Boxes, refute: Refute | None) -> None:
        lower, upper = boxes.lower.to(self.task.dtype), boxes.upper.to(self.task.dtype)
        line = self.level.bounder(lower, upper)
        slack = self.task.slack * _size(line, lower, upper) * (FORWARD if self.level.bounder.effort == 2 else 1)
        values, weights = self._values(line, lower, upper)
        proven = boxes.owed & (values > slack.unsqueeze(1))
        self._close(boxes, proven, values, weights)
        owed = boxes.owed & ~proven
        lowest, clause = torch.where(owed, values, torch.inf).min(1)
        rest = Boxes(boxes.lower, boxes.upper, boxes.node, owed, lowest.double())
        unsure = lowest.abs() <= slack if self.fine is not None else torch.zeros_like(owed[:, 0])
        if bool(unsure.any()):
            self.waiting.append(rest.take(unsure.nonzero().flatten()))
        left = (owed.any(1) & ~unsure).nonzero().flatten()
        if len(left) == 0:
            return
        rest = rest.take(left)
        mine = Line(line.a[left], line.c[left])
        if refute is not None and self._refuted(mine, rest, clause[left], weights, left, refute):
            self.stack.append(rest)
            return
        rest = self._clip(rest, mine, slack[left])
        towards = self._direction(mine, clause[left], weights, left)
        strain = towards if line.strain is None else line.strain[left]
        self._bisect(rest, strain)

    def _values(self, line: Line, lower: Tensor, upper: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Per clause the best mixture: values (b, clauses) and weights, one (b, atoms) per clause."""
        values, weights = [], []
        for clause in range(self.task.clauses):
            rows = self.task.members(clause)
            mix, value = mixture(Line(line.a[:, rows], line.c[:, rows]), lower, upper)
            values.append(value)
            weights.append(mix)
        return torch.stack(values, 1), weights

    def _close(self, boxes: Boxes, proven: Tensor, values: Tensor, weights: list[Tensor]) -> None:
        some = proven.any(1).nonzero().flatten()
        if len(some) == 0:
            return
        self.least = min(self.least, float(values[proven].min()))
        sets = np.zeros(len(boxes.node), dtype=np.int64)
        sets[some.numpy()] = self.recorder.bounded(boxes.node[some.numpy()], effort=self.level.bounder.effort)
        for clause in range(self.task.clauses):
            done = proven[:, clause].nonzero().flatten()
            if len(done):
                node = boxes.node[done.numpy()]
                line = self.recorder.line(node, sets[done.numpy()], clause, weights[clause][done])
                self.recorder.close(node, line)

    def _direction(self, line: Line, clause: Tensor, weights: list[Tensor], left: Tensor) -> Tensor:
        """The mixed coefficients (b, d) of every box's worst clause."""
        a = line.a.new_zeros((len(left), line.a.shape[2]))
        for c in range(self.task.clauses):
            rows = self.task.members(c)
            mixed = torch.bmm(weights[c][left].unsqueeze(1), line.a[:, rows]).squeeze(1)
            a = torch.where((clause == c).unsqueeze(1), mixed, a)
        return a

    def _refuted(
        self, line: Line, rest: Boxes, clause: Tensor, weights: list[Tensor], left: Tensor, refute: Refute
    ) -> bool:
        """Look at the corner where the worst line is lowest, and at the centre."""
        a = self._direction(line, clause, weights, left)
        corner = torch.where(a > 0, rest.lower, rest.upper)
        points = self.task.query.lower.repeat(2 * len(left), 1)
        points[:, self.free] = torch.cat([corner, (rest.lower + rest.upper) / 2])
        low, high = self.task.query.witness_box
        points = torch.minimum(torch.maximum(points, low), high)
        bad = (self.task.value(points) <= 0).nonzero().flatten()
        if len(bad):
            self.witness = refute(points[bad[:64]])
            if self.task.dtype is torch.float64:  # more precise than what is deployed, which may not fail where f ≤ 0
                self.missed += len(bad)
        return self.witness is not None

    def _clip(self, rest: Boxes, line: Line, slack: Tensor) -> Boxes:
        """Cut off what single rows decide; only where one clause is owed, as a row speaks for its clause alone."""
        single = rest.owed.sum(1) == 1
        node, sets = rest.node.copy(), np.full(len(rest.node), -1, dtype=np.int64)
        lower, upper = rest.lower.clone(), rest.upper.clone()
        for row in range(line.a.shape[1]):
            clause = int(self.task.clause[row])
            a, c = line.a[:, row].double(), line.c[:, row].double()
            reach = (a * torch.where(a > 0, lower, upper)).sum(1) + c - 2 * slack.double()
            # beyond lower + reach / |a| (or before upper − …) the row is > slack
            far = -reach.unsqueeze(1) / a.abs()
            cut = far < (1 - GAIN) * (upper - lower)
            cut &= (single & rest.owed[:, clause] & (reach < 0)).unsqueeze(1) & (far > 0)
            if not bool(cut.any()):
                continue
            touched = cut.any(1).nonzero().flatten().numpy()
            fresh = touched[sets[touched] < 0]
            sets[fresh] = self.recorder.bounded(rest.node[fresh], effort=self.level.bounder.effort)
            member = int((self.task.members(clause) == row).nonzero())
            weight = torch.zeros((len(touched), self.task.most))
            weight[:, member] = 1.0
            lines = np.full(len(node), -1, dtype=np.int64)
            lines[touched] = self.recorder.line(rest.node[touched], sets[touched], clause, weight)
            for i in cut.any(0).nonzero().flatten().tolist():
                which = cut[:, i].nonzero().flatten()
                rising = a[which, i] > 0
                at = torch.where(rising, lower[which, i] + far[which, i], upper[which, i] - far[which, i])
                w = which.numpy()
                below, above = self.recorder.split(node[w], 0, np.full(len(w), int(self.free[i])), at.numpy())
                kept = np.where(rising.numpy(), below, above)
                self.recorder.close(np.where(rising.numpy(), above, below), lines[w])
                node[w] = kept
                upper[which, i] = torch.where(rising, at, upper[which, i])
                lower[which, i] = torch.where(rising, lower[which, i], at)
        return Boxes(lower, upper, node, rest.owed, rest.value)

    def _bisect(self, rest: Boxes, a: Tensor) -> None:
        """Split each box in two, or in more while the batch is far from full."""
        if rest.lower.shape[1] == 0:
            self.stuck = True  # one point, and rounding decides
            return
        narrow = (rest.upper - rest.lower).amax(1) <= 4 * torch.finfo(torch.float64).eps * rest.upper.abs().amax(1)
        if bool(narrow.any()):  # nothing lies between its limits: such a box stays open
            self.stuck = True
            wide = (~narrow).nonzero().flatten()
            rest, a = rest.take(wide), a[wide]
        parts = [rest]
        score = a.abs().clamp_min(torch.finfo(a.dtype).tiny).double() * (rest.upper - rest.lower)
        depth = 1
        while depth < 3 and len(rest.node) * 2 ** (depth + 1) <= self.batch and self.open < self.batch:
            depth += 1
        order = score.argsort(1, descending=True)
        for k in range(min(depth, score.shape[1])):
            parts = [half for part in parts for half in self._halves(part, order[:, k])]
        children = parts[0]
        for part in parts[1:]:
            children = _joined(children, part)
        self.stack.append(children.take(children.value.argsort(descending=True)))

    def _halves(self, boxes: Boxes, coordinate: Tensor) -> tuple[Boxes, Boxes]:
        every = torch.arange(len(boxes.node))
        low, high = boxes.lower[every, coordinate], boxes.upper[every, coordinate]
        middle = (low + high) / 2
        below, above = self.recorder.split(boxes.node, 0, self.free[coordinate].numpy(), middle.numpy())
        upper, lower = boxes.upper.clone(), boxes.lower.clone()
        upper[every, coordinate] = middle
        lower[every, coordinate] = middle
        return (
            Boxes(boxes.lower, upper, below, boxes.owed, boxes.value),
            Boxes(lower, boxes.upper, above, boxes.owed, boxes.value),
        )


def _size(line: Line, lower: Tensor, upper: Tensor) -> Tensor:
    """Of the numbers that a bound is added up from, (b,)."""
    size = torch.maximum(lower.abs(), upper.abs())
    sums = torch.bmm(line.a.abs(), size.unsqueeze(2)).squeeze(2) + line.c.abs()
    return sums.amax(1)


def _joined(first: Boxes, second: Boxes) -> Boxes:
    return Boxes(
        torch.cat([first.lower, second.lower]),
        torch.cat([first.upper, second.upper]),
        np.concatenate([first.node, second.node]),
        torch.cat([first.owed, second.owed]),
        torch.cat([first.value, second.value]),
    )
