"""Looking for a witness of one query: candidates from anywhere, judged without tolerance.

    attack before the search  →  candidates of the search  →  descents from them, for a share of the search's time

A candidate becomes a counterexample only where the deployed runtime and exact arithmetic say so
(check/counterexample.py). One that fails is dropped and counted by its reason.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from saddlepoint.attack.property import PropertyAttack, atoms_of, attack_property, region_of
from saddlepoint.check.counterexample import Counterexample, judge
from saddlepoint.graph.ir import Graph
from saddlepoint.spec.query import Query

SHARE = 0.15  # of the search's time, for descents from its candidates
NEAR = 1e-6  # relative to the outputs: the runtime may see a violation where the graph just misses it
NEAR_MISSES = 200  # judged at most


class Refuter:
    """The witness side of one query. `run` is the deployed model on flat points: (n, d) float32 -> (n, k)."""

    def __init__(self, graph: Graph, query: Query, run: Callable[[Tensor], Tensor], attack: PropertyAttack) -> None:
        self.graph, self.query, self.run, self.attack = graph, query, run, attack
        self.found: Counterexample | None = None
        self.dismissed: Counter[str] = Counter()
        self.rounds = 0
        self.whole = False  # whether some round came to its end
        self._region = region_of(query, graph.dtype)
        self._atoms = atoms_of(query.property, self._region.lower, len(query.lower), math.prod(graph.output_shape))
        self._spent = 0.0
        self._near = 0
        self._begun: float | None = None
        self._deadline = math.inf

    def accept(self, points: Tensor) -> Tensor | None:
        """The first of some float64 points that is a counterexample."""
        for point in points:
            verdict = judge(self.query, point, self.run)
            if isinstance(verdict, Counterexample):
                self.found = verdict
                return point
            self.dismissed[verdict.why] += 1
        return None

    def strike(self, deadline: float, start: Tensor | None = None) -> bool:
        """One round of the attack. Whether there is a counterexample now."""
        with torch.enable_grad():
            attack_property(
                self.graph, self.query, self.accept, self.attack, deadline=deadline, seed=self.rounds, start=start
            )
        self.rounds += 1
        self.whole |= time.monotonic() < deadline
        return self.found is not None

    def before(self, deadline: float) -> None:
        """Nothing here goes on after `deadline`."""
        self._deadline = deadline

    def __call__(self, points: Tensor) -> Tensor | None:
        """Look at candidates (n, d) of a search, and descend from them while the share of time lasts."""
        now = time.monotonic()
        self._begun = now if self._begun is None else self._begun
        if self._promising(points) is None and self._spent <= SHARE * (now - self._begun):
            self.strike(min(self._deadline, now + max(0.05, 0.1 * (now - self._begun))), points)
            self._spent += time.monotonic() - now
        return None if self.found is None else self.found.x

    def _promising(self, points: Tensor) -> Tensor | None:
        """Judge the candidates that violate the property on the graph, and a few that nearly do."""
        with torch.no_grad():
            x = self._region.kept(points)
            z = self.graph(x.view(-1, *self.graph.input_shape)).flatten(1)
            values = self._atoms.values(x, z)
            worst = self._atoms.of_clauses(values).amin(1)
            broken = self._atoms.broken(values)
            near = ~broken & (worst <= NEAR * z.abs().amax(1).clamp_min(1.0))
        chosen = broken.nonzero()[:, 0][worst[broken].argsort()[: self.attack.offered]]
        if len(chosen) == 0 and bool(near.any()) and self._near < NEAR_MISSES:
            self._near += 1
            chosen = near.nonzero()[:1, 0]
        return self.accept(self._region.wide(x[chosen]))


def short(attack: PropertyAttack, clauses: int) -> PropertyAttack:
    """The attack before the search: a few rows for every clause."""
    return replace(attack, rows=max(attack.rows, min(4 * clauses, 256)))
