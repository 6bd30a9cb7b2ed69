"""The tree of a certificate: its domains, and what leaves prove about the whole box.

    a clause is proven at a node if a leaf says so, or if it is proven on both sides of one split of the node

Nothing here computes bounds. What does not fit (a child before its parent, an entry that the value does not have,
two halves of different thresholds) is refused or proves nothing; the format is spec/certificate.py's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.core.errors import InputError
from saddlepoint.spec.certificate import Tree


@dataclass(frozen=True)
class Splits:
    """Splits of other values than the input on the paths of some nodes, root first within a row.

    row (m,): which of the nodes; value, entry (m,) int64; threshold (m,) float64; upper (m,): side 1, v ≥ threshold.
    """

    row: Tensor
    value: Tensor
    entry: Tensor
    threshold: Tensor
    upper: Tensor


@dataclass(frozen=True)
class Forest:
    """A tree whose numbers are known to make sense, with the boxes of its nodes: box `box_of[k]` is node k's."""

    tree: Tree
    depth: Tensor
    box_of: Tensor
    lower: Tensor
    upper: Tensor

    def box(self, node: Tensor) -> tuple[Tensor, Tensor]:
        """Limits (b, d) of the input on the domains of these nodes."""
        which = self.box_of[node]
        return self.lower[which], self.upper[which]

    def within(self, node: Tensor, ancestor: Tensor) -> Tensor:
        """Whether each node is its ancestor, or below it."""
        here, aim = node, self.depth[ancestor]
        while bool((low := self.depth[here] > aim).any()):
            here = torch.where(low, self.tree.parent[here], here)
        return here == ancestor

    def splits(self, node: Tensor) -> Splits:
        """The splits of neurons on the paths to these nodes."""
        rows, found = torch.arange(len(node)), []
        here = node
        while len(here):
            inner = self.tree.value[here] > 0
            found.append((rows[inner], here[inner]))
            up = self.tree.parent[here] >= 0
            rows, here = rows[up], self.tree.parent[here[up]]
        row, at = (torch.cat(part) for part in zip(*found, strict=True)) if found else (rows, here)
        order = torch.argsort(row * (int(self.depth.max()) + 2) + self.depth[at]) if len(row) else row
        row, at = row[order], at[order]
        tree = self.tree
        return Splits(row, tree.value[at], tree.entry[at], tree.threshold[at], tree.side[at] == 1)

    def proven(self, said: Tensor) -> Tensor:
        """(clauses,) what holds at some root, from what leaves say: said bool (nodes, clauses)."""
        known, tree = said.clone(), self.tree
        if len(tree.parent) == 0:
            return torch.zeros(said.shape[1], dtype=torch.bool)
        for level in range(int(self.depth.max()), 0, -1):
            mine = (self.depth == level).nonzero()[:, 0]
            bits = (tree.threshold[mine] + 0.0).view(torch.int64)  # −0 and 0 are one threshold
            key = torch.stack([tree.parent[mine], tree.value[mine], tree.entry[mine], bits], 1)
            groups, group = key.unique(dim=0, return_inverse=True)
            sides = [torch.zeros((len(groups), said.shape[1]), dtype=torch.bool) for _ in range(2)]
            for side, halves in enumerate(sides):
                index = (tree.side[mine] == side).nonzero()[:, 0]
                _any_into(halves, group[index], known[mine[index]])
            _any_into(known, groups[:, 0], sides[0] & sides[1])
        return known[tree.parent < 0].any(0)


def forest(tree: Tree, lower: Tensor, upper: Tensor, sizes: list[int]) -> Forest:
    """The tree, checked. `sizes[i]` is how many entries value i has. Raises InputError for one that makes no sense."""
    columns = [tree.parent, tree.value, tree.entry, tree.side]
    if any(t.dim() != 1 or len(t) != len(tree.threshold) or t.is_floating_point() for t in columns):
        raise InputError("the certificate's tree has columns of different lengths or kinds.")
    if lower.shape != upper.shape or lower.shape != (sizes[0],) or tree.threshold.dtype != torch.float64:
        raise InputError(f"the certificate's box has shape {tuple(lower.shape)}, the input has {sizes[0]} entries.")
    parent, value, entry, side = (t.long() for t in columns)
    number = torch.arange(len(parent))
    known = torch.tensor(sizes)
    cut = parent >= 0  # a root's own split is not read
    at = (value >= 0) & (value < len(sizes)) & (entry >= 0) & (entry < known[value.clamp(0, len(sizes) - 1)])
    fits = (parent >= -1) & (parent < number) & (~cut | (at & ((side == 0) | (side == 1)) & tree.threshold.isfinite()))
    if not bool(fits.all()):
        k = int((~fits).nonzero()[0])
        raise InputError(f"node {k} of the certificate's tree makes no sense.", "It is damaged, or of another network.")
    plain = Tree(parent, torch.where(cut, value, -1), entry, tree.threshold, side)
    depth = _depth(parent)
    boxes = _boxes(plain, depth, lower.double(), upper.double())
    return Forest(plain, depth, *boxes)


def _depth(parent: Tensor) -> Tensor:
    depth, here = torch.zeros_like(parent), parent.clone()
    while bool((up := here >= 0).any()):
        depth += up
        here = torch.where(up, parent[here], here)
    return depth


def _boxes(tree: Tree, depth: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """box_of (n,), lower, upper (boxes, d): a node without a split of the input shares its parent's box."""
    own = tree.value == 0
    box_of = torch.zeros_like(tree.parent)
    box_of[own] = 1 + torch.arange(int(own.sum()))
    low, high = (limit.repeat(1 + int(own.sum()), 1) for limit in (lower, upper))
    for level in range(1, int(depth.max()) + 1 if len(depth) else 0):
        mine = (depth == level).nonzero()[:, 0]
        shared = mine[~own[mine]]
        box_of[shared] = box_of[tree.parent[shared]]
        cut = mine[own[mine]]
        at, from_, entry = box_of[cut], box_of[tree.parent[cut]], tree.entry[cut]
        low[at], high[at] = low[from_], high[from_]
        threshold, side = tree.threshold[cut], tree.side[cut] == 1
        low[at, entry] = torch.where(side, torch.maximum(low[at, entry], threshold), low[at, entry])
        high[at, entry] = torch.where(side, high[at, entry], torch.minimum(high[at, entry], threshold))
    return box_of, low, high


def _any_into(target: Tensor, index: Tensor, rows: Tensor) -> None:
    """target[index] |= rows, also where an index occurs twice."""
    if len(index):
        spread = index[:, None].expand_as(rows)
        target |= torch.zeros(target.shape, dtype=torch.uint8).scatter_reduce_(0, spread, rows.byte(), "amax").bool()
