"""Bound sets and lines of a certificate, computed anew in float64 and rounded outward.

    set    bounds of every value on a tree node's domain: intervals, cut with its base, its splits, and backward passes
    line   Σ weight · atom + Σ β · (terms ≤ 0 on the domain)  ≥  ⟨A, x⟩ + c        (spec/certificate.py)

A batch of sets is walked at once. Where bounds cross (lower > upper, both rigorous) the domain is empty: whatever is
claimed there holds, and the batch says so, while the arithmetic goes on with a point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from saddlepoint.check.certificate_tree import Forest, Splits
from saddlepoint.check.proofs_affine import Affine, form_of
from saddlepoint.check.proofs_forward import Charge, Enclosure, Forward, magnitude
from saddlepoint.check.proofs_lines import TINY, Lines, U, Winners, lines, supported, winners
from saddlepoint.check.proofs_products import Planes
from saddlepoint.check.proofs_refine import exact, refine_value, unit
from saddlepoint.check.proofs_render import Slab, slab
from saddlepoint.check.proofs_walk import Backward, Rows, Tally
from saddlepoint.check.support import Region
from saddlepoint.core.arithmetic import gamma
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import Clip, LeakyRelu, LinearOp, MatrixProduct, MaxPool2d, Product, Relu, Render
from saddlepoint.spec.certificate import RAMP, Certificate, Extra

Base = Callable[[Tensor, str], Enclosure | None]  # bounds of a value by the bases of these sets


@dataclass(frozen=True)
class Sets:
    """A batch of bound sets: values (b, *shape) by name, charges of the linear nodes, and which domains are empty."""

    values: dict[str, Enclosure]
    charges: dict[str, Charge]
    empty: Tensor


@dataclass(frozen=True)
class Ground:
    """Lines at the input: ⟨a, x⟩ + constant − error from below, a (w, *input); empty (w,): nothing lies there."""

    a: Tensor
    constant: Tensor
    error: Tensor
    empty: Tensor


@dataclass(frozen=True)
class Bounder:
    """One certificate on one float64 graph; `memory` bytes of rows at a time."""

    graph: Graph
    certificate: Certificate
    forest: Forest
    memory: int

    @cached_property
    def forward(self) -> Forward:
        return Forward(self.graph)

    @cached_property
    def number(self) -> dict[str, int]:
        """Names to the certificate's numbers of values."""
        return {self.graph.input: 0} | {node.name: i for i, node in enumerate(self.graph.nodes, start=1)}

    @cached_property
    def read(self) -> frozenset[str]:
        """Values that nonlinear nodes read: what heirs of a set take over."""
        return frozenset(n for node in self.graph.nodes if not isinstance(node.op, LinearOp) for n in node.inputs)

    def sets(self, index: Tensor, base: Base) -> Sets:
        """The bound sets of these numbers, all of one effort."""
        stated = self.certificate.sets
        node = stated.node.long()[index]
        choice, effort = stated.choice.long()[index], int(stated.effort[index[0]]) if len(index) else 0
        low, high = (t.view(-1, *self.graph.input_shape) for t in self.forest.box(node))
        empty = torch.zeros(len(index), dtype=torch.bool)
        splits = self.forest.splits(node)
        values: dict[str, Enclosure] = {self.graph.input: self._cut(low, high, splits, 0, empty)}
        charges: dict[str, Charge] = {}
        enclosures: dict[str, Lines | Winners | Planes | Slab] = {}
        backward = Backward(self.forward, _region(*values[self.graph.input]), values, charges, enclosures, self.memory)
        done: set[str] = set()
        affine = Affine.over(self.forward, low, high)
        forms = {self.graph.input: affine.start(low)} if effort == 2 else {}
        for at in self.graph.nodes:
            inputs = [values[name] for name in at.inputs]
            if isinstance(at.op, LinearOp):
                charges[at.name] = self.forward.charge(at, at.op, inputs)
            elif effort:
                for name in at.inputs:
                    if effort == 1 and name not in done and not exact(self.graph, backward.region, name):
                        done.add(name)
                        refine_value(backward, values, supported(at.op, at.name), name)
                        self._extras(backward, values, index, name)
                        values[name] = self._clean(*values[name], empty)
                inputs = [values[name] for name in at.inputs]
                enclosures[at.name] = self._enclosure(at, inputs, choice)
            known = enclosures.get(at.name)
            low, high = known.range if isinstance(known, Slab) else self.forward.image(at, inputs)
            if effort == 2:
                forms[at.name] = form_of(affine, at, forms, enclosures.get(at.name), (low, high))
                low, high = affine.meet(low, high, forms[at.name])
            known = base(index, at.name) if at.name in self.read else None
            if known is not None:
                low, high = torch.maximum(low, known[0]), torch.minimum(high, known[1])
            values[at.name] = self._cut(low, high, splits, self.number[at.name], empty)
        return Sets(values, charges, empty)

    def lines(self, index: Tensor, domains: Sets, place: Tensor) -> Ground:
        """These lines, pulled back to the input; `place` says which row of `domains` is each line's set."""
        stated = self.certificate.lines
        node = stated.node.long()[index]
        splits = self.forest.splits(node)
        empty = domains.empty[place].clone()
        values: dict[str, Enclosure] = {}
        for name, number in self.number.items():
            low, high = (t.index_select(0, place) for t in domains.values[name])
            if number == 0:
                box = [t.view(low.shape) for t in self.forest.box(node)]
                low, high = torch.maximum(low, box[0]), torch.minimum(high, box[1])
            values[name] = self._cut(low, high, splits, number, empty)
        charges = {
            name: Charge(c.share.index_select(0, place), c.floor.index_select(0, place))
            for name, c in domains.charges.items()
        }
        choice = stated.choice.long()[index]
        enclosures = {
            at.name: self._enclosure(at, [values[name] for name in at.inputs], choice)
            for at in self.graph.nodes
            if not isinstance(at.op, LinearOp)
        }
        where = _region(*values[self.graph.input])
        backward = Backward(self.forward, where, values, charges, enclosures, self.memory)
        tally = self._start(index, splits, values)
        backward.descend(tally)
        ground = tally.pending.get(self.graph.input)
        a = torch.zeros_like(where.lower) if ground is None else ground.full()
        return Ground(a, tally.constant, tally.error, empty)

    def _start(self, index: Tensor, splits: Splits, values: dict[str, Enclosure]) -> Tally:
        """Σ weight · atom + Σ β · term as rows of the output, of split values and of the input."""
        stated, formula = self.certificate.lines, self.certificate.property
        count, output = len(index), self.graph.output_shape
        clause, weight = stated.clause.long()[index], stated.weight.double()[index]
        sizes = {"z": torch.Size(output).numel(), "x": torch.Size(self.graph.input_shape).numel()}
        rows = {part: torch.zeros((count, n), dtype=torch.float64) for part, n in sizes.items()}
        bulk = {part: torch.zeros_like(t) for part, t in rows.items()}
        constant, gross = (torch.zeros(count, dtype=torch.float64) for _ in range(2))
        most = weight.shape[1] + 2
        for c in clause.unique().tolist():
            mine = (clause == c).nonzero()[:, 0]
            atoms, w = formula.clauses[c], weight[mine][:, : len(formula.clauses[c])]
            for part in rows:
                zeros = (0.0,) * sizes[part]
                of = torch.tensor([getattr(a, part) or zeros for a in atoms], dtype=torch.float64)
                rows[part][mine], bulk[part][mine] = w @ of, w @ of.abs()
            b = torch.tensor([a.b for a in atoms], dtype=torch.float64)
            constant[mine], gross[mine] = w @ b, w @ b.abs()
        x_size = magnitude(*values[self.graph.input]).flatten(1)
        z_size = magnitude(*values[self.graph.output]).flatten(1)
        # each coefficient and the constant are sums of `most` products
        off = gross + (bulk["z"] * z_size).sum(1) + (bulk["x"] * x_size).sum(1)
        entries = sum(sizes.values())
        error = 2 * gamma(most) * off * (1 + 2 * gamma(entries + 8)) + TINY * (entries + most)
        tally = Tally(torch.arange(count), torch.zeros_like(constant), error)
        tally.add(constant)
        tally.push(self.graph.output, Rows(rows["z"].view(count, *output), output), values[self.graph.output])
        if bool((rows["x"] != 0).any()):
            shape = self.graph.input_shape
            tally.push(self.graph.input, Rows(rows["x"].view(count, *shape), shape), values[self.graph.input])
        self._multiply(tally, index, splits, values)
        return tally

    def _multiply(self, tally: Tally, index: Tensor, splits: Splits, values: dict[str, Enclosure]) -> None:
        """Add β (v − t) for v ≤ t and β (t − v) for v ≥ t: both are ≤ 0 on the domain."""
        stated, count = self.certificate.lines, len(index)
        start = stated.start.long()
        rank = torch.arange(len(splits.row)) - torch.searchsorted(splits.row, splits.row)
        beta = stated.beta.double()[start[index][splits.row] + rank]
        signed = torch.where(splits.upper, -beta, beta)
        for name, number in self.number.items():
            mine = (splits.value == number).nonzero()[:, 0]
            if number == 0 or not bool((beta[mine] != 0).any()):
                continue
            row, entry, b, t = splits.row[mine], splits.entry[mine], signed[mine], splits.threshold[mine]
            shape = self.graph.shape(name)
            a = torch.zeros((count, torch.Size(shape).numel()), dtype=torch.float64)
            a.index_put_((row, entry), b, accumulate=True)
            moved = torch.zeros(count, dtype=torch.float64).index_add_(0, row, -b * t)
            size = b.abs() * (magnitude(*values[name]).flatten(1)[row, entry] + t.abs())
            gross = torch.zeros(count, dtype=torch.float64).index_add_(0, row, size)
            n = len(mine) + 8
            tally.error = (tally.error + 4 * gamma(n) * gross + n * TINY) * (1 + 2 * U)
            tally.add(moved)
            tally.push(name, Rows(a.view(count, *shape), shape), values[name])

    def _extras(self, backward: Backward, values: dict[str, Enclosure], index: Tensor, name: str) -> None:
        """Rows with choices of their own: each is a domain of its own for as long as it walks."""
        for extra in self.certificate.extras:
            if extra.value != self.number[name]:
                continue
            for row in (index == extra.set).nonzero()[:, 0].tolist():
                self._extra(backward, values, row, name, extra)

    def _extra(self, backward: Backward, values: dict[str, Enclosure], row: int, name: str, extra: Extra) -> None:
        graph, shape = self.graph, self.graph.shape(name)
        total = sum(torch.Size(node.shape).numel() for node in graph.nodes)
        room = max(1, self.memory // (8 * 8 * total))
        low, high = (t.flatten(1).clone() for t in values[name])
        for begin in range(0, len(extra.entry), room):
            entry, sign = (t[begin : begin + room] for t in (extra.entry.long(), extra.sign.double()))
            owner = torch.full_like(entry, row)
            mine = {n: (lo.index_select(0, owner), hi.index_select(0, owner)) for n, (lo, hi) in values.items()}
            charges = {
                n: Charge(c.share.index_select(0, owner), c.floor.index_select(0, owner))
                for n, c in backward.charges.items()
            }
            lines_ = {}
            for node in graph.nodes:
                if node.name in backward.enclosures:
                    own = extra.choice.get(self.number[node.name])
                    given = None if own is None else own[begin : begin + room]
                    lines_[node.name] = self._enclosure(node, [mine[n] for n in node.inputs], None, given)
            alone = Backward(self.forward, _region(*mine[graph.input]), mine, charges, lines_, self.memory)
            found = sign * alone.minimum(name, unit(entry, shape, sign), torch.arange(len(entry)))
            # NaN compares false; several rows of one entry: each only tightens
            for e, s, f in zip(entry.tolist(), sign.tolist(), found.tolist(), strict=True):
                if s > 0 and f > float(low[row, e]):
                    low[row, e] = f
                if s < 0 and f < float(high[row, e]):
                    high[row, e] = f
        values[name] = (low.view(-1, *shape), high.view(-1, *shape))

    def _enclosure(
        self, node: Node, inputs: list[Enclosure], choice: Tensor | None, given: Tensor | None = None
    ) -> Lines | Winners | Planes | Slab:
        """Lines of a nonlinear node with row `choice` of its table (−1: the ramp), or with the rows `given`."""
        op = supported(node.op, node.name)
        if isinstance(op, MaxPool2d):
            return winners(op, *inputs[0])
        if isinstance(op, Render):
            return slab(op, *inputs[0])
        number = self.number[node.name]
        if isinstance(op, Product | MatrixProduct):  # one number per output, not per entry of the factors
            outputs = torch.Size(node.shape).numel()
            place = torch.full((len(inputs[0][0]), outputs), 0.5, dtype=torch.float64)
        else:
            place = _ramp(op, *inputs[0]).flatten(1)
        free = self.certificate.free.get(number)
        table = self.certificate.choice.get(number)
        if free is not None and given is not None:
            place[:, free.long()] = given.double() / 255
        elif free is not None and table is not None and choice is not None:
            told = (choice >= 0).nonzero()[:, 0]
            place[told[:, None], free.long()[None]] = table[choice[told]].double() / 255
        return lines(op, *inputs[0], place.view(len(place), *node.shape))

    def _cut(self, low: Tensor, high: Tensor, splits: Splits, number: int, empty: Tensor) -> Enclosure:
        """Meet with the splits of this value (those of the input are in the box already)."""
        mine = (splits.value == number).nonzero()[:, 0] if number else torch.zeros(0, dtype=torch.int64)
        if len(mine):
            flat = [t.flatten(1).clone() for t in (low, high)]
            n = flat[0].shape[1]
            at, up, t = splits.row[mine] * n + splits.entry[mine], splits.upper[mine], splits.threshold[mine]
            flat[0].view(-1).scatter_reduce_(0, at[up], t[up], "amax")
            flat[1].view(-1).scatter_reduce_(0, at[~up], t[~up], "amin")
            low, high = (t.view(low.shape) for t in flat)
        return self._clean(low, high, empty)

    def _clean(self, low: Tensor, high: Tensor, empty: Tensor) -> Enclosure:
        """Where bounds cross nothing lies: note it, and go on with a point."""
        crossed = low > high  # NaN compares false: it stays NaN and proves nothing
        if not bool(crossed.any()):
            return low, high
        empty |= crossed.flatten(1).any(1)
        middle = (low + high) / 2
        return torch.where(crossed, middle, low), torch.where(crossed, middle, high)


def _region(lower: Tensor, upper: Tensor) -> Region:
    """The boxes of a batch of domains."""
    return Region({"kind": "box"}, lower, lower, upper)


def _ramp(op: object, low: Tensor, high: Tensor) -> Tensor:
    """The choice that no table gives."""
    width = high - low
    if isinstance(op, Relu | LeakyRelu):
        lean = (high + low) / width
    elif isinstance(op, Clip):
        p = low.clamp_min(op.lower)
        lean = ((high - p) - (p - low)) / width
    else:
        return torch.full_like(low, 0.5)
    return torch.nan_to_num(0.5 + RAMP * lean, nan=0.5).clamp(0.0, 1.0)
