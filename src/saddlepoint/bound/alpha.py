"""alpha-CROWN: CROWN with lower lines that are optimised, for the bounds in between and for the rows that are asked.

    maximise over 0 ≤ choice ≤ 1:   min over the box of the line below ⟨C_i, f⟩        (Xu et al. 2021, 2011.13824)

Every unstable neuron's two rows climb first, site by site, each with choices of its own, under the bounds that have
just become better; then the rows of C. The gradient is a forward pass along the lines (bound/search/walk.py), no tape.
A graph whose nodes mix their entries (attention, pooling) gets optimised lines for the rows of C only.

As a method of plans it is the search without its splits: "holds" comes with a certificate, else the sample stays open.
For sets that are boxes. Cost: 2 (inner + 1) passes per unstable neuron's row and 2 (steps + 1) per row of C.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.bound.base import Bounds, never_certify, specification
from saddlepoint.bound.complete import Complete
from saddlepoint.bound.interval import region_of
from saddlepoint.bound.search import Found, search
from saddlepoint.bound.search.climb import Climb, Point
from saddlepoint.bound.search.general import general_rows
from saddlepoint.bound.search.record import Recorder
from saddlepoint.bound.search.root import improved, root_of
from saddlepoint.bound.search.run import Settings
from saddlepoint.bound.search.task import Refute, task_of
from saddlepoint.bound.search.walk import Start
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.graph.decompose import decompose
from saddlepoint.graph.ir import Graph
from saddlepoint.spec.property import Atom, Property
from saddlepoint.spec.query import Query


@dataclass(frozen=True)
class AlphaCROWN(Complete):
    """`steps` of ascent for the rows asked, `inner` for the bounds in between; at most `seconds` a sample."""

    name: ClassVar[str] = "alpha-crown"
    seconds: float = 60.0
    steps: int = 20
    inner: int = 14

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or self.inner < 0:
            raise InputError(f"steps={self.steps}, inner={self.inner} are no numbers of steps.", "Give 0 or more.")

    def search(self, graph: Graph, query: Query, deadline: float, refute: Refute) -> Found:
        """Holds with a certificate, or open with the best bound."""
        settings = Settings(few=0, climb=self.steps, improve=self.inner, share=1.0, split=False)
        return search(graph, query, settings, deadline=deadline, refute=refute)

    def __call__(
        self,
        graph: Graph,
        set: PerturbationSet,
        x: Float[Tensor, "b *shape"],
        C: Float[Tensor, "b m k"] | None = None,
    ) -> Bounds:
        """lower (b, m) ≤ C f(x') on S(x), one sample after another. Raises NotAvailable for sets that are no boxes."""
        with torch.no_grad():
            graph = decompose(graph)
            wanted, region = specification(graph, x, C), region_of(set, x)
            if not region.boxed:
                raise NotAvailable(f"{type(set).__name__} is not a box.", "CROWN bounds sets of other shapes.")
            low, high = region.lower.double().flatten(1), region.upper.double().flatten(1)
            rows = [self._rows(graph, Query(a, b, _atoms(c))) for a, b, c in zip(low, high, wanted, strict=True)]
        return Bounds(never_certify(torch.stack(rows)) if rows else wanted.new_zeros(wanted.shape[:2]))

    def _rows(self, graph: Graph, query: Query) -> Tensor:
        """The bounds (m,) of one sample."""
        task, recorder, deadline = task_of(graph, query), Recorder(), time.monotonic() + self.seconds
        root = root_of(task, recorder, deadline)
        if root is None:
            return general_rows(task, self.steps, deadline)
        root = improved(root, recorder, self.inner, deadline)
        count = len(task.b)
        batch = root.batch(count)
        climb = Climb(root.walk, graph.output, self.steps, deadline=deadline)
        start = Start({graph.output: task.z}, task.b)
        return climb(start, batch, Point(root.sites.ramp(batch.lower, batch.upper).clone())).bound


def _atoms(C: Tensor) -> Property:
    """Every row of C a clause of its own."""
    return Property(tuple((Atom(z=tuple(row)),) for row in C.double().tolist()))
