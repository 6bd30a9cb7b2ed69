"""Backward linear bounds: from ⟨A, v⟩ on some node v to ⟨A₀, x⟩ + c on the input.

    linear node     ⟨A, W x + b⟩ = ⟨Wᵀ A, x⟩ + ⟨A, b⟩            exact, the same for every sample
    nonlinear node  ⟨A, σ(x)⟩ ≥ ⟨A_L, x⟩ + c                      a rule's lines, a sample's own
    input           ⟨A₀, x⟩ ≥ −max over S(x₀) of ⟨−A₀, x⟩         the set's support function

Many rows (sample, neuron) of one node share the linear stretch in front of the first nonlinear node, so that
stretch is walked once per neuron and its result is gathered per row. (Zhang et al. 2018, eq. 9–11; the
gathering is what "sparse intermediate bounds" of alpha-beta-CROWN come to.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from saddlepoint.bound.rows import Rows, Shape, inner, pull_linear
from saddlepoint.bound.rules import Relaxation
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import LinearOp

CACHED = 1 << 16  # entries


@dataclass(frozen=True)
class Lines:
    """Σ over nodes ⟨rows[node], node⟩ + constant (r,): a lower bound of whatever the rows started as."""

    rows: dict[str, Rows]
    constant: Tensor

    def take(self, index: Tensor) -> Lines:
        """Some rows, repetitions allowed."""
        taken = {name: rows.take(index) for name, rows in self.rows.items()}
        return Lines(taken, self.constant.index_select(0, index))

    def signed(self, sign: Tensor) -> Lines:
        """Every row times its sign (r,)."""
        rows = {name: r.scaled(sign) for name, r in self.rows.items()}
        return Lines(rows, self.constant * sign)


@dataclass(frozen=True)
class Region:
    """S(x) of a batch, with its enclosing box. `boxed`: S(x) is that box, so windows need not be filled up; then `set`
    may be None."""

    set: PerturbationSet | None
    x: Tensor
    lower: Tensor
    upper: Tensor
    boxed: bool

    def take(self, index: Tensor) -> Region:
        """Some samples."""
        x, lower, upper = (t.index_select(0, index) for t in (self.x, self.lower, self.upper))
        return Region(None if self.set is None else self.set.rows(index), x, lower, upper, self.boxed)

    def minimum(self, rows: Rows, owner: Tensor) -> Tensor:
        """min over S(x of the row's sample) of ⟨a, x⟩ = −support(−a), (r,)."""
        if self.boxed or self.set is None:
            low, high = (rows.gather(t, owner) for t in (self.lower, self.upper))
            if len(low) == 1:
                # ⟨a⁺, l⟩ + ⟨a⁻, u⟩ = ⟨a, u⟩ − ⟨a⁺, u − l⟩, in parts that stay in a cache
                some = max(1, CACHED // rows.a[:1].numel())
                wide = [inner(part.clamp_min(0), high - low) for part in rows.a.split(some)]
                return inner(rows.a, high) - torch.cat(wide)
            return inner(rows.a, torch.where(rows.a > 0, low, high))
        mine = self.set.rows(owner)
        return -mine.support(self.x.index_select(0, owner), -rows.full().unsqueeze(1)).squeeze(1)


class OutOfTime(Exception):
    """A walker's deadline passed between two chunks of rows."""


@dataclass(frozen=True)
class Walker:
    """Walks lines backwards through one graph, at most `memory` bytes of coefficients at a time.

    `deadline` (of time.monotonic()) is looked at between chunks of rows; after it `minimum` raises OutOfTime.
    """

    graph: Graph
    memory: int = 1 << 24
    deadline: float = math.inf

    @cached_property
    def ancestors(self) -> dict[str, frozenset[str]]:
        """For every value, itself and all values it depends on."""
        found: dict[str, frozenset[str]] = {self.graph.input: frozenset({self.graph.input})}
        for node in self.graph.nodes:
            found[node.name] = frozenset({node.name}).union(*(found[name] for name in node.inputs))
        return found

    @cached_property
    def constants(self) -> dict[str, Tensor | None]:
        """The constants of the linear nodes, (1, *shape)."""
        like = torch.empty(0, dtype=self.graph.dtype, device=self.graph.device)
        return {
            node.name: node.op.constant(self.graph.in_shapes(node), like)
            for node in self.graph.nodes
            if isinstance(node.op, LinearOp)
        }

    def shared(self, lines: Lines) -> Lines:
        """Walk as far as no nonlinear node is crossed: exact, the same for every sample."""
        pending, constant, blocked = dict(lines.rows), lines.constant, frozenset[str]()
        for node in reversed(self.graph.nodes):
            if node.name not in pending or node.name in blocked:
                continue
            if isinstance(node.op, LinearOp):
                constant = self._linear(node, node.op, pending, constant)
            else:
                blocked |= self.ancestors[node.name]  # those still wait for what passes this node
        return Lines(pending, constant)

    def minimum(
        self,
        lines: Lines,
        place: Tensor,
        owner: Tensor,
        relaxations: Mapping[str, Relaxation],
        region: Region,
        sign: Tensor | None = None,
    ) -> Tensor:
        """Lower bounds (r,) of the rows lines[place], times `sign` if given, over S(x) of samples `owner`, (r,) each.

        Rows go in chunks. A row needs about six arrays of its widest window at once (coefficients, signs,
        gathered slopes, results); how wide that is, the first chunk tells.
        """
        item = 6 * lines.constant.element_size()
        room = max(1, self.memory // (item * widest(self.graph)))
        bounds, start = [lines.constant[:0]], 0
        while start < len(place):
            if time.monotonic() > self.deadline:
                raise OutOfTime
            mine = owner[start : start + room]
            taken = lines.take(place[start : start + room])
            taken = taken if sign is None else taken.signed(sign[start : start + room])
            rows, constant, width = self._walk(taken, relaxations, mine)
            bounds.append(region.minimum(rows, mine) + constant)
            start, room = start + room, max(1, self.memory // (item * width))
        return torch.cat(bounds)

    def down(self, lines: Lines, relaxations: Mapping[str, Relaxation], owner: Tensor) -> tuple[Rows, Tensor]:
        """Lines on the input below every row, all rows at once: ⟨rows, x⟩ + constant."""
        rows, constant, _ = self._walk(lines, relaxations, owner)
        return rows, constant

    def _walk(self, lines: Lines, relaxations: Mapping[str, Relaxation], owner: Tensor) -> tuple[Rows, Tensor, int]:
        """Down to the input: the rows there, the constant, and the widest row met on the way."""
        pending, constant, width = dict(lines.rows), lines.constant, 1
        for node in reversed(self.graph.nodes):
            if node.name not in pending:
                continue
            width = max(width, sum(rows.a[:1].numel() for rows in pending.values()))
            if isinstance(node.op, LinearOp):
                constant = self._linear(node, node.op, pending, constant)
            else:
                pulled, gained = relaxations[node.name].pull(pending.pop(node.name), owner)
                constant = constant + gained
                _collect(pending, node, pulled)
        rows = pending[self.graph.input]
        return rows, constant, max(width, rows.a[:1].numel())

    def _linear(self, node: Node, op: LinearOp, pending: dict[str, Rows], constant: Tensor) -> Tensor:
        rows = pending.pop(node.name)
        c = self.constants[node.name]
        _collect(pending, node, pull_linear(op, rows, self.graph.in_shapes(node)))
        return constant if c is None else constant + rows.dot(c)


def widest(graph: Graph) -> int:
    """The largest number of entries of any value."""
    sizes: list[Shape] = [graph.input_shape, *(node.shape for node in graph.nodes)]
    return max(int(torch.Size(shape).numel()) for shape in sizes)


def _collect(pending: dict[str, Rows], node: Node, pulled: tuple[Rows, ...]) -> None:
    """Add what a node passes to its inputs; a value read twice collects a sum."""
    for name, rows in zip(node.inputs, pulled, strict=True):
        pending[name] = pending[name] + rows if name in pending else rows
