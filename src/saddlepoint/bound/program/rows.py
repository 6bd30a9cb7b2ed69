"""A program under construction: columns with limits, rows with limits, which columns are whole numbers.

min ⟨c, v⟩    row_lower ≤ A v ≤ row_upper,    column_lower ≤ v ≤ column_upper,    v_j ∈ {0, 1} for marked j
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from saddlepoint.bound.program.maps import Expression, widened


@dataclass(frozen=True, eq=False)
class Program:
    """The finished program; `whole` marks the columns that are 0 or 1."""

    matrix: sparse.csr_matrix
    row_lower: np.ndarray
    row_upper: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    whole: np.ndarray

    @property
    def reach(self) -> np.ndarray:
        """max |v_j|."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))


@dataclass
class Draft:
    """Grows by columns and rows; `program` is a copy of what there is."""

    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    row_lower: list[float] = field(default_factory=list)
    row_upper: list[float] = field(default_factory=list)
    parts: list[sparse.csr_matrix] = field(default_factory=list)
    _index: list[int] = field(default_factory=list)
    _value: list[float] = field(default_factory=list)
    _start: list[int] = field(default_factory=lambda: [0])

    @property
    def columns(self) -> int:
        """How many there are."""
        return len(self.lower)

    def add(self, lower: np.ndarray, upper: np.ndarray, whole: bool = False) -> np.ndarray:
        """Columns with these limits; their numbers."""
        first = self.columns
        self.lower.extend(lower.tolist())
        self.upper.extend(upper.tolist())
        self.whole.extend([whole] * len(lower))
        return np.arange(first, self.columns)

    def row(self, terms: list[tuple[int, float]], lower: float, upper: float) -> None:
        """lower ≤ Σ value · v[column] ≤ upper."""
        self._index.extend(column for column, _ in terms)
        self._value.extend(value for _, value in terms)
        self._start.append(len(self._index))
        self.row_lower.append(lower)
        self.row_upper.append(upper)

    def equals(self, columns: np.ndarray, expression: Expression, entries: np.ndarray) -> None:
        """v[columns] = the expression's entries, within the rounding of its coefficients."""
        self._flush()
        e = expression.wide(self.columns)
        slack = e.slack(self.reach)[entries]
        pick = sparse.csr_matrix(
            (-np.ones(len(columns)), (np.arange(len(columns)), columns)), (len(columns), self.columns)
        )
        self.parts.append(sparse.csr_matrix(e.matrix[entries] + pick))
        self.row_lower.extend((-e.constant[entries] - slack).tolist())
        self.row_upper.extend((-e.constant[entries] + slack).tolist())

    @property
    def reach(self) -> np.ndarray:
        """max |v_j| of the columns so far."""
        return np.maximum(np.abs(np.array(self.lower)), np.abs(np.array(self.upper)))

    def program(self) -> Program:
        """The program so far."""
        self._flush()
        parts = [widened(part, self.columns) for part in self.parts]
        matrix = sparse.csr_matrix(sparse.vstack(parts)) if parts else sparse.csr_matrix((0, self.columns))
        return Program(
            matrix,
            np.array(self.row_lower),
            np.array(self.row_upper),
            np.array(self.lower),
            np.array(self.upper),
            np.array(self.whole, dtype=bool),
        )

    def _flush(self) -> None:
        """Single rows written so far become a matrix."""
        if len(self._start) == 1:
            return
        shape = (len(self._start) - 1, self.columns)
        arrays = (np.array(self._value), np.array(self._index, dtype=np.int64), np.array(self._start, dtype=np.int64))
        self.parts.append(sparse.csr_matrix(arrays, shape=shape))
        self._index, self._value, self._start = [], [], [0]
