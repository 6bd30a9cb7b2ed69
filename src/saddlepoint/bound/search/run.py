"""Complete search, anytime: does a property hold on a box?

    few free inputs    branch and bound on the box (inputs.py)

`deadline` is a time of time.monotonic(); it is looked at between batches, which are kept small. The certificate of
"holds" is for a checker to confirm; until then the word is a claim in floating point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from saddlepoint.bound.search.bounders import ChainBounder, GraphBounder
from saddlepoint.bound.search.chain import chain_of
from saddlepoint.bound.search.inputs import InputSearch
from saddlepoint.bound.search.record import Recorder
from saddlepoint.bound.search.task import Found, Refute, Task, Watch, task_of
from saddlepoint.core.errors import InputError
from saddlepoint.graph.ir import Graph
from saddlepoint.spec.query import Query


@dataclass(frozen=True)
class Settings:
    """`work`: products that one batch of boxes may cost; `boxes`: the most boxes of a batch."""

    work: float = 2e9
    boxes: int = 256


def search(
    graph: Graph,
    query: Query,
    settings: Settings | None = None,
    *,
    deadline: float,
    refute: Refute | None = None,
    watch: Watch | None = None,
) -> Found:
    """Found for one query. `refute` takes points (n, d) float64 and returns the one it accepts as a violation."""
    size = int(torch.Size(graph.input_shape).numel())
    if len(query.lower) != size:
        raise InputError(f"the query has {len(query.lower)} inputs, the graph takes {size}.")
    settings = settings or Settings()
    with torch.no_grad():
        return _search(task_of(graph, query), settings, deadline, refute, watch)


def _search(task: Task, settings: Settings, deadline: float, refute: Refute | None, watch: Watch | None) -> Found:
    query = task.query
    chain = chain_of(task.graph, query.lower, query.upper, task.dtype)
    if chain is None:
        free = (query.upper > query.lower).nonzero().flatten()
        bounder, batch = GraphBounder(task, free), 16
    else:
        free, bounder = chain.free, ChainBounder(task, chain)
        batch = max(1, min(settings.boxes, int(settings.work / max(chain.work, 1))))
    recorder = Recorder()
    state = InputSearch(task, free, bounder, batch, recorder)
    found = state.run(deadline, refute)
    if watch is not None:
        watch(found.lower, found.visited)
    if found.status != "holds":
        return found
    return replace(found, certificate=recorder.certificate(query, task.most))
