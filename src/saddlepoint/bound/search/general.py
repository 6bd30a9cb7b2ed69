"""Better lines at the root of a graph whose nodes cannot be split entry by entry (attention, products, pooling).

    maximise over 0 ≤ choice ≤ 1:  min over the box of the line below every clause

Here the gradient is autograd's, through the general walk (backward.py); otherwise as climb.py: Adam, choices rounded to
1/255 before every evaluation, the best of each clause kept. One bound set, effort 1; one choice row and line a clause.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saddlepoint.bound.backward import Lines, OutOfTime, Walker
from saddlepoint.bound.enclose import Encloser, by_ramp
from saddlepoint.bound.interval import Interval2
from saddlepoint.bound.rows import Rows
from saddlepoint.bound.rules import Relaxation, rule_of
from saddlepoint.bound.search.bounders import box_region
from saddlepoint.bound.search.record import Recorder
from saddlepoint.bound.search.task import Found, Task
from saddlepoint.graph.ops import LinearOp

RATE, DECAY = 0.1, 0.97


@dataclass(frozen=True)
class General:
    """A graph's bounds on the task's box, (1, *shape) each."""

    task: Task
    walker: Walker
    values: dict[str, Interval2]
    low: Tensor
    high: Tensor

    def defaults(self) -> dict[str, Tensor]:
        """Choices (1, *shape) of every node that has any."""
        found = {}
        for node in self.task.graph.nodes:
            if not isinstance(node.op, LinearOp):
                choice = by_ramp(rule_of(node.op, node.name), node.op, *self.values[node.inputs[0]])
                if choice is not None:
                    found[node.name] = choice.to(self.task.dtype)
        return found

    def line(self, mix: Tensor, choices: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Rows `mix` (r, rows of the task) with choices (r, *shape): a (r, d), c (r,), and the minimum (r,)."""
        task, count = self.task, len(mix)
        relaxations: dict[str, Relaxation] = {}
        for node in task.graph.nodes:
            if not isinstance(node.op, LinearOp):
                low, high = (t.expand(count, *t.shape[1:]) for t in self.values[node.inputs[0]])
                choice = choices.get(node.name)
                relaxations[node.name] = rule_of(node.op, node.name).relax(node.op, low, high, choice)
        start = Rows((mix @ task.z).view(count, *task.graph.output_shape), task.graph.output_shape)
        rows, c = self.walker.down(Lines({task.graph.output: start}, mix @ task.b), relaxations, torch.arange(count))
        a = rows.full().flatten(1) + mix @ task.x
        return a, c, (a * torch.where(a > 0, self.low, self.high)).sum(1) + c


def general(task: Task, steps: int, deadline: float) -> tuple[Found, Recorder]:
    """Bounds at the root only: holds, or open with the best lower bound."""
    recorder = Recorder()
    try:
        root = _enclosed(task, deadline)
    except OutOfTime:
        return Found("open", -torch.inf), recorder
    mix = torch.zeros((task.clauses, len(task.b)), dtype=task.dtype)
    for clause in range(task.clauses):
        members = task.members(clause)
        mix[clause, members] = 1.0 / len(members)
    bound, choices, slack = _climb(root, mix, steps, deadline)
    proven = (bound > slack).nonzero().flatten()
    _record(root, recorder, (mix, choices), proven)
    least = float(torch.nan_to_num(bound, nan=-torch.inf).min())
    return Found("holds" if len(proven) == task.clauses else "open", least, visited=1), recorder


def general_rows(task: Task, steps: int, deadline: float) -> Tensor:
    """The best bound (r,) of every row of the task, proven or not; −∞ where the time does not reach."""
    try:
        root = _enclosed(task, deadline)
    except OutOfTime:
        return torch.full_like(task.b, -torch.inf)
    every = torch.eye(len(task.b), dtype=task.dtype)
    return _climb(root, every, steps, deadline, until_proven=False)[0]


def _enclosed(task: Task, deadline: float) -> General:
    walker = Walker(task.graph, deadline=deadline)
    low, high = (t.to(task.dtype)[None] for t in (task.query.lower, task.query.upper))
    values, _, _ = Encloser(walker, by_ramp).enclose(box_region(task.graph, low, high), refine=True)
    return General(task, walker, values, low, high)


def _climb(
    root: General, mix: Tensor, steps: int, deadline: float, *, until_proven: bool = True
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The best bound of every row, its rounded choices, and the slack it must clear."""
    count = len(mix)
    point = {n: t.expand(count, *t.shape[1:]).clone() for n, t in root.defaults().items()}
    moments = {n: (torch.zeros_like(t), torch.zeros_like(t)) for n, t in point.items()}
    kept = {n: t.clone() for n, t in point.items()}
    best = mix.new_full((count,), -torch.inf)
    slack = torch.zeros_like(best)
    for step in range(1, steps + 2):
        with torch.enable_grad():
            rounded = {n: ((t * 255).round() / 255).requires_grad_() for n, t in point.items()}
            a, c, bound = root.line(mix, rounded)
            gradients = torch.autograd.grad(bound.sum(), list(rounded.values()), allow_unused=True)
        bound = bound.detach()
        better = bound > best
        best = torch.where(better, bound, best)
        size = (a.detach().abs() * torch.maximum(root.low.abs(), root.high.abs())).sum(1) + c.detach().abs()
        slack = torch.where(better, 10 * root.task.slack * size, slack)
        for n, t in rounded.items():
            kept[n][better] = t.detach()[better]
        if (until_proven and bool((best > slack).all())) or time.monotonic() > deadline:
            break
        for (n, t), g in zip(point.items(), gradients, strict=True):
            if g is not None:
                point[n], moments[n] = _adam(t, torch.nan_to_num(g), moments[n], step)
    return best, kept, slack


def _adam(t: Tensor, g: Tensor, moments: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    m, v = 0.9 * moments[0] + 0.1 * g, 0.95 * moments[1] + 0.05 * g * g
    move = (m / (1 - 0.9**step)) / ((v / (1 - 0.95**step)).sqrt() + 1e-12)
    return (t + RATE * DECAY**step * move).clamp(0.0, 1.0), (m, v)


def _record(root: General, recorder: Recorder, found: tuple[Tensor, dict[str, Tensor]], proven: Tensor) -> None:
    """One set, and a choice row, a line and a leaf for each proven clause."""
    mix, choices = found
    number = {node.name: i for i, node in enumerate(root.task.graph.nodes, start=1)}
    zero = np.zeros(len(proven), dtype=np.int64)
    (bounds,) = recorder.bounded(np.zeros(1, dtype=np.int64))
    if len(proven) == 0:
        return
    flat = {number[n]: (t[proven].flatten(1) * 255).round().to(torch.uint8) for n, t in choices.items()}
    recorder.free.update({i: torch.arange(t.shape[1], dtype=torch.int32) for i, t in flat.items()})
    rows = recorder.choose(flat) if flat else -1
    weight = torch.zeros((len(proven), root.task.most))
    for k, clause in enumerate(proven.tolist()):
        mine = mix[clause][root.task.members(clause)]
        weight[k, : len(mine)] = mine
    line = recorder.line(zero, np.full(len(proven), int(bounds)), proven.numpy(), weight, rows)
    recorder.close(zero, line)
