"""Complete search, anytime: does a property hold on a box?

    few free inputs    branch and bound on the box (inputs.py)
    else               bounds at the root, better lines there, then branch and bound over neurons (neurons.py);
                       only better lines where nodes mix their entries (general.py)

`deadline` is a time of time.monotonic(); it is looked at between batches, which are kept small. A split of the box ends
before it, as open, once the property has failed in float64 at inputs.MISSES points of which `refute` took none.
The certificate of "holds" is for a checker to confirm; until then the word is a claim in floating point.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saddlepoint.bound.backward import OutOfTime
from saddlepoint.bound.search.bounders import ChainBounder, ForwardBounder, GraphBounder
from saddlepoint.bound.search.boxes import Line
from saddlepoint.bound.search.chain import Chain, chain_of
from saddlepoint.bound.search.general import general
from saddlepoint.bound.search.inputs import InputSearch, Level
from saddlepoint.bound.search.mix import mixture
from saddlepoint.bound.search.neurons import NeuronSearch
from saddlepoint.bound.search.record import Recorder
from saddlepoint.bound.search.root import Root, improved, root_of
from saddlepoint.bound.search.task import Found, Refute, Task, Watch, task_of
from saddlepoint.bound.search.walk import Start
from saddlepoint.core.errors import InputError
from saddlepoint.graph.decompose import decompose
from saddlepoint.graph.ir import Graph
from saddlepoint.graph.ops import LinearOp, Render
from saddlepoint.spec.query import Query

MOVED = 16  # cells of a rendering to begin with: fewer cost hardly less
MANY = 2048  # nonlinear entries from which on a forward for every input is cheaper than a row for every entry


@dataclass(frozen=True)
class Settings:
    """`work`: products that one batch of boxes may cost; `boxes`: the most boxes of a batch. `few`: free inputs up to
    which the box is split; `climb`, `improve`: steps at the root, for the clauses and for the bounds below them."""

    work: float = 2e9
    boxes: int = 256
    few: int = 32
    climb: int = 20
    improve: int = 8
    share: float = 0.3  # of the time left, at most, for better bounds at the root
    split: bool = True


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
    graph = decompose(graph)
    with torch.no_grad():
        task = task_of(graph, query)
        free = int((query.upper > query.lower).sum())
        method = _inputs if free <= settings.few else _neurons
        found = method(task, settings, deadline, refute)
    if watch is not None:
        watch(found.lower, found.visited)
    return found


def _closed(found: Found, recorder: Recorder, task: Task) -> Found:
    """With its certificate, if it holds."""
    if found.status != "holds":
        return found
    return replace(found, certificate=recorder.certificate(task.query, task.most))


def _inputs(task: Task, settings: Settings, deadline: float, refute: Refute | None) -> Found:
    query, recorder = task.query, Recorder()
    free = (query.upper > query.lower).nonzero().flatten()
    level, chain = _level(task, free, deadline)
    if chain is not None:
        batch = max(1, min(settings.boxes, int(settings.work / max(chain.work, 1))))
    else:
        batch = MOVED if _moved(task.graph) else 1

    def fine() -> Level:
        return _level(task_of(task.graph.to(torch.float64), query), free, deadline)[0]

    exact = task.dtype is torch.float64
    state = InputSearch(level, free, batch, recorder, settings.boxes, None if exact else fine)
    return _closed(state.run(deadline, refute), recorder, task)


def _level(task: Task, free: Tensor, deadline: float) -> tuple[Level, Chain | None]:
    """What bounds boxes in the task's precision, and the chain where the graph is one."""
    chain = chain_of(task.graph, task.query.lower, task.query.upper, task.dtype)
    if chain is not None:
        return Level(task, ChainBounder(task, chain)), chain
    hidden = sum(torch.Size(node.shape).numel() for node in task.graph.nodes if not isinstance(node.op, LinearOp))
    # of a moved image every neuron is loose, and the inputs are few
    bounder = ForwardBounder if _moved(task.graph) or hidden > MANY else GraphBounder
    return Level(task, bounder(task, free, deadline)), None


def _moved(graph: Graph) -> bool:
    """Whether the graph begins with a rendering."""
    return any(isinstance(node.op, Render) for node in graph.nodes)


def _neurons(task: Task, settings: Settings, deadline: float, refute: Refute | None) -> Found:
    """A graph with nodes whose entries cannot be split one by one gets better lines at the root, and no search."""
    recorder = Recorder()
    try:
        root = root_of(task, recorder, deadline)
    except OutOfTime:
        return Found("open", -torch.inf)
    if root is None:
        found, recorder = general(task, settings.climb, deadline)
        return _closed(found, recorder, task)
    state = NeuronSearch(root, recorder)
    weights = _weights(root)
    for steps in (0, settings.climb // 2):
        owed = _owed(state) if steps else list(range(task.clauses))
        if owed:
            state.begin(owed, weights[owed], steps, deadline)
    if state.pool:
        until = time.monotonic() + settings.share * max(0.0, deadline - time.monotonic())
        state.root = improved(root, recorder, settings.improve, until)
        owed = _owed(state)
        state.begin(owed, _weights(state.root)[owed], settings.climb, deadline)
    until = deadline if settings.split else -math.inf
    return _closed(state.run(until, refute), recorder, task)


def _owed(state: NeuronSearch) -> list[int]:
    """Clauses that are not proven yet."""
    return sorted({int(c) for part in state.pool for c in part.clause})


def _weights(root: Root) -> Tensor:
    """Per clause the mixture of its atoms that is best under the root's default lines, (clauses, rows)."""
    task, count = root.task, len(root.task.b)
    weights = torch.zeros((task.clauses, count), dtype=task.dtype)
    single = [len(c) == 1 for c in task.query.property.clauses]
    if all(single):
        return torch.eye(count, dtype=task.dtype)
    batch = root.batch(count)
    lines = root.walk.lines(batch.lower, batch.upper, root.sites.ramp(batch.lower, batch.upper))
    walked = root.walk.down(Start({task.graph.output: task.z, task.graph.input: task.x}, task.b), lines)
    for clause in range(task.clauses):
        rows = task.members(clause)
        mix, _ = mixture(Line(walked.a[None, rows], walked.c[None, rows]), root.box_lower, root.box_upper)
        weights[clause, rows] = mix[0]
    return weights
