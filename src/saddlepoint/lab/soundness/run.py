"""Asks the verifier about every case and holds its word against the exact answer.

wrong   unsat, but the minimum of the real-valued network is ≤ 0;   sat, but the point lies outside the box or the
        network, computed in float32 as it would be deployed, does not violate f > 0 there;   any claim about NaN
right   sat or unsat otherwise;   unknown and timeout are allowed, and counted
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from saddlepoint.adapters.vnnlib import Specification
from saddlepoint.core.errors import SaddlepointError
from saddlepoint.evaluation.verify import Answer, Problem, verify
from saddlepoint.graph.ir import Graph
from saddlepoint.lab.soundness.cases import Case, cases
from saddlepoint.spec.property import Atom, Property
from saddlepoint.spec.query import Query

SECONDS = 5.0


@dataclass
class Report:
    """Words by family, and every wrong answer with its case's name and why."""

    words: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def asked(self) -> int:
        """How many cases."""
        return sum(sum(c.values()) for c in self.words.values())

    def json(self) -> dict[str, Any]:
        """For a file."""
        words = {family: dict(counts) for family, counts in self.words.items()}
        return {"asked": self.asked, "wrong": self.wrong, "words": words, "seconds": round(self.seconds, 1)}


def self_test(
    count: int = 200,
    seed: int = 0,
    *,
    seconds: float = SECONDS,
    ask: Callable[[Case, float], tuple[str, Tensor | None]] | None = None,
    watch: Callable[[int], None] | None = None,
) -> Report:
    """`count` random tiny nets and the other families; `ask` is the verifier under test (None: our own),
    `seconds` its time for a case."""
    report, begun = Report(), time.perf_counter()
    for k, case in enumerate(cases(count, seed)):
        word, point = (ask or answer)(case, seconds)
        report.words.setdefault(case.family, Counter())[word] += 1
        why = refuted(case, word, point)
        if why:
            report.wrong.append(f"{case.name}: {word}, but {why}")
        if watch is not None:
            watch(k + 1)
    report.seconds = time.perf_counter() - begun
    return report


def answer(case: Case, seconds: float) -> tuple[str, Tensor | None]:
    """Our verifier's word, and its point for sat. A refusal of the case is "unknown"."""
    graph = case.graph
    query = Query(case.lower, case.upper, Property(((Atom((1.0,)),),)))
    specification = Specification(inputs=len(case.lower), outputs=1, queries=(query,))
    try:
        found: Answer = verify(Problem(graph, specification, lambda: _deployed(graph)), time.monotonic() + seconds)
    except SaddlepointError:
        return "unknown", None
    return found.word, None if found.counterexample is None else found.counterexample.x


def refuted(case: Case, word: str, point: Tensor | None) -> str:
    """Why a word is wrong; "" if it is not."""
    if word not in ("sat", "unsat"):
        return ""
    if word == "unsat":
        if case.least is None:
            return "the network is not a number somewhere"
        return "" if case.least > 0 else f"its minimum is {float(case.least):.3g}"
    if point is None:
        return "no point was given"
    if bool(((point < case.lower) | (point > case.upper)).any()):
        return "its point lies outside the box"
    value = float(case.graph(point.float()[None]))
    return "" if -math.inf < value <= 0 else f"the network is {value:.3g} at its point"


def _deployed(graph: Graph) -> Any:
    """The graph as the runtime of its own deployment: float32, one sample after the other."""

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return graph(x.float())

    return run


def families(report: Report) -> Iterable[tuple[str, int, int, int]]:
    """family, sat, unsat, undecided."""
    for family, words in report.words.items():
        yield family, words["sat"], words["unsat"], words["unknown"] + words["timeout"]
