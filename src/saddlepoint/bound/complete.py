"""Complete search as a method of plans: one sample at a time, until the margin is decided or its time is over.

    is  min over x' in S(x) of m(x') > 0 ?      branch and bound (bound/search), with a certificate or a counterexample

For sets that are boxes (ℓ∞, boxes per coordinate, masks), and for rotation + translation, whose box of parameters is
searched in front of the model (graph/rendering.py). `seconds` is a sample's time; where it ends first, the best
bound so far is a claim and certifies nothing. Cost: from one backward pass to all of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from saddlepoint.bound.search import Found, search
from saddlepoint.bound.search.task import Refute
from saddlepoint.core.errors import InputError
from saddlepoint.graph.ir import Graph
from saddlepoint.spec.query import Query


@dataclass(frozen=True)
class Complete:
    """`seconds` for each sample that is still open."""

    name: ClassVar[str] = "complete"
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise InputError(f"{self.seconds} seconds leave no time to search.", "Give a positive number.")

    def search(self, graph: Graph, query: Query, deadline: float, refute: Refute) -> Found:
        """What the search found out about one sample; `deadline` is a time.monotonic()."""
        return search(graph, query, deadline=deadline, refute=refute)
