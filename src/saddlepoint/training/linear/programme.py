"""A linear or convex quadratic programme that grows by columns and rows, solved by HiGHS.

    min ⟨c, v⟩ + λ/2 Σ_{j ∈ J} v_j²    a ≤ A v ≤ b,    l ≤ v ≤ u

Convex terms enter as epigraphs and are cut by tangents where the last point violates them (Kelley 1960): the optimum of
the cut programme is a lower bound of the whole one, and the true objective at its point an upper bound.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from saddlepoint.bound.program.highs import let_it_introduce_itself
from saddlepoint.core.errors import InputError
from saddlepoint.core.extras import require

_TOLERANCE = 1e-9  # of feasibility and duals


class Programme:
    """Columns are known by their numbers."""

    def __init__(self) -> None:
        self._api: Any = require("highspy")
        let_it_introduce_itself()
        self._highs: Any = self._api.Highs()
        for name, value in {
            "output_flag": False,
            "threads": 1,
            "primal_feasibility_tolerance": _TOLERANCE,
            "dual_feasibility_tolerance": _TOLERANCE,
            "qp_regularization_value": 0.0,  # the default changes the problem by 1e-7
        }.items():
            self._highs.setOptionValue(name, value)
        self.width = 0
        self.square: tuple[np.ndarray, float] | None = None
        """J and λ of the quadratic term."""

    def columns(self, count: int, lower: float = -np.inf, upper: float = np.inf, cost: float = 0.0) -> np.ndarray:
        """New columns, all with these limits and this cost; their numbers."""
        self._highs.addVars(count, np.full(count, lower), np.full(count, upper))
        new = np.arange(self.width, self.width + count, dtype=np.int32)
        if cost:
            self._highs.changeColsCost(count, new, np.full(count, cost))
        self.width += count
        return new

    def rows(self, parts: list[tuple[np.ndarray, Any]], lower: Any = -np.inf, upper: Any = np.inf) -> None:
        """lower ≤ Σ over parts M v[columns] ≤ upper; parts (columns, M), M (rows, len(columns)) dense or sparse."""
        blocks = [(columns, sparse.coo_array(matrix)) for columns, matrix in parts]
        count = np.shape(parts[0][1])[0]
        row = np.concatenate([block.row for _, block in blocks])
        column = np.concatenate([columns[block.col] for columns, block in blocks])
        value = np.concatenate([block.data for _, block in blocks])
        matrix = sparse.csr_array((value, (row, column)), shape=(count, self.width))
        matrix.sum_duplicates()
        low, high = (np.broadcast_to(np.asarray(limit, dtype=np.float64), (count,)).copy() for limit in (lower, upper))
        start, index = matrix.indptr[:-1].astype(np.int32), matrix.indices.astype(np.int32)
        self._highs.addRows(count, low, high, matrix.nnz, start, index, matrix.data.astype(np.float64))

    def solve(self) -> tuple[float, np.ndarray]:
        """The optimum and its point. Raises InputError where there is none."""
        if self.square is not None:
            self._pass_hessian(*self.square)
        self._highs.run()
        status = self._highs.getModelStatus()
        if status != self._api.HighsModelStatus.kOptimal:
            raise InputError(
                f"HiGHS ended the programme with {self._highs.modelStatusToString(status)}.",
                "Check the features for huge values; scale them to about 1.",
            )
        return float(self._highs.getInfo().objective_function_value), np.array(self._highs.getSolution().col_value)

    def _pass_hessian(self, columns: np.ndarray, weight: float) -> None:
        counts = np.zeros(self.width, dtype=np.int32)
        counts[columns] = 1
        hessian = self._api.HighsHessian()
        hessian.dim_ = self.width
        hessian.format_ = self._api.HessianFormat.kTriangular
        hessian.start_ = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        hessian.index_ = np.sort(columns).astype(np.int32)
        hessian.value_ = np.full(len(columns), weight)
        self._highs.passHessian(hessian)


class Squares:
    """λ/2 Σ w_j² by tangents: columns r with r_j ≥ t w_j − t²/2 (≤ w_j²/2 for every t), grown at the points found.

    HiGHS' quadratic solver does not survive many nearly parallel rows; its simplex does.
    """

    def __init__(self, programme: Programme, w: np.ndarray, weight: float) -> None:
        self._programme, self._w, self._weight = programme, w, weight
        self._r = programme.columns(len(w), lower=0.0, cost=weight)

    def cut(self, point: np.ndarray, tolerance: float) -> None:
        """Tangents where r is so much too low that the term misses `tolerance`."""
        w = point[self._w]
        rows = np.flatnonzero(point[self._r] < w * w / 2 - tolerance / (len(w) * self._weight))
        if len(rows):
            parts = [(self._r[rows], scaled_identity(len(rows))), (self._w[rows], sparse.diags_array(-w[rows]))]
            self._programme.rows(parts, lower=-(w[rows] ** 2) / 2)


def scaled_identity(count: int, factor: float = 1.0) -> Any:
    """factor · I, sparse."""
    return sparse.identity(count, format="coo") * factor
