"""A query made ready: the rows of its atoms, and when a bound counts as proven.

    row r of clause c:   ⟨z_r, f(x)⟩ + ⟨x_r, x⟩ + b_r        the clause holds if one of its rows is > 0

The search rounds to nearest in the graph's own precision and a checker confirms in float64. A bound therefore counts
only above a slack: `Task.slack` times the size of the numbers that it was added up from. In float64 search and checker
round alike, and the checker charges every layer γ_n for n products in a row (check/proofs_forward.py): there the slack
grows with their sum over the layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from saddlepoint.graph.ir import Graph
from saddlepoint.graph.ops import LinearOp
from saddlepoint.spec.certificate import Certificate
from saddlepoint.spec.query import Query

_SLACK = {torch.float32: 4e-6, torch.float64: 1e-12}
_PER_PRODUCT = 1e-13  # in float64: some hundred units of rounding each

Refute = Callable[[Tensor], Tensor | None]
Watch = Callable[[float, int], None]


@dataclass(frozen=True)
class Found:
    """What a search says. lower: a proven lower bound of the property's value (−∞: none yet).

    witness: a float64 point that seems to violate the property, for the caller to check. visited: domains bounded.
    """

    status: Literal["holds", "violated", "open"]
    lower: float
    witness: Tensor | None = None
    certificate: Certificate | None = None
    visited: int = 0


@dataclass(frozen=True)
class Task:
    """Atoms as rows: z (r, k), x (r, d), b (r,), in `dtype`; clause (r,) int64 says whose row it is."""

    graph: Graph
    query: Query
    z: Tensor
    x: Tensor
    b: Tensor
    clause: Tensor

    @property
    def clauses(self) -> int:
        """How many clauses there are."""
        return len(self.query.property.clauses)

    @property
    def dtype(self) -> torch.dtype:
        """The search's precision."""
        return self.z.dtype

    @property
    def most(self) -> int:
        """Atoms of the largest clause."""
        return max(len(c) for c in self.query.property.clauses)

    @cached_property
    def slack(self) -> float:
        """How far above 0 a bound must lie to count, over the size of what it was added up from."""
        least = _SLACK[self.dtype]
        if self.dtype is not torch.float64:
            return least
        return max(least, _PER_PRODUCT * sum(n.op.products for n in self.graph.nodes if isinstance(n.op, LinearOp)))

    def members(self, clause: int) -> Tensor:
        """Row numbers of a clause."""
        return (self.clause == clause).nonzero().flatten()

    def value(self, points: Tensor) -> Tensor:
        """The property's value at points (n, d), float64 rounded into the graph's precision."""
        x = points.to(self.dtype)
        logits = self.graph(x.view(-1, *self.graph.input_shape)).flatten(1)
        rows = logits @ self.z.T + x @ self.x.T + self.b
        best = rows.new_full((len(x), self.clauses), -torch.inf)
        best.scatter_reduce_(1, self.clause.expand(len(x), -1), rows, "amax")
        return best.amin(1)


def task_of(graph: Graph, query: Query) -> Task:
    """The query's rows in the graph's precision."""
    k, d, dtype = int(torch.Size(graph.output_shape).numel()), len(query.lower), graph.dtype
    atoms = [(c, atom) for c, clause in enumerate(query.property.clauses) for atom in clause]

    def padded(weights: tuple[float, ...], size: int) -> list[float]:
        return list(weights) if weights else [0.0] * size

    return Task(
        graph,
        query,
        torch.tensor([padded(a.z, k) for _, a in atoms], dtype=dtype),
        torch.tensor([padded(a.x, d) for _, a in atoms], dtype=dtype),
        torch.tensor([a.b for _, a in atoms], dtype=dtype),
        torch.tensor([c for c, _ in atoms]),
    )
