"""HiGHS behind one small door, and lower bounds that do not rest on it.

**Safe bound** (Neumaier and Shcherbina, "Safe bounds in linear and mixed-integer linear programming", 2004). For any
multipliers y, wherever they come from, with r = c − Aᵀ y,

    ⟨c, v⟩ = ⟨y, A v⟩ + ⟨r, v⟩ ≥ Σ_i min(y_i a_i, y_i b_i) + Σ_j min(r_j l_j, r_j u_j)      a ≤ A v ≤ b,  l ≤ v ≤ u

A multiplier whose sign meets an infinite limit is set to 0. Computed in float64, every entry of r is off by
γ_n (|c| + |A|ᵀ|y|)_j at most and the sums by γ_n of their absolute terms (Higham 2002, §3.1): both are taken off.
For a program with whole columns this bounds the relaxation, hence the program.

**Whole programs.** HiGHS's own dual bound of its search; its tolerances are taken off, and it stays a claim.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from saddlepoint.bound.program.rows import Program
from saddlepoint.core.arithmetic import gamma
from saddlepoint.core.extras import require

_TOLERANCE = 1e-9  # of feasibility, duals and whole numbers; HiGHS takes none below 1e-10


@dataclass(frozen=True, eq=False)
class Solved:
    """How HiGHS ended ("optimal", "stopped" by the clock, "infeasible", "failed"), its point and multipliers.

    `bound` is HiGHS's dual bound on the minimum (−∞ where it has none).
    """

    status: str
    point: np.ndarray | None
    multipliers: np.ndarray | None
    bound: float


class Solver:
    """One program under changing objectives: the simplex method goes on from the last basis."""

    def __init__(self, program: Program, threads: int = 1) -> None:
        self.program = program
        self._api: Any = require("highspy")
        let_it_introduce_itself()
        self._highs: Any = self._api.Highs()
        for name, value in {
            "output_flag": False,
            "threads": threads,
            "primal_feasibility_tolerance": _TOLERANCE,
            "dual_feasibility_tolerance": _TOLERANCE,
            "mip_feasibility_tolerance": _TOLERANCE,
            "mip_rel_gap": 0.0,
            "mip_abs_gap": _TOLERANCE,
        }.items():
            self._highs.setOptionValue(name, value)
        self._highs.passModel(self._model())

    def minimize(self, cost: np.ndarray, seconds: float = math.inf, *, stop_below: float = -math.inf) -> Solved:
        """min ⟨cost, v⟩, for at most so long; a search may stop at a point below `stop_below`."""
        h, columns = self._highs, len(cost)
        h.changeColsCost(columns, np.arange(columns, dtype=np.int32), np.asarray(cost, dtype=np.float64))
        h.setOptionValue("time_limit", h.getRunTime() + max(0.0, seconds))  # the limit counts all runs so far
        h.setOptionValue("objective_target", stop_below)
        h.run()
        status = h.getModelStatus()
        known = self._api.HighsModelStatus
        word = {
            known.kOptimal: "optimal",
            known.kTimeLimit: "stopped",
            known.kObjectiveTarget: "stopped",
            known.kInfeasible: "infeasible",
        }.get(status, "failed")
        solution, info = h.getSolution(), h.getInfo()
        point = np.array(solution.col_value) if solution.value_valid else None
        duals = np.array(solution.row_dual) if solution.dual_valid and not self.program.whole.any() else None
        return Solved(word, point, duals, self._bound(info, word))

    def _bound(self, info: Any, word: str) -> float:
        if self.program.whole.any():
            bound = float(info.mip_dual_bound) if word in ("optimal", "stopped") else -math.inf
        else:
            bound = float(info.objective_function_value) if word == "optimal" else -math.inf
        return bound if math.isfinite(bound) else -math.inf

    def _model(self) -> Any:
        p, model = self.program, self._api.HighsLp()
        rows, columns = len(p.row_lower), len(p.lower)
        model.num_col_, model.num_row_ = columns, rows
        model.col_cost_ = np.zeros(columns)
        model.col_lower_, model.col_upper_ = p.lower, p.upper
        model.row_lower_, model.row_upper_ = p.row_lower, p.row_upper
        model.a_matrix_.format_ = self._api.MatrixFormat.kRowwise
        model.a_matrix_.start_ = p.matrix.indptr.astype(np.int32)
        model.a_matrix_.index_ = p.matrix.indices.astype(np.int32)
        model.a_matrix_.value_ = p.matrix.data.astype(np.float64)
        if p.whole.any():
            kinds = self._api.HighsVarType
            model.integrality_ = [kinds.kInteger if whole else kinds.kContinuous for whole in p.whole.tolist()]
        return model


@cache
def let_it_introduce_itself() -> None:
    """The first model of a process writes two lines to file descriptor 1, the command line's."""
    highspy: Any = require("highspy")
    try:
        out = os.dup(1)
    except OSError:  # no such descriptor: nothing can be written to it
        highspy.Highs()
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        highspy.Highs()
    finally:
        os.dup2(out, 1)
        os.close(out)
        os.close(nowhere)


def safe_bound(program: Program, cost: np.ndarray, multipliers: np.ndarray) -> float:
    """A true lower bound of min ⟨cost, v⟩ over the program, from any multipliers (one per row)."""
    y = np.where(np.isfinite(multipliers), multipliers, 0.0)
    # y > 0 needs a finite lower limit, y < 0 a finite upper one
    y = np.where((y > 0) & ~np.isfinite(program.row_lower), 0.0, y)
    y = np.where((y < 0) & ~np.isfinite(program.row_upper), 0.0, y)
    limit = np.where(y > 0, program.row_lower, np.where(y < 0, program.row_upper, 0.0))
    r = cost - program.matrix.T @ y
    n = int(np.diff(program.matrix.tocsc().indptr).max(initial=0)) + 2
    off = 2 * gamma(n) * (np.abs(cost) + abs(program.matrix).T @ np.abs(y))  # ≥ |r − exact|
    corner = np.where(r > 0, program.lower, program.upper)
    terms = np.concatenate([y * limit, r * corner, -off * program.reach])
    terms = np.where(np.concatenate([y, r, off]) == 0, 0.0, terms)
    total = float(terms.sum())
    # sums of len(terms) rounded products, whatever their order; and twice that for this line's own rounding
    error = 2 * gamma(len(terms) + 4) * float(np.abs(terms).sum()) + len(terms) * np.finfo(np.float64).tiny
    bound = total - error
    return float(np.nextafter(bound, -np.inf)) if math.isfinite(bound) else -math.inf
