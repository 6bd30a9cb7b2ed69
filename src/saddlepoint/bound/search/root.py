"""The root of a search over neurons: bounds of every value once, then better ones for the free entries.

    set 0   intervals and backward passes with the ramp (enclose.py)
    set 1   site by site, every unstable entry's two rows climb with choices of their own (climb.py), under the bounds
            of the sites before that have just become better: the joint optimisation of alpha-CROWN, one layer at a time

Every row's choices are kept, since a checker needs them to reach the same bounds (`Extra` of spec/certificate.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from saddlepoint.bound.backward import Walker
from saddlepoint.bound.enclose import Encloser, by_ramp
from saddlepoint.bound.search.bounders import box_region
from saddlepoint.bound.search.chain import ONE_TO_ONE
from saddlepoint.bound.search.climb import Batch, Climb, Point
from saddlepoint.bound.search.record import Recorder
from saddlepoint.bound.search.sites import Site, Sites, sites_of
from saddlepoint.bound.search.task import Task
from saddlepoint.bound.search.walk import Start, Walk, constants
from saddlepoint.graph.ops import LinearOp
from saddlepoint.spec.certificate import Extra

ENTRIES = 1 << 23  # numbers of one array of a chunk of rows
RATE, DECAY = 0.5, 0.9  # few steps, long ones first: as tight after 8 as after 20 of a tenth


@dataclass(frozen=True)
class Root:
    """Bounds (F,) of the free entries under bound set `bounds`, on the box lower, upper (1, d)."""

    task: Task
    walk: Walk
    lower: Tensor
    upper: Tensor
    box_lower: Tensor
    box_upper: Tensor
    bounds: int

    @property
    def sites(self) -> Sites:
        """The graph's sites."""
        return self.walk.sites

    def batch(self, count: int) -> Batch:
        """The root's domain for `count` rows."""
        wide = (count, len(self.lower))
        return Batch(self.lower.expand(wide), self.upper.expand(wide), self.box_lower, self.box_upper)


def root_of(task: Task, recorder: Recorder, deadline: float) -> Root | None:
    """Set 0. None if the graph has nonlinear nodes that are not elementwise. Raises OutOfTime."""
    if not all(isinstance(node.op, (LinearOp, *ONE_TO_ONE)) for node in task.graph.nodes):
        return None
    query = task.query
    low, high = query.lower.to(task.dtype)[None], query.upper.to(task.dtype)[None]
    walker = Walker(task.graph, deadline=deadline)
    values, _, _ = Encloser(walker, by_ramp).enclose(box_region(task.graph, low, high), refine=True)
    sites = sites_of(task.graph, values)
    if sites is None:
        return None
    recorder.free.update({site.index: site.free.int() for site in sites.sites})
    (bounds,) = recorder.bounded(np.zeros(1, dtype=np.int64))
    return Root(task, Walk(sites, constants(task.graph)), sites.lower, sites.upper, low, high, int(bounds))


def improved(root: Root, recorder: Recorder, steps: int, deadline: float) -> Root:
    """Set 1, as far as the deadline allows: sites that are not reached keep the bounds of set 0."""
    lower, upper = root.lower.clone(), root.upper.clone()
    (number,) = recorder.bounded(np.zeros(1, dtype=np.int64), base=root.bounds)
    for site in root.sites.sites:
        before = root.sites.before(site.source_index)
        if not any(len(s.free) for s in before) or time.monotonic() > deadline:
            continue
        low, high = lower[site.columns], upper[site.columns]
        open_ = (low < 0) & (high > 0) if site.bent is not None else low < high
        entries = open_.nonzero().flatten()
        here = replace(root, lower=lower, upper=upper)
        for chunk in entries.split(max(1, ENTRIES // (2 * _width(root, site)))):
            extra = _rows(here, site, chunk, int(number), (steps, deadline))
            if extra is not None:
                recorder.extras.append(extra)
    return replace(root, lower=lower, upper=upper, bounds=int(number))


def _width(root: Root, site: Site) -> int:
    shapes = [root.task.graph.shape(site.node.inputs[0]), *(s.node.shape for s in root.sites.before(site.index))]
    return max(len(root.lower), *(int(torch.Size(shape).numel()) for shape in shapes))


def _rows(root: Root, site: Site, chunk: Tensor, number: int, effort: tuple[int, float]) -> Extra | None:
    """Climb with ± every entry of the chunk, and write what is better into the root's bounds."""
    source, entry = site.node.inputs[0], site.free[chunk]
    size, count = int(torch.Size(root.task.graph.shape(source)).numel()), len(chunk)
    hot = root.lower.new_zeros((2 * count, size))
    hot[torch.arange(count), entry], hot[torch.arange(count) + count, entry] = 1.0, -1.0
    choice = root.sites.ramp(root.lower, root.upper).expand(2 * count, -1).clone()
    climb = Climb(root.walk, source, effort[0], RATE, DECAY, deadline=effort[1])
    best = climb(Start({source: hot}, hot.new_zeros(2 * count)), root.batch(2 * count), Point(choice))
    columns = chunk + site.start
    low, high = root.lower[columns], root.upper[columns]
    found_low, found_high = best.bound[:count], -best.bound[count:]
    useful = torch.cat([found_low > low, found_high < high]).nonzero().flatten()
    root.lower[columns], root.upper[columns] = torch.fmax(low, found_low), torch.fmin(high, found_high)
    if len(useful) == 0:
        return None
    rounded = (best.point.choice[useful] * 255).round().to(torch.uint8)
    return Extra(
        number,
        site.source_index,
        torch.cat([entry, entry])[useful].int(),
        torch.where(useful < count, 1, -1).to(torch.int8),
        {s.index: rounded[:, s.columns] for s in root.sites.before(site.source_index) if len(s.free)},
    )
