"""Linear operators as sparse matrices, and affine expressions over a program's columns.

    op(v_1, …) = Σ_k W_k v_k + c        column j of W_k is the operator's own map applied to the unit vector e_j

One-hot inputs make every product exact (all other terms are zero), so W_k holds the weights themselves; batch norm,
averages and divisions round a coefficient a few times. An expression E v + e becomes W E v + W e + c. Beside each
matrix the product of absolute values is kept, |W| … |E|: with n roundings on the way, an entry differs from the real
network's by γ_n times that at most (Higham 2002, §3.1), which becomes slack of the row that uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch
from scipy import sparse

from saddlepoint.core.arithmetic import gamma
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import LinearOp

BLOCK = 256  # unit vectors at a time
OWN = 16  # roundings inside one coefficient, generously (batch norm has 5)


@dataclass(frozen=True, eq=False)
class Expression:
    """Entries of a value as affine functions of columns: matrix v + constant, with absolute values beside them."""

    matrix: sparse.csr_matrix
    absolute: sparse.csr_matrix
    constant: np.ndarray
    extent: np.ndarray
    roundings: int

    def wide(self, columns: int) -> Expression:
        """The same over more columns."""
        if width(self.matrix) == columns:
            return self
        return Expression(
            widened(self.matrix, columns), widened(self.absolute, columns), self.constant, self.extent, self.roundings
        )

    def slack(self, reach: np.ndarray) -> np.ndarray:
        """How far each computed entry may lie from the real one where |v| ≤ reach."""
        worst = self.absolute @ reach + self.extent
        return 2 * gamma(self.roundings) * worst + np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Maps:
    """The matrices of one graph (float64, CPU)."""

    graph: Graph

    @cached_property
    def matrices(self) -> dict[str, tuple[sparse.csr_matrix, ...]]:
        """W_1, W_2, … of every linear node."""
        return {n.name: self._of(n, n.op) for n in self.graph.nodes if isinstance(n.op, LinearOp)}

    @cached_property
    def constants(self) -> dict[str, np.ndarray]:
        """c of every linear node, flat."""
        like = torch.empty(0, dtype=torch.float64)
        found = {}
        for node in self.graph.nodes:
            if isinstance(node.op, LinearOp):
                c = node.op.constant(self.graph.in_shapes(node), like)
                size = int(torch.Size(node.shape).numel())
                found[node.name] = np.zeros(size) if c is None else c.expand(1, *node.shape).reshape(-1).numpy().copy()
        return found

    def _of(self, node: Node, op: LinearOp) -> tuple[sparse.csr_matrix, ...]:
        shapes = self.graph.in_shapes(node)
        found = []
        for k, shape in enumerate(shapes):
            size = int(torch.Size(shape).numel())
            parts = []
            for start in range(0, size, BLOCK):
                count = min(BLOCK, size - start)
                unit = torch.zeros((count, size), dtype=torch.float64)
                unit[torch.arange(count), start + torch.arange(count)] = 1.0
                xs = [torch.zeros((count, *s), dtype=torch.float64) for s in shapes]
                xs[k] = unit.view(count, *shape)
                parts.append(sparse.csr_matrix(op.map(*xs).reshape(count, -1).numpy()))
            found.append(sparse.csr_matrix(sparse.vstack(parts).T))
        return tuple(found)

    def apply(self, node: Node, inputs: list[Expression]) -> Expression:
        """The node's expression from those of its inputs."""
        matrices, c = self.matrices[node.name], self.constants[node.name]
        columns = max(width(e.matrix) for e in inputs)
        size = len(c)
        matrix, absolute = (sparse.csr_matrix((size, columns)) for _ in range(2))
        constant, extent, terms = c.copy(), np.abs(c), 1
        for w, e in zip(matrices, (e.wide(columns) for e in inputs), strict=True):
            matrix, absolute = matrix + w @ e.matrix, absolute + abs(w) @ e.absolute
            constant, extent = constant + w @ e.constant, extent + abs(w) @ e.extent
            terms += int(np.diff(w.indptr).max(initial=0)) + 1
        before = max(e.roundings for e in inputs)
        return Expression(
            sparse.csr_matrix(matrix), sparse.csr_matrix(absolute), constant, extent, before + terms + OWN
        )


def width(matrix: sparse.csr_matrix) -> int:
    """How many columns."""
    return int(cast(tuple[int, int], matrix.shape)[1])


def widened(matrix: sparse.csr_matrix, columns: int) -> sparse.csr_matrix:
    """The same rows with zero columns appended."""
    return sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=(len(matrix.indptr) - 1, columns))


def selection(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Ones at (rows[i], columns[i])."""
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
