"""What bounds every row of a task on many boxes: a chain's own kernel (boxes.py), or the general walk of any graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from saddlepoint.bound.backward import Lines, Region, Walker
from saddlepoint.bound.enclose import Encloser, by_ramp
from saddlepoint.bound.forward import enclose_forward
from saddlepoint.bound.rows import Rows
from saddlepoint.bound.rules import Elementwise, Relaxation
from saddlepoint.bound.rules.render import Slab
from saddlepoint.bound.search.boxes import Line, bound_boxes
from saddlepoint.bound.search.chain import Chain
from saddlepoint.bound.search.task import Task
from saddlepoint.graph.ir import Graph


@dataclass(frozen=True)
class ChainBounder:
    """Boxes of the chain's free inputs."""

    task: Task
    chain: Chain
    effort: ClassVar[int] = 1

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
    """Boxes of the inputs `free` of any graph by backward passes; the other inputs are fixed by the query."""

    task: Task
    free: Tensor
    deadline: float = torch.inf
    effort: ClassVar[int] = 1

    def __call__(self, lower: Tensor, upper: Tensor) -> Line:
        region = box_region(self.task.graph, self._widened(lower), self._widened(upper))
        _, relaxations, _ = Encloser(self._walker, by_ramp).enclose(region, refine=True)
        return self._line(relaxations, len(lower))

    def _line(self, relaxations: Mapping[str, Relaxation], b: int) -> Line:
        """Every row of the task, pulled back to the free inputs."""
        graph, r = self.task.graph, len(self.task.b)
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


@dataclass(frozen=True)
class ForwardBounder(GraphBounder):
    """The same by forward linear bounds (forward.py), for graphs with many neurons and few inputs.

    strain of an input: Σ over neurons |a| · (distance of its two lines) · (the input's share of the neuron's range).
    """

    effort: ClassVar[int] = 2

    def __call__(self, lower: Tensor, upper: Tensor) -> Line:
        region = box_region(self.task.graph, self._widened(lower), self._widened(upper))
        found = enclose_forward(self.task.graph, region, by_ramp)
        watched = {
            name: Watched(r) if isinstance(r, Elementwise | Slab) else r for name, r in found.relaxations.items()
        }
        line = self._line(watched, len(lower))
        strain = self._rendering(watched, found.relaxations, lower, upper)
        varying = (region.upper > region.lower).flatten(1).any(0)[self.free].nonzero().flatten()
        width = (upper - lower)[:, varying]
        for node in self.task.graph.nodes:
            lines = watched.get(node.name)
            if isinstance(lines, Watched) and isinstance(lines.lines, Elementwise) and lines.seen is not None:
                low, high = found.values[node.inputs[0]]
                weight = lines.seen.view(len(lower), -1, *node.shape).amax(1) * gap(lines.lines, low, high)
                share = found.forms[node.inputs[0]].a.abs()
                whole = (share * width.view(*width.shape, *(1 for _ in node.shape))).sum(1)
                part = share * (weight / whole.clamp_min(torch.finfo(whole.dtype).tiny)).unsqueeze(1)
                strain[:, varying] += part.flatten(2).sum(2)
        return Line(line.a, line.c, strain)

    def _rendering(
        self, watched: Mapping[str, object], lines: Mapping[str, Relaxation], lower: Tensor, upper: Tensor
    ) -> Tensor:
        """(b, d): |a| · thickness of every moved pixel, shared among the parameters by how far each moves it."""
        strain = torch.zeros_like(lower)
        for name, slab in lines.items():
            seen = watched[name]
            if not isinstance(slab, Slab) or not isinstance(seen, Watched) or seen.seen is None:
                continue
            weight = seen.seen.view(len(lower), -1, *slab.half.shape[1:]).amax(1) * slab.half
            motion = slab.motion[:, self.free].flatten(2)
            whole = (motion * (upper - lower).unsqueeze(2)).sum(1)
            part = weight.flatten(1) / whole.clamp_min(torch.finfo(whole.dtype).tiny)
            strain = strain + 2 * (motion * part.unsqueeze(1)).sum(2)
        return strain


@dataclass
class Watched:
    """Lines or planes that remember the sizes |a| of the rows they pulled."""

    lines: Elementwise | Slab
    seen: Tensor | None = None

    def pull(self, rows: Rows, owner: Tensor) -> tuple[tuple[Rows, ...], Tensor]:
        """As the lines do."""
        self.seen = rows.full().abs()
        return self.lines.pull(rows, owner)


def gap(lines: Elementwise, low: Tensor, high: Tensor) -> Tensor:
    """The lines' distance in the middle of [low, high]."""
    middle = (low + high) / 2
    floor = 0.0 if lines.lower_constant is None else lines.lower_constant
    return (lines.upper_slope - lines.lower_slope) * middle + lines.upper_constant - floor


def box_region(graph: Graph, lower: Tensor, upper: Tensor) -> Region:
    """The boxes [lower, upper] (b, d) as regions of the graph."""
    low, high = (t.view(-1, *graph.input_shape) for t in (lower, upper))
    return Region(None, low, low, high, boxed=True)
