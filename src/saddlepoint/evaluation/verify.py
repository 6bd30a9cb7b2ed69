"""One network against one specification: sat, unsat, unknown or timeout, with the evidence.

    attack (a round)  →  search, its candidates judged on the way  →  certificates checked, importer compared

`sat` rests on a counterexample that the deployed runtime confirms with no tolerance. `unsat` rests on one certificate
per box that an independent checker accepted, and on the captured graph agreeing with the runtime on every box. Without
either the word is `unknown`, or `timeout` where the time ran out before.
All steps share one deadline; a part of it is kept for the check.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from saddlepoint.adapters.vnnlib import Specification
from saddlepoint.attack.property import PropertyAttack
from saddlepoint.bound.search import Found, search
from saddlepoint.check.certificate import Ruling, judge
from saddlepoint.check.counterexample import Counterexample
from saddlepoint.core.errors import ImporterDisagreement, InputError, NonFinite, NotAvailable, UnsupportedOperator
from saddlepoint.evaluation.refuting import Refuter, short
from saddlepoint.graph.agreement import agree_on_box
from saddlepoint.graph.ir import Graph
from saddlepoint.spec.certificate import Certificate
from saddlepoint.spec.query import Query

Deployed = Callable[[Tensor], Tensor]  # outputs (n, …) for inputs (n, …), as the user's runtime computes them
Word = Literal["sat", "unsat", "unknown", "timeout"]

OPENING = 0.05  # seconds of a glance at one box
WHOLE = 3.0  # seconds, at most, of a whole round on one box
BEFORE = 0.06  # of the time, at most, for all of the attack before the search
RESERVED = 0.33  # of the time, for the check of the certificates: about half of what the search took
BOXES = 32  # boxes on which the importer is compared with the runtime, where there are more


@runtime_checkable
class Search(Protocol):
    """bound/search's function, or another one that keeps its promises."""

    def __call__(
        self, graph: Graph, query: Query, /, *, deadline: float, refute: Callable[[Tensor], Tensor | None]
    ) -> Found:
        """holds with a certificate, violated, or open."""
        ...


@runtime_checkable
class Check(Protocol):
    """check/certificate's judge, or another one."""

    def __call__(self, graph: Graph, query: Query, certificate: Certificate, /, *, deadline: float) -> Ruling:
        """Whether the certificate shows that the query holds."""
        ...


@dataclass(frozen=True)
class Problem:
    """A captured network, what is asked about it, and the deployed runtime, opened when it is needed."""

    graph: Graph
    specification: Specification
    open_runtime: Callable[[], Deployed]


@dataclass(frozen=True)
class Methods:
    """Who attacks, searches and checks. Without a check there is no `unsat`."""

    attack: PropertyAttack = field(default_factory=PropertyAttack)
    search: Search = search
    check: Check | None = judge


@dataclass(frozen=True, eq=False)
class Answer:
    """The word, why, and what it rests on. `seconds` by stage."""

    word: Word
    reason: str
    counterexample: Counterexample | None = None
    certificates: tuple[Certificate, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


def verify(problem: Problem, deadline: float, methods: Methods | None = None) -> Answer:
    """Answer before `deadline`, a time of time.monotonic(). Raises InputError where network and file do not fit."""
    _fit(problem)
    return _Run(problem, deadline, methods or Methods()).answer()


class _Run:
    """One verification under way."""

    def __init__(self, problem: Problem, deadline: float, methods: Methods) -> None:
        self.problem, self.graph, self.methods = problem, problem.graph, methods
        self.queries = problem.specification.queries
        self.begun, self.deadline = time.monotonic(), deadline
        whole = max(0.0, deadline - self.begun)
        self.attack_until, self.search_until = self.begun + BEFORE * whole, deadline - RESERVED * whole
        self.seconds: dict[str, float] = {}
        self.certificates: dict[int, Certificate] = {}  # by box
        self.open: dict[int, str] = {}  # why boxes are open
        self._runtime: Deployed | None = None

    def answer(self) -> Answer:
        """Attack every box, search every box, check."""
        if not self.queries:
            return self._end("unsat", "the constraints of the file contradict each other: no point is asked for")
        if not all(bool(t.isfinite().all()) for _, t in self.graph.tensors() if t.is_floating_point()):
            return self._end("unknown", "the network has weights that are NaN or infinite: nothing can be shown of it")
        clauses = max(len(q.property.clauses) for q in self.queries)
        attack = short(self.methods.attack, clauses)
        refuters = [Refuter(self.graph, query, self._deployed, attack) for query in self.queries]
        with self._timed("attack"):
            struck = self._attacked(refuters)
        if struck is not None:
            return self._sat(struck)
        pending = list(range(len(refuters)))
        while pending and time.monotonic() < self.search_until:
            cut = []
            for i, k in enumerate(pending):
                now = time.monotonic()
                until = now + (self.search_until - now) / (len(pending) - i)
                self._search(k, refuters[k], until)
                if refuters[k].found is not None:
                    return self._sat(refuters[k])
                if k in self.open and time.monotonic() >= until:
                    cut.append(k)
            pending = cut  # boxes that their share of the time cut off share what the others have left
        if len(self.certificates) == len(self.queries):
            return self._checked()
        return self._undecided(refuters)

    def _attacked(self, refuters: list[Refuter]) -> Refuter | None:
        """A glance at every box, then whole rounds where a glance was too short for one; the box that fell."""
        for least in (OPENING, WHOLE):
            for refuter in refuters:
                now = time.monotonic()
                if (
                    now < self.attack_until
                    and not refuter.whole
                    and refuter.strike(min(self.attack_until, now + least))
                ):
                    return refuter
        return None

    def _undecided(self, refuters: list[Refuter]) -> Answer:
        """timeout or unknown, with what is open and what was dropped."""
        first = next((self.open[k] for k in sorted(self.open)), "no time was left for them")
        reason = f"{len(self.queries) - len(self.certificates)} of {len(self.queries)} boxes are open: {first}"
        dropped = Counter[str]()
        for refuter in refuters:
            dropped.update(refuter.dismissed)
        for why, count in dropped.most_common(2):
            reason += f"; {count} candidates dropped: {why}"
        return self._end("timeout" if time.monotonic() >= self.search_until else "unknown", reason)

    def _search(self, k: int, refuter: Refuter, until: float) -> None:
        """Searches box k; keeps its certificate, or why there is none."""
        refuter.before(until)
        found, why = self._found(refuter, until)
        if not self._proven(k, found) and refuter.found is None:
            self.open[k] = why

    def _found(self, refuter: Refuter, until: float) -> tuple[Found | None, str]:
        """What the search finds, or None where it cannot treat the network; and why that is no proof."""
        with self._timed("search"):
            try:
                found = self.methods.search(self.graph, refuter.query, deadline=until, refute=refuter)
            except (UnsupportedOperator, NotAvailable) as error:
                return None, str(error)
        if found.status == "holds":
            return found, "the search claims it without a certificate"
        return found, f"the property's value is above {found.lower:.6g} after {found.visited} domains"

    def _proven(self, k: int, found: Found | None) -> bool:
        """Keeps the certificate of box k."""
        if found is None or found.status != "holds" or found.certificate is None:
            return False
        self.certificates[k] = found.certificate
        self.open.pop(k, None)
        return True

    def _checked(self) -> Answer:
        """unsat, if the importer agrees and every certificate is accepted."""
        with self._timed("agreement"):
            try:
                for lower, upper in self._boxes():
                    agree_on_box(self.graph, self._runtime_once(), lower, upper)
            except (ImporterDisagreement, NonFinite) as error:
                return self._end("unknown", str(error))
        check = self.methods.check
        if check is None:
            return self._end("unknown", "all boxes hold by the search, but there is no checker for its certificates")
        leaves, lowest = 0, math.inf
        with self._timed("check"):
            for k, query in enumerate(self.queries):
                ruling = check(self.graph, query, self.certificates[k], deadline=self.deadline)
                if not ruling.accepted:
                    late = time.monotonic() >= self.deadline
                    reason = f"certificate {k} was not accepted: {ruling.reason}"
                    return self._end("timeout" if late else "unknown", reason)
                leaves, lowest = leaves + ruling.leaves, min(lowest, ruling.lowest)
        reason = f"{len(self.certificates)} certificates were accepted, {leaves} leaves, smallest margin {lowest:.3g}"
        return self._end("unsat", reason)

    def _boxes(self) -> list[tuple[Tensor, Tensor]]:
        """Every query's box; of many, some spread over the file and the hull of all."""
        boxes = [(query.lower, query.upper) for query in self.queries]
        if len(boxes) <= BOXES:
            return boxes
        lower, upper = (torch.stack(side) for side in zip(*boxes, strict=True))
        return [(lower.amin(0), upper.amax(0)), *boxes[:: -(-len(boxes) // BOXES)]]

    def _sat(self, refuter: Refuter) -> Answer:
        return self._end("sat", "a counterexample was confirmed by the runtime", refuter.found)

    def _end(self, word: Word, reason: str, counterexample: Counterexample | None = None) -> Answer:
        kept = tuple(self.certificates[k] for k in sorted(self.certificates))
        return Answer(word, reason, counterexample, kept, self.seconds)

    def _deployed(self, points: Tensor) -> Tensor:
        """The runtime's outputs at flat points."""
        return self._runtime_once()(points.view(-1, *self.graph.input_shape)).flatten(1)

    def _runtime_once(self) -> Deployed:
        if self._runtime is None:
            self._runtime = self.problem.open_runtime()
        return self._runtime

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - begun


def _fit(problem: Problem) -> None:
    stated = problem.specification.inputs, problem.specification.outputs
    graph = problem.graph
    sizes = math.prod(graph.input_shape), math.prod(graph.output_shape)
    if stated != sizes:
        raise InputError(
            f"the specification has {stated[0]} inputs and {stated[1]} outputs, the network {sizes[0]} and {sizes[1]}.",
            "Are they of the same benchmark?",
        )
    if graph.dtype not in (torch.float32, torch.float64):
        raise InputError(f"the network computes in {graph.dtype}.", "Export it in float32.")
