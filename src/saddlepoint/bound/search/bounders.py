"""What bounds every row of a task on many boxes: a chain's own kernel (boxes.py), or the general walk of any graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from saddlepoint.bound.backward import Lines, Region, Walker
from saddlepoint.bound.enclose import Encloser, by_ramp
from saddlepoint.bound.rows import Rows
from saddlepoint.bound.search.boxes import Line, bound_boxes
from saddlepoint.bound.search.chain import Chain
from saddlepoint.bound.search.task import Task
from saddlepoint.graph.ir import Graph


@dataclass(frozen=True)
class ChainBounder:
    """Boxes of the chain's free inputs."""

    task: Task
    chain: Chain

    def __call__(self, lower: Tensor, upper: Tensor) -> Line:
        line = bound_boxes(self.chain, lower, upper, self.task.z)
        return Line(line.a + self._x, line.c + self._constant, line.strain)

    @cached_property
    def _x(self) -> Tensor:
        return self.task.x[:, self.chain.free]

    @cached_property
    def _constant(self) -> Tensor:
        """b, and what the fixed inputs add to the rows."""
        fixed = self.task.query.lower.clone()
        fixed[self.chain.free] = 0.0
        return self.task.b + (self.task.x.double() @ fixed).to(self.task.b)


@dataclass(frozen=True)
class GraphBounder:
    """Boxes of the inputs `free` of any graph; the other inputs are fixed by the query."""

    task: Task
    free: Tensor
    deadline: float = torch.inf

    def __call__(self, lower: Tensor, upper: Tensor) -> Line:
        graph = self.task.graph
        low, high = self._widened(lower), self._widened(upper)
        region = box_region(graph, low, high)
        _, relaxations, _ = Encloser(self._walker, by_ramp).enclose(region, refine=True)
        b, r = len(lower), len(self.task.b)
        start = Rows(self.task.z.repeat(b, 1).view(b * r, *graph.output_shape), graph.output_shape)
        lines = self._walker.shared(Lines({graph.output: start}, self.task.b.repeat(b)))
        owner = torch.arange(b).repeat_interleave(r)
        rows, constant = self._walker.down(lines, relaxations, owner)
        a = rows.full().flatten(1).view(b, r, -1) + self.task.x
        fixed = a * self._fixed
        return Line(a[:, :, self.free], constant.view(b, r) + fixed.sum(2))

    @cached_property
    def _walker(self) -> Walker:
        return Walker(self.task.graph, deadline=self.deadline)

    @cached_property
    def _fixed(self) -> Tensor:
        """The query's point with the free inputs set to 0."""
        point = self.task.query.lower.clone()
        point[self.free] = 0.0
        return point.to(self.task.dtype)

    def _widened(self, part: Tensor) -> Tensor:
        whole = self._fixed.repeat(len(part), 1)
        whole[:, self.free] = part
        return whole


def box_region(graph: Graph, lower: Tensor, upper: Tensor) -> Region:
    """The boxes [lower, upper] (b, d) as regions of the graph."""
    low, high = (t.view(-1, *graph.input_shape) for t in (lower, upper))
    return Region(None, low, low, high, boxed=True)
