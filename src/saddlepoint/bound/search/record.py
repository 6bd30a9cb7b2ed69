"""Writes down a search as a certificate (spec/certificate.py) while it goes on: everything in whole batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from saddlepoint.spec.certificate import BoundSets, Certificate, Extra, Leaves, Lines, Tree
from saddlepoint.spec.query import Query

Ids = np.ndarray


class Table:
    """Columns that grow by batches of rows; a row's number never changes."""

    def __init__(self, **columns: type | str) -> None:
        self.kinds = {name: np.dtype(kind) for name, kind in columns.items()}
        self.parts: dict[str, list[np.ndarray]] = {name: [] for name in columns}
        self.size = 0

    def add(self, count: int, **values: np.ndarray | float | int) -> Ids:
        """Append `count` rows; a scalar stands for all of them."""
        for name, kind in self.kinds.items():
            self.parts[name].append(np.broadcast_to(np.asarray(values[name], dtype=kind), (count,)))
        self.size += count
        return np.arange(self.size - count, self.size)

    def column(self, name: str) -> Tensor:
        """One column."""
        parts = self.parts[name]
        whole = np.concatenate(parts) if parts else np.zeros(0, self.kinds[name])
        return torch.from_numpy(np.ascontiguousarray(whole))


@dataclass
class Recorder:
    """The growing certificate of one query. Node 0 is the root."""

    tree: Table = field(default_factory=lambda: Table(parent="i4", value="i4", entry="i4", threshold="f8", side="i1"))
    sets: Table = field(default_factory=lambda: Table(node="i4", base="i4", choice="i4", effort="u1"))
    lines: Table = field(default_factory=lambda: Table(node="i4", set="i4", clause="i4", choice="i4"))
    leaves: Table = field(default_factory=lambda: Table(node="i4", line="i4"))
    weights: list[Tensor] = field(default_factory=list)
    betas: list[Tensor] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)
    free: dict[int, Tensor] = field(default_factory=dict)
    choices: dict[int, list[Tensor]] = field(default_factory=dict)
    rows: int = 0
    extras: list[Extra] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tree.add(1, parent=-1, value=-1, entry=-1, threshold=0.0, side=-1)

    def split(self, parent: Ids, value: Ids | int, entry: Ids, threshold: np.ndarray) -> tuple[Ids, Ids]:
        """Both halves of some nodes: numbers of the sides ≤ and ≥."""
        new = [
            self.tree.add(len(parent), parent=parent, value=value, entry=entry, threshold=threshold, side=side)
            for side in (0, 1)
        ]
        return new[0], new[1]

    def bounded(self, node: Ids, base: Ids | int = -1, choice: Ids | int = -1, effort: int = 1) -> Ids:
        """Bound sets of some nodes."""
        return self.sets.add(len(node), node=node, base=base, choice=choice, effort=effort)

    def line(
        self,
        node: Ids,
        bounds: Ids,
        clause: Ids | int,
        weight: Tensor,
        choice: Ids | int = -1,
        beta: Tensor | None = None,
        splits: Tensor | None = None,
    ) -> Ids:
        """Lines of some nodes. weight (w, atoms); beta (w, most splits), of which row i has the first splits[i]."""
        count = len(node)
        self.weights.append(weight.detach().float())
        if beta is None or splits is None:
            self.counts.append(torch.zeros(count, dtype=torch.int64))
        else:
            inside = torch.arange(beta.shape[1]) < splits.unsqueeze(1)
            self.betas.append(beta.detach().float()[inside])
            self.counts.append(splits.long())
        return self.lines.add(count, node=node, set=bounds, clause=clause, choice=choice)

    def close(self, node: Ids, line: Ids) -> None:
        """Leaves."""
        self.leaves.add(len(node), node=node, line=line)

    def choose(self, choice: dict[int, Tensor]) -> Ids:
        """Rows of the choice table: uint8 (r, free entries) per node."""
        count = len(next(iter(choice.values())))
        for i, rows in choice.items():
            self.choices.setdefault(i, []).append(rows)
        self.rows += count
        return np.arange(self.rows - count, self.rows)

    def certificate(self, query: Query, most: int) -> Certificate:
        """What was written so far. most: atoms of the largest clause."""

        def columns(table: Table) -> dict[str, Tensor]:
            return {name: table.column(name) for name in table.kinds}

        counts = torch.cat(self.counts) if self.counts else torch.zeros(0, dtype=torch.int64)
        start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        weight = _padded(self.weights, most)
        beta = torch.cat(self.betas) if self.betas else torch.zeros(0)
        return Certificate(
            query.lower,
            query.upper,
            query.property,
            Tree(**columns(self.tree)),
            BoundSets(**columns(self.sets)),
            Lines(**columns(self.lines), weight=weight, beta=beta, start=start),
            Leaves(**columns(self.leaves)),
            dict(self.free),
            {i: torch.cat(rows) for i, rows in self.choices.items()},
            tuple(self.extras),
        )


def _padded(weights: Sequence[Tensor], most: int) -> Tensor:
    wide = [torch.nn.functional.pad(w, (0, most - w.shape[1])) for w in weights]
    return torch.cat(wide) if wide else torch.zeros((0, most))
