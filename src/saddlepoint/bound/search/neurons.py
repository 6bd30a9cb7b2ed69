"""Branch and bound over hidden neurons (Bunel et al. 2018; Wang et al. 2021, arXiv 2103.06624, §3.3).

    take the worst domains  →  split each at the entry that promises most (branching.py), several deep while the
    batch is not full  →  climb on all children at once (climb.py)  →  close what is proven, keep the rest

Bounds of the free entries come from the root (root.py), cut with a domain's splits. A domain whose entries are all
split is an exact linear program, which is solved as one (leaf.py): the search is complete up to rounding.
A domain belongs to one clause; clauses that split alike share the tree's nodes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from saddlepoint.bound.search.branching import candidates, scores, thresholds
from saddlepoint.bound.search.climb import Batch, Best, Climb, Point
from saddlepoint.bound.search.domains import Domains, joined
from saddlepoint.bound.search.leaf import exact_leaf
from saddlepoint.bound.search.record import Recorder
from saddlepoint.bound.search.root import Root
from saddlepoint.bound.search.task import Found, Refute, Task
from saddlepoint.bound.search.walk import Splits, Start

TRIED = 3  # candidates of each score
LOOK = 16  # minimisers that are tried as counterexamples in a round


@dataclass(frozen=True)
class Pace:
    """steps and rates of the climb below the root; `entries`: numbers of one (domain, entry) array of a batch."""

    steps: int = 12
    rate: float = 0.05
    rate_beta: float = 0.1
    entries: int = 1 << 17
    largest: int = 256


class NeuronSearch:
    """The state of one search below `root`."""

    def __init__(self, root: Root, recorder: Recorder, pace: Pace | None = None) -> None:
        self.root, self.recorder = root, recorder
        self.pace = pace or Pace()
        self.task: Task = root.task
        self.visited = 0
        self.stuck = False
        self.least = torch.inf
        self.witness: Tensor | None = None
        self.pool: list[Domains] = []
        self.twins: dict[tuple[int, int, int, float], tuple[int, int]] = {}
        width = max(1, len(root.lower))
        self.batch = max(4, min(self.pace.largest, self.pace.entries // width))

    @property
    def open(self) -> int:
        """Domains that are left."""
        return sum(len(p) for p in self.pool)

    @property
    def lower(self) -> float:
        """A lower bound of the property's value."""
        if self.stuck:
            return -torch.inf
        return min([self.least, *(float(p.bound.min()) for p in self.pool)])

    def begin(self, clauses: list[int], weights: Tensor, steps: int, deadline: float) -> None:
        """Climb at the root for these clauses, mixed with `weights` (clauses, rows of the task)."""
        count, self.pool = len(clauses), []
        self.weights = dict(zip(clauses, weights, strict=True))
        batch = self.root.batch(count)
        zero = torch.zeros_like(batch.lower)
        domains = Domains(
            batch.lower.clone(),
            batch.upper.clone(),
            zero.to(torch.int8),
            zero,
            (self.root.sites.ramp(batch.lower, batch.upper) * 255).round().to(torch.uint8),
            zero,
            torch.full((count,), -torch.inf, dtype=self.task.dtype),
            torch.tensor(clauses),
            torch.zeros((count, 0), dtype=torch.int64),
            torch.zeros((count, 0), dtype=torch.bool),
            np.zeros(count, dtype=np.int64),
            ((),) * count,
        )
        self._bound(domains, Climb(self.root.walk, self.task.graph.output, steps, deadline=deadline), None)

    def run(self, deadline: float, refute: Refute | None) -> Found:
        """Until nothing is left, a witness is found, or the deadline comes."""
        climb = Climb(
            self.root.walk,
            self.task.graph.output,
            self.pace.steps,
            self.pace.rate,
            rate_beta=self.pace.rate_beta,
            deadline=deadline,
        )
        while self.pool and self.witness is None and time.monotonic() < deadline:
            parents = self._worst()
            children = self._children(parents, refute)
            if len(children):
                self._bound(children, climb, refute)
        if self.witness is not None:
            return Found("violated", self.lower, self.witness, None, self.visited)
        done = not self.pool and not self.stuck
        return Found("holds" if done else "open", self.lower, None, None, self.visited)

    def start(self, clause: Tensor) -> Start:
        """The mixed rows of some clauses."""
        mix = torch.stack([self.weights[int(c)] for c in clause])
        task = self.task
        rows = {task.graph.output: mix @ task.z}
        if bool(task.x.any()):
            rows[task.graph.input] = mix @ task.x
        return Start(rows, mix @ task.b)

    def _worst(self) -> Domains:
        """Up to half a batch of the newest domains, the lowest bounds of a part first: depth first."""
        room, taken = max(1, self.batch // 2), []
        while self.pool and room > 0:
            part = self.pool.pop()
            if len(part) > room:
                order = part.bound.argsort()
                self.pool.append(part.take(order[room:]))
                part = part.take(order[:room])
            taken.append(part)
            room -= len(part)
        return joined(taken)

    def _children(self, parents: Domains, refute: Refute | None) -> Domains:
        """Both halves of every parent; more halvings by its next columns while the batch is not full."""
        usable = parents.allowed.any(1)
        for i in (~usable).nonzero().flatten().tolist():
            self._finish(parents.take(torch.tensor([i])), refute)
        parents = parents.take(usable.nonzero().flatten())
        if len(parents) == 0:
            return parents
        depth = max(1, int(np.log2(self.batch / len(parents))))
        first = self._best_column(parents)
        parts = self._halves(parents, first)
        for k in range(parents.columns.shape[1]):
            if depth <= 1:
                break
            column = parents.columns[:, k]
            if bool((~parents.allowed[:, k] | (column == first)).any()) or self._repeated(parents, first, k):
                continue
            depth -= 1
            parts = [half for part in parts for half in self._halves(part, column)]
        return joined(parts)

    def _repeated(self, parents: Domains, first: Tensor, k: int) -> bool:
        """Whether column k was used by an earlier halving of some row."""
        return bool((parents.columns[:, :k] == parents.columns[:, k : k + 1]).any())

    def _halves(self, parents: Domains, column: Tensor) -> list[Domains]:
        rows = torch.arange(len(parents))
        at = thresholds(self.root.sites, parents.lower, parents.upper)[rows, column]
        ids = [self._twins(int(n), int(c), float(t)) for n, c, t in zip(parents.node, column, at, strict=True)]
        halves = []
        for side, sign in ((0, 1), (1, -1)):
            lower, upper = parents.lower.clone(), parents.upper.clone()
            (upper if side == 0 else lower)[rows, column] = at
            signs, cuts, beta = parents.sign.clone(), parents.threshold.clone(), parents.beta.clone()
            signs[rows, column], cuts[rows, column], beta[rows, column] = sign, at, 0.0
            step = [((int(c), sign, float(t)),) for c, t in zip(column, at, strict=True)]
            path = tuple(p + s for p, s in zip(parents.path, step, strict=True))
            node = np.array([pair[side] for pair in ids], dtype=np.int64)
            changed = {"lower": lower, "upper": upper, "sign": signs, "threshold": cuts, "beta": beta}
            halves.append(replace(parents, **changed, node=node, path=path))
        return halves

    def _twins(self, parent: int, column: int, at: float) -> tuple[int, int]:
        """The two nodes of a split; one that another clause has made already is used again."""
        site = next(s for s in self.root.sites.sites if s.start <= column < s.start + len(s.free))
        entry = int(site.free[column - site.start])
        key = (parent, site.source_index, entry, at)
        if key not in self.twins:
            below, above = self.recorder.split(np.array([parent]), site.source_index, np.array([entry]), np.array([at]))
            self.twins[key] = (int(below[0]), int(above[0]))
        return self.twins[key]

    def _best_column(self, parents: Domains) -> Tensor:
        """Try every candidate by one walk for each half: the column whose worse half is best."""
        count, tried = parents.columns.shape
        if tried == 1:
            return parents.columns[:, 0]
        parts = [half for k in range(tried) for half in self._trial(parents, parents.columns[:, k])]
        value = torch.stack(parts).view(tried, 2, count).amin(1).T
        value = torch.where(parents.allowed & ~torch.isnan(value), value, -torch.inf)
        return parents.columns.gather(1, value.argmax(1, keepdim=True)).squeeze(1)

    def _trial(self, parents: Domains, column: Tensor) -> list[Tensor]:
        rows = torch.arange(len(parents))
        at = thresholds(self.root.sites, parents.lower, parents.upper)[rows, column]
        start, values = self.start(parents.clause), []
        for side in (0, 1):
            lower, upper = parents.lower.clone(), parents.upper.clone()
            (upper if side == 0 else lower)[rows, column] = at
            lines = self.root.walk.lines(lower, upper, parents.choice.to(lower) / 255)
            splits = Splits(parents.beta * parents.sign, parents.threshold)
            walked = self.root.walk.down(start, lines, splits)
            values.append(walked.minimum(self.root.box_lower, self.root.box_upper))
        return values

    def _bound(self, domains: Domains, climb: Climb, refute: Refute | None) -> None:
        """Climb, close what is proven, look for counterexamples, keep the rest."""
        root, deep = self.root, any(domains.path)
        batch = Batch(domains.lower, domains.upper, root.box_lower, root.box_upper)
        point = Point(domains.choice.to(domains.lower) / 255)
        if deep:
            batch = replace(batch, sign=domains.sign, threshold=domains.threshold)
            point = Point(point.choice, domains.beta)
        slack = self._slack(domains)
        best = replace(climb, enough=slack)(self.start(domains.clause), batch, point)
        self.visited += len(domains)
        bound = torch.maximum(best.bound, domains.bound)  # a part is never worse than the whole
        proven = best.bound > slack
        beta = domains.beta if best.point.beta is None else best.point.beta
        choice = (best.point.choice * 255).round().to(torch.uint8)
        changed = {"bound": bound, "beta": beta, "choice": choice}
        domains = replace(domains, **changed)
        self._close(domains.take(proven.nonzero().flatten()))
        left = (~proven).nonzero().flatten()
        if len(left) == 0:
            return
        gap, reach = scores(root.sites, batch, best)
        columns, allowed = candidates(gap, reach, TRIED)
        domains = replace(domains, columns=columns, allowed=allowed)
        self.pool.append(domains.take(left))
        if refute is not None:
            self._look(best, left[bound[left].argsort()[:LOOK]], refute)

    def _look(self, best: Best, rows: Tensor, refute: Refute) -> None:
        """Minimisers of the worst bounds, as points of the query's box."""
        self._try(best.corner[rows].double(), refute)

    def _try(self, points: Tensor, refute: Refute) -> None:
        low, high = self.task.query.witness_box
        points = torch.minimum(torch.maximum(points, low), high)
        bad = (self.task.value(points) <= 0).nonzero().flatten()
        if len(bad):
            self.witness = refute(points[bad])

    def _slack(self, domains: Domains) -> float:
        """How far above 0 a bound must lie to count."""
        size = max(1.0, float(self.root.upper.abs().max()) if len(self.root.upper) else 1.0)
        return 10 * self.task.slack * size

    def _close(self, domains: Domains) -> None:
        """Write leaves."""
        if len(domains) == 0:
            return
        self.least = min(self.least, float(domains.bound.min()))
        choices = {s.index: domains.choice[:, s.columns] for s in self.root.sites.sites if len(s.free)}
        rows = self.recorder.choose(choices) if choices else -1
        longest = max(len(path) for path in domains.path)
        beta = torch.zeros((len(domains), longest))
        for i, path in enumerate(domains.path):
            last = {(column, sign): j for j, (column, sign, _) in enumerate(path)}
            for (column, sign), j in last.items():
                if int(domains.sign[i, column]) == sign and float(domains.threshold[i, column]) == path[j][2]:
                    beta[i, j] = float(domains.beta[i, column])
        weight = torch.zeros((len(domains), self.task.most))
        for i, clause in enumerate(domains.clause.tolist()):
            mine = self.weights[clause][self.task.members(clause)]
            weight[i, : len(mine)] = mine
        splits = torch.tensor([len(path) for path in domains.path])
        bounds = np.full(len(domains), self.root.bounds)
        clause = domains.clause.numpy()
        line = self.recorder.line(domains.node, bounds, clause, weight, rows, beta, splits)
        self.recorder.close(domains.node, line)

    def _finish(self, domain: Domains, refute: Refute | None) -> None:
        """A domain with nothing left to split: its linear program, whose solution is a counterexample or a proof."""
        solved, point = exact_leaf(self, domain)
        if solved is not None:
            self._close(solved)
            return
        self.stuck = True
        if refute is not None and point is not None and self.witness is None:
            self._try(point, refute)
