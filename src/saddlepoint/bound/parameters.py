"""Certificates for rotation + translation: the box of parameters is split until every cell's renderings are proven.

    is  min over p in the box of m(x(p)) > 0 ?      the cells' union is the box; each one's images are enclosed
                                                    (renderings.py) and bounded (CROWN)

Cells that move the image by more than `COARSE` pixels are split unbounded. An undecided cell is split across the axis
along which its images change most, and its middle is tried on the model: a point that breaks it ends the search. The
search is complete up to margins that vanish: cells shrink to points. After Balunović et al., NeurIPS 2019, §5.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from saddlepoint.bound.backward import Region
from saddlepoint.bound.crown import CROWN
from saddlepoint.bound.renderings import Renderings, enclose, motion
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.geometry.spatial import RotationTranslation
from saddlepoint.graph.decompose import decompose
from saddlepoint.graph.ir import Graph
from saddlepoint.spec import margin_matrix

COARSE = 1.0  # pixels
CELLS = 32  # bounded at a time
SLACK = 1e-5  # a bound counts above it: the search rounds to nearest, the checker outward

Refute = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class Cover:
    """What a search says. `tensors`: the tree of cells and every leaf's slopes, if all of them are proven.

    lower: the smallest bound of a leaf (−∞ unless the cover is whole). witness: parameters (3,) that break the model.
    """

    status: Literal["holds", "violated", "open"]
    lower: float = float("-inf")
    tensors: dict[str, Tensor] = field(default_factory=dict)
    witness: Tensor | None = None
    visited: int = 0


@dataclass(frozen=True)
class ParameterSplitting:
    """`seconds` for each sample that is still open. Sets: RotationTranslation."""

    name: ClassVar[str] = "parameters"
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise InputError(f"{self.seconds} seconds leave no time to search.", "Give a positive number.")

    def search(
        self, graph: Graph, ball: PerturbationSet, x0: Tensor, label: int, deadline: float, refute: Refute
    ) -> Cover:
        """What the search finds about one image x0 (c, h, w); `deadline` is a time.monotonic(), `refute` asks the model
        about parameters (n, 3).

        Raises NotAvailable for other sets and for images whose renderings the box would clip.
        """
        require_plain(ball, x0)
        with torch.no_grad():
            hull = ball.hull(x0[None].double())
            search = _Search(decompose(graph), x0.to(graph.dtype), label, refute)
            return search.run(hull.lower[0], hull.upper[0], deadline)


def require_plain(ball: PerturbationSet, x0: Tensor) -> None:
    """Renderings must be what is read between pixels and zeros, nothing else."""
    if not isinstance(ball, RotationTranslation) or x0.ndim != 3:
        raise NotAvailable("cells of parameters are certified for rotation + translation of images.", "See `complete`.")
    if ball.box is not None:
        lower, upper = ball.box.limits(x0[None])
        if not bool(((lower <= 0) & (upper >= 0) & (x0 >= lower) & (x0 <= upper)).all()):
            raise NotAvailable("the box would clip what is read beyond the image's border.", "0 must lie in the box.")


@dataclass
class _Search:
    """One image; the tree grows as lists: axis of a split (−1: a leaf), where, the first of two children, proof row."""

    graph: Graph
    x0: Tensor
    label: int
    refute: Refute
    axis: list[int] = field(default_factory=lambda: [-1])
    cut: list[float] = field(default_factory=lambda: [0.0])
    child: list[int] = field(default_factory=lambda: [-1])
    row: list[int] = field(default_factory=lambda: [-1])
    proofs: list[dict[str, Tensor]] = field(default_factory=list)
    visited: int = 0
    lowest: float = float("inf")

    def run(self, lower: Tensor, upper: Tensor, deadline: float) -> Cover:
        waiting = self._fine([(0, lower, upper)])
        while waiting:
            if time.monotonic() > deadline:
                return Cover("open", visited=self.visited)
            batch, waiting = waiting[-CELLS:], waiting[:-CELLS]
            nodes = [node for node, _, _ in batch]
            low, high = torch.stack([low for _, low, _ in batch]), torch.stack([high for _, _, high in batch])
            images = enclose(self.x0, low, high)
            open_cells = self._bound(nodes, images)
            if not open_cells:
                continue
            index = torch.tensor(open_cells)
            witness = self.refute((low[index] + high[index]) / 2)
            if witness is not None:
                return Cover("violated", witness=witness, visited=self.visited)
            axes = self._axes(images.rows(index), low[index], high[index])
            halves = [half for i, k in zip(open_cells, axes, strict=True) for half in self._halve(batch[i], k)]
            waiting += self._fine(halves)
        tree = {
            "tree/axis": torch.tensor(self.axis, dtype=torch.int8),
            "tree/cut": torch.tensor(self.cut, dtype=torch.float64),
            "tree/child": torch.tensor(self.child),
            "tree/row": torch.tensor(self.row),
        }
        rows = {name: torch.cat([p[name] for p in self.proofs]) for name in self.proofs[0]}
        return Cover("holds", self.lowest, {**tree, **rows}, visited=self.visited)

    def _bound(self, nodes: list[int], images: Renderings) -> list[int]:
        """Bound a batch of cells; proven ones become leaves. Positions of the others."""
        hull = images.hull
        region = Region(images, images.centre, hull.low, hull.high, False)
        label = torch.full((len(nodes),), self.label, device=self.x0.device)
        wanted = margin_matrix(label, self.graph.output_shape[0], self.x0.dtype)
        bounds = CROWN(stop_above=SLACK).over(self.graph, region, wanted)
        lower = bounds.lower.amin(1)
        proven = (lower > SLACK).nonzero().flatten()
        self.visited += len(nodes)
        known = sum(len(p["refined"]) for p in self.proofs)
        for k, i in enumerate(proven.tolist()):
            self.row[nodes[i]] = known + k
        if len(proven):
            self.proofs.append(bounds.proof.rows(proven).tensors)
            self.lowest = min(self.lowest, float(lower[proven].min()))
        return (~(lower > SLACK)).nonzero().flatten().tolist()

    def _axes(self, images: Renderings, low: Tensor, high: Tensor) -> list[int]:
        """The axis along which each cell's images change most; where nothing is known of that, the longest."""
        change = images.slopes.abs().flatten(2).sum(2).double()
        length = motion((self.x0.shape[1], self.x0.shape[2]), low, high)
        flat = change.amax(1, keepdim=True) <= 0
        return torch.where(flat, length, change).argmax(1).tolist()

    def _halve(self, cell: tuple[int, Tensor, Tensor], axis: int) -> list[tuple[int, Tensor, Tensor]]:
        node, low, high = cell
        middle = (low[axis] + high[axis]) / 2
        self.axis[node], self.cut[node], self.child[node] = axis, float(middle), len(self.axis)
        for values, new in ((self.axis, -1), (self.cut, 0.0), (self.child, -1), (self.row, -1)):
            values.extend([new, new])  # type: ignore[list-item]
        left, right = high.clone(), low.clone()
        left[axis] = right[axis] = middle
        first = self.child[node]
        return [(first, low, left), (first + 1, right, high)]

    def _fine(self, cells: list[tuple[int, Tensor, Tensor]]) -> list[tuple[int, Tensor, Tensor]]:
        """Cells small enough to be worth a bound, in place of larger ones."""
        done, coarse = [], cells
        size = (self.x0.shape[1], self.x0.shape[2])
        while coarse:
            cell = coarse.pop()
            length = motion(size, cell[1][None], cell[2][None])[0]
            if float(length.max()) <= COARSE:
                done.append(cell)
            else:
                coarse += self._halve(cell, int(length.argmax()))
        return done
