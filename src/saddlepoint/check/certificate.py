"""Does a certificate show that a query's property holds on its whole box?

    every clause is proven at a root;  a leaf proves its clause where  min over its box of ⟨A, x⟩ + c − error > 0

Semantics: f is the *real-valued* network with the float weights as given, the box is that of the query, and every
number is recomputed in float64 with outward rounding: of the certificate only domains, choices of slopes and
multipliers are used, each clipped or refused outside its sound range. A part that is damaged, a leaf that fails or a
clock that runs out makes the ruling "not accepted", never more. Format: spec/certificate.py; arithmetic: proofs_*.py.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from saddlepoint.check.certificate_bounds import Bounder, Ground, Sets
from saddlepoint.check.certificate_tree import forest
from saddlepoint.check.proofs_forward import Enclosure
from saddlepoint.check.proofs_lines import U
from saddlepoint.check.proofs_walk import Tally
from saddlepoint.check.render import SPATIAL, parameter_box, require_unclipped
from saddlepoint.check.support import corner, region
from saddlepoint.core.errors import InputError, NotAvailable, UnsupportedOperator
from saddlepoint.graph.decompose import decompose
from saddlepoint.graph.ir import Graph
from saddlepoint.graph.rendering import rendered
from saddlepoint.spec.certificate import Certificate
from saddlepoint.spec.property import margin_property
from saddlepoint.spec.query import Query

MEMORY = 1 << 27  # bytes for one batch of domains
ROWS = 1 << 23  # bytes of one chunk of rows on their way down: what stays in a cache is a quarter faster
ROOM = 12  # arrays of every value's size that a domain needs at a time


class OutOfTime(Exception):
    """The deadline passed before the last leaf."""


@dataclass(frozen=True)
class Ruling:
    """`accepted` only if all of it was checked and every clause is proven; `reason` says what is missing."""

    accepted: bool
    reason: str = ""
    leaves: int = 0
    lowest: float = float("-inf")  # the smallest bound of a leaf: the property's value is at least this


def judge(graph: Graph, query: Query, certificate: Certificate, *, deadline: float | None = None) -> Ruling:
    """Check a certificate against the query that it is said to prove; `deadline` is a time.monotonic()."""
    if certificate.property != query.property:
        return Ruling(False, "the certificate speaks of another property.")
    if not (torch.equal(certificate.lower, query.lower) and torch.equal(certificate.upper, query.upper)):
        return Ruling(False, "the certificate speaks of another box.")
    try:
        with torch.no_grad():
            wide = decompose(graph.to(torch.device("cpu")).to(torch.float64))
            return _Check(wide, certificate, deadline).ruling()
    except OutOfTime:
        return Ruling(False, "the time ended before the certificate was checked.")
    except (InputError, NotAvailable, UnsupportedOperator) as error:
        return Ruling(False, str(error))


def question(set_canonical: Mapping[str, Any], x0: Tensor, label: int, classes: int) -> Query:
    """The query "z_label is the largest logit on all of S(x0)", for sets that are boxes; limits rounded outward.

    For rotations and translations it is about the box of parameters (angle in degrees, dy, dx), and so about the graph
    that `subject` gives.
    """
    if set_canonical["kind"] == SPATIAL:
        lower, upper = parameter_box(set_canonical)
        return Query(lower, upper, margin_property(label, classes))
    where = region(dict(set_canonical), x0[None])
    if not where.boxed:
        raise NotAvailable(f"a set of kind {set_canonical['kind']!r} is no box.", "Certificates are about boxes.")
    return Query(where.lower.flatten(), where.upper.flatten(), margin_property(label, classes))


def subject(graph: Graph, set_canonical: Mapping[str, Any], x0: Tensor) -> Graph:
    """The graph that `question` is about: the model's own, or the model behind the rendering of x0 (C, H, W).

    Composed anew from the model, the sample and the set for every ruling, so a certificate of another sample is judged
    on this one. Raises NotAvailable for what is not rendered exactly: a data box without 0 or without x0.
    """
    if set_canonical["kind"] != SPATIAL:
        return graph
    moved = rendered(graph, x0)
    require_unclipped(set_canonical, x0)
    return moved


@dataclass
class _Check:
    """One certificate; `kept` holds the bounds of sets that later ones start from."""

    graph: Graph
    certificate: Certificate
    deadline: float | None
    kept: dict[int, dict[str, Enclosure]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = [self.graph.input_shape, *(node.shape for node in self.graph.nodes)]
        sizes = [torch.Size(shape).numel() for shape in shapes]
        c = self.certificate
        self.forest = forest(c.tree, c.lower, c.upper, sizes)
        self.entries = sum(sizes)
        self._require(sizes)
        self.bounder = Bounder(self.graph, c, self.forest, ROWS)

    def ruling(self) -> Ruling:
        """Sets in the order of their bases, the lines of each, the leaves of each line."""
        leaves = self.certificate.leaves
        passed = torch.zeros(len(leaves.node), dtype=torch.bool)
        margin = torch.full((len(leaves.node),), -torch.inf, dtype=torch.float64)
        self.heirs = torch.zeros(len(self.certificate.sets.node), dtype=torch.int64)
        base = self.certificate.sets.base.long()
        self.heirs.index_add_(0, base[base >= 0], torch.ones_like(base[base >= 0]))
        for batch in self._batches():
            domains = self.bounder.sets(batch, self._base)
            self._keep(batch, domains)
            self._lines(batch, domains, passed, margin)
        if not bool(passed.all()):
            worst = float(margin[~passed].min()) if len(margin) else 0.0
            return Ruling(False, f"{int((~passed).sum())} of {len(passed)} leaves are not proven (worst {worst:.3g}).")
        clauses = len(self.certificate.property.clauses)
        said = torch.zeros((len(self.forest.depth), clauses), dtype=torch.bool)
        said[leaves.node.long(), self.certificate.lines.clause.long()[leaves.line.long()]] = True
        proven = self.forest.proven(said)
        if not bool(proven.all()):
            return Ruling(False, f"the leaves do not cover the box for clause {int((~proven).nonzero()[0])}.")
        return Ruling(True, "", len(passed), float(margin.min()))

    def _batches(self) -> list[Tensor]:
        """Numbers of sets, bases first, each batch of one effort."""
        base, effort = self.certificate.sets.base.long(), self.certificate.sets.effort
        level, here = torch.zeros_like(base), base.clone()
        while bool((up := here >= 0).any()):
            level += up
            here = torch.where(up, base[here], here)
        room = max(1, MEMORY // (8 * ROOM * self.entries))
        found = []
        for depth in range(int(level.max()) + 1 if len(level) else 0):
            for hard in effort.unique().tolist():
                found += ((level == depth) & (effort == hard)).nonzero()[:, 0].split(room)
        return [batch for batch in found if len(batch)]

    def _base(self, index: Tensor, name: str) -> Enclosure | None:
        """What the sets' bases say of one value; sets without a base get the whole line."""
        base = self.certificate.sets.base.long()[index]
        if not bool((base >= 0).any()):
            return None
        which, place = base.unique(return_inverse=True)
        endless = torch.full((1, *self.graph.shape(name)), torch.inf, dtype=torch.float64)
        pairs = [self.kept[b][name] if b >= 0 else (-endless[0], endless[0]) for b in which.tolist()]
        low, high = (torch.stack(side).index_select(0, place) for side in zip(*pairs, strict=True))
        return low, high

    def _keep(self, batch: Tensor, domains: Sets) -> None:
        self._tick()
        for row, s in enumerate(batch.tolist()):
            if int(self.heirs[s]):
                held = {n: domains.values[n] for n in self.bounder.read}
                self.kept[s] = {n: (low[row].clone(), high[row].clone()) for n, (low, high) in held.items()}
        base = self.certificate.sets.base.long()[batch]
        for b in base[base >= 0].tolist():
            self.heirs[b] -= 1
            if not int(self.heirs[b]):
                self.kept.pop(b, None)  # its last heir has what it needs

    def _lines(self, batch: Tensor, domains: Sets, passed: Tensor, margin: Tensor) -> None:
        """All lines of a batch of sets, and their leaves."""
        owner = torch.full((len(self.certificate.sets.node),), -1, dtype=torch.int64)
        owner[batch] = torch.arange(len(batch))
        place = owner[self.certificate.lines.set.long()]
        room = max(1, MEMORY // (8 * ROOM * self.entries))
        for index in (place >= 0).nonzero()[:, 0].split(room):
            if len(index):
                self._tick()
                ground = self.bounder.lines(index, domains, place[index])
                self._leaves(index, ground, passed, margin)

    def _leaves(self, index: Tensor, ground: Ground, passed: Tensor, margin: Tensor) -> None:
        """Leaves of some lines: the minimum over each leaf's box."""
        owner = torch.full((len(self.certificate.lines.node),), -1, dtype=torch.int64)
        owner[index] = torch.arange(len(index))
        leaves = self.certificate.leaves
        place = owner[leaves.line.long()]
        room = max(1, MEMORY // (8 * ROOM * ground.a[:1].numel()))
        for mine in (place >= 0).nonzero()[:, 0].split(room):
            if not len(mine):
                continue
            line = place[mine]
            low, high = self.forest.box(leaves.node.long()[mine])
            tally = Tally(line, ground.constant[line], ground.error[line])
            tally.add(-corner(-ground.a[line], low, high))
            # Σ w a > t shows that some atom is > t / Σ w; one rounding of the sum, one of the quotient
            weight = self.certificate.lines.weight.double()[index][line].sum(1)
            total = tally.total() / weight
            total = total - 4 * U * total.abs()
            nothing = ground.empty[line] | (low > high).any(1)
            margin[mine] = torch.where(nothing, torch.inf, total)
            passed[mine] = margin[mine] > 0  # NaN compares false: not proven

    def _tick(self) -> None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfTime

    def _require(self, sizes: list[int]) -> None:
        """Raise InputError unless every number of the certificate points to something that is there."""
        c, nodes = self.certificate, len(self.forest.depth)
        sets, lines, leaves = c.sets, c.lines, c.leaves
        rows = max((len(t) for t in c.choice.values()), default=0)
        _within("sets.node", sets.node, 0, nodes)
        _within("sets.choice", sets.choice, -1, rows)
        _within("sets.effort", sets.effort, 0, 3)
        _within("lines.node", lines.node, 0, nodes)
        _within("lines.set", lines.set, 0, len(sets.node))
        _within("lines.clause", lines.clause, 0, len(c.property.clauses))
        _within("lines.choice", lines.choice, -1, rows)
        _within("leaves.node", leaves.node, 0, nodes)
        _within("leaves.line", leaves.line, 0, len(lines.node))
        base = sets.base.long()
        if not bool(((base >= -1) & (base < torch.arange(len(base)))).all()):
            raise InputError("a bound set of the certificate starts from a later one.")
        heir = base >= 0
        below = self.forest.within(sets.node.long()[heir], sets.node.long()[base[heir]])
        own = self.forest.within(lines.node.long(), sets.node.long()[lines.set.long()])
        under = self.forest.within(leaves.node.long(), lines.node.long()[leaves.line.long()])
        if not bool(below.all() & own.all() & under.all()):
            raise InputError("a part of the certificate uses what holds on another domain only.")
        self._require_tables(sizes, rows)
        self._require_multipliers()

    def _require_tables(self, sizes: list[int], rows: int) -> None:
        c = self.certificate
        tables = [(v, c.free.get(v), t) for v, t in c.choice.items()]
        tables += [(v, c.free.get(v), t) for extra in c.extras for v, t in extra.choice.items()]
        for v, free, table in tables:
            if not 0 < v < len(sizes) or free is None or table.shape[1:] != free.shape or table.dtype != torch.uint8:
                raise InputError(f"the certificate's choices of value {v} have no entries to belong to.")
            _within(f"free.{v}", free, 0, sizes[v])
        if any(len(t) != rows for t in c.choice.values()):
            raise InputError("the certificate's tables of choices differ in length.")
        for extra in c.extras:
            if not (0 < extra.value < len(sizes) and 0 <= extra.set < len(c.sets.node)):
                raise InputError("an extra row of the certificate belongs to nothing.")
            _within("extra.entry", extra.entry, 0, sizes[extra.value])
            if not bool((extra.sign.abs() == 1).all()) or any(
                len(t) != len(extra.entry) for t in extra.choice.values()
            ):
                raise InputError("the extra rows of the certificate have signs or choices that do not fit.")

    def _require_multipliers(self) -> None:
        c = self.certificate
        weight, beta, start = c.lines.weight.double(), c.lines.beta.double(), c.lines.start.long()
        ends = len(start) == len(c.lines.node) + 1 and len(start) > 0 and int(start[0]) == 0
        if not ends or int(start[-1]) != len(beta):
            raise InputError("the multipliers of the certificate's lines are incomplete.")
        splits = self.forest.splits(c.lines.node.long())
        wanted = torch.zeros(len(c.lines.node), dtype=torch.int64)
        wanted.index_add_(0, splits.row, torch.ones_like(splits.row))
        if not torch.equal(start.diff(), wanted):
            raise InputError("a line of the certificate has not one multiplier for each split above it.")
        widths = torch.tensor([len(clause) for clause in c.property.clauses])[c.lines.clause.long()]
        padding = torch.arange(weight.shape[1]) >= widths[:, None]
        good = (weight >= 0).all() & weight.isfinite().all() & (beta >= 0).all() & beta.isfinite().all()
        if not bool(good) or bool((weight[padding] != 0).any()) or not bool((weight.sum(1) > 0).all()):
            raise InputError("a multiplier of the certificate is negative, infinite, or all weights are 0.")


def _within(what: str, t: Tensor, least: int, end: int) -> None:
    """Raise InputError unless all of t are integers in [least, end)."""
    if t.dim() != 1 or t.is_floating_point() or (len(t) and not (least <= int(t.min()) and int(t.max()) < end)):
        raise InputError(f"{what} of the certificate points outside [{least}, {end}).", "It is damaged.")
