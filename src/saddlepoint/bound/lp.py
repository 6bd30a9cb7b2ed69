"""The linear relaxation, solved: the best bound that one triangle per neuron can give.

    min ⟨C, f⟩ over { linear nodes exact, every open ReLU in the triangle  y ≥ 0, y ≥ z, y ≤ u (z − l) / (u − l) }

(Ehlers 2017, "Formal Verification of Piece-Wise Linear Feed-Forward Neural Networks"; Wong and Kolter 2018, eq. 6;
Salman et al. 2019 show that no choice of lines in CROWN gets past it with the same l and u.) Bounds l, u come from
CROWN in float64, widened by 1e-9; `narrow` solves two more programs per open neuron to tighten them, layer by layer.

The bound is not HiGHS's word: its multipliers are put into the dual in float64 with all rounding taken off
(program/highs.py), so any multipliers give a true bound for the bounds l, u at hand. Both go into the proof:

    "dual" float64 (b, m, R)         multipliers of the rows, in the order of program/build.py, padded with 0
    "low/NODE", "high/NODE" float64  l and u of what the nonlinear node NODE reads

Sets: boxes exactly, ℓ1 balls exactly (rows for |x − x₀|); others are refused, or replaced by their enclosing box with
`enclose`. Cost: one CROWN pass, then one linear program per row of C, warm from the one before.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.bound.backward import Region as Batch
from saddlepoint.bound.backward import Walker
from saddlepoint.bound.base import Bounds, Proof, specification
from saddlepoint.bound.enclose import Encloser
from saddlepoint.bound.interval import region_of
from saddlepoint.bound.program import Built, Maps, Program, Solver, build, safe_bound
from saddlepoint.bound.program.build import Limits, Narrow, Region
from saddlepoint.bound.program.maps import Expression
from saddlepoint.core.errors import NotAvailable
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.geometry.interval import IntervalSet
from saddlepoint.geometry.l1 import L1
from saddlepoint.geometry.sizes import above
from saddlepoint.geometry.snap import round_down
from saddlepoint.graph.ir import Graph
from saddlepoint.graph.ops import LinearOp

WIDER = 1e-9  # relative and absolute: what float64 rounding of a CROWN pass may amount to, generously


@dataclass(frozen=True)
class LP:
    """Triangle relaxation. `seconds` limits a call (rows not reached are −∞); `enclose` allows an enclosing box."""

    narrow: bool = False
    enclose: bool = False
    seconds: float | None = None

    @property
    def name(self) -> str:
        """The method's name in evidence."""
        return f"lp{'-narrow' if self.narrow else ''}{'-box' if self.enclose else ''}"

    def __call__(
        self,
        graph: Graph,
        set: PerturbationSet,
        x: Float[Tensor, "b *shape"],
        C: Float[Tensor, "b m k"] | None = None,
    ) -> Bounds:
        """lower (b, m) ≤ C f(x') on S(x), and the multipliers that show it."""
        deadline = math.inf if self.seconds is None else time.monotonic() + self.seconds
        wanted = specification(graph, x, C).double()
        ground = Ground.of(graph, set, x, enclose=self.enclose)
        lower = torch.full(wanted.shape[:2], -torch.inf, dtype=torch.float64)
        proofs: list[tuple[np.ndarray, Limits]] = []
        for i in range(len(x)):
            narrow = narrowing(deadline) if self.narrow else None
            built = ground.program(i, exact=False, narrow=narrow)
            if built is None:  # bounds that are not finite bound nothing
                proofs.append((np.zeros((wanted.shape[1], 0)), ground.limits[i]))
                continue
            bounds, duals = _solve(built, wanted[i].cpu().numpy(), deadline)
            lower[i] = torch.from_numpy(bounds)
            proofs.append((duals, built.limits))
        return Bounds(round_down(lower, x.dtype).to(x.device), None, _proof(proofs, ground))


def _solve(built: Built, rows: np.ndarray, deadline: float) -> tuple[np.ndarray, np.ndarray]:
    """Safe bounds (m,) and multipliers (m, R) of each row of C."""
    solver = Solver(built.program)
    bounds, duals = np.full(len(rows), -np.inf), np.zeros((len(rows), len(built.program.row_lower)))
    for j, row in enumerate(rows):
        if time.monotonic() >= deadline:
            break
        aim = built.objective(row)
        found = solver.minimize(aim.cost, deadline - time.monotonic())
        if found.multipliers is not None:
            duals[j] = found.multipliers
        # zero multipliers are a (weak) proof too
        bounds[j] = math.nextafter(safe_bound(built.program, aim.cost, duals[j]) + aim.constant - aim.slack, -math.inf)
    return bounds, duals


@dataclass(frozen=True, eq=False)
class Ground:
    """A graph in float64 with its matrices, the regions of a batch, and bounds of every value per sample."""

    maps: Maps
    regions: list[Region]
    limits: list[Limits]

    @staticmethod
    def of(graph: Graph, set: PerturbationSet, x: Tensor, *, enclose: bool) -> Ground:
        """Bounds by CROWN in float64 on the CPU, widened. Raises NotAvailable for sets that are no program."""
        exact = graph.to(torch.device("cpu")).to(torch.float64)
        points = x.detach().cpu().double()
        batch = region_of(set, points)
        with torch.no_grad():
            values, _, _ = Encloser(Walker(exact)).enclose(batch, refine=True)
        limits = [{name: _widened(low[i], high[i]) for name, (low, high) in values.items()} for i in range(len(points))]
        regions = [_region(set, batch, i, enclose) for i in range(len(points))]
        return Ground(Maps(exact), regions, limits)

    def program(self, i: int, *, exact: bool, narrow: Narrow | None = None) -> Built | None:
        """The program of sample i; None where a bound is not finite."""
        limits = self.limits[i]
        if not all(np.isfinite(low).all() and np.isfinite(high).all() for low, high in limits.values()):
            return None
        return build(self.maps, self.regions[i], limits, exact=exact, narrow=narrow)


def _region(set: PerturbationSet, batch: Batch, i: int, enclose: bool) -> Region:
    lower, upper = (t[i].reshape(-1).numpy() for t in (batch.lower, batch.upper))
    if isinstance(set, IntervalSet) or enclose:
        return Region(lower, upper)
    if isinstance(set, L1):
        radius = float(above(set.rows(torch.tensor([i])).size, batch.x[i : i + 1]).reshape(-1)[0])
        return Region(lower, upper, batch.x[i].reshape(-1).numpy(), radius)
    raise NotAvailable(
        f"{type(set).__name__} is no linear program.", "Use a box, Linf or L1; enclose=True takes the enclosing box."
    )


def _widened(low: Tensor, high: Tensor) -> tuple[np.ndarray, np.ndarray]:
    a, b = (t.reshape(-1).numpy() for t in (low, high))
    return a - WIDER * (1 + np.abs(a)), b + WIDER * (1 + np.abs(b))


def narrowing(deadline: float) -> Narrow:
    """Tightens the bounds of open entries by two programs each, as long as there is time."""

    def narrow(
        program: Program, expression: Expression, entries: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        low, high, solver = low.copy(), high.copy(), Solver(program)
        wide = expression.wide(len(program.lower))
        slack = wide.slack(program.reach)
        for i in entries.tolist():
            for sign in (1.0, -1.0):
                if time.monotonic() >= deadline:
                    return low, high
                cost = sign * wide.matrix[i].toarray()[0]
                found = solver.minimize(cost, deadline - time.monotonic())
                if found.multipliers is None:
                    continue
                # the safe bound of the relaxation built so far; a rounding more for the constant
                bound = safe_bound(program, cost, found.multipliers) + sign * float(wide.constant[i]) - slack[i]
                bound -= 2.0**-50 * (abs(bound) + abs(float(wide.constant[i])))
                if sign > 0:
                    low[i] = min(max(low[i], bound), high[i])
                else:
                    high[i] = max(min(high[i], -bound), low[i])
        return low, high

    return narrow


def _proof(proofs: list[tuple[np.ndarray, Limits]], ground: Ground) -> Proof:
    most = max((duals.shape[1] for duals, _ in proofs), default=0)
    padded = [np.pad(duals, ((0, 0), (0, most - duals.shape[1]))) for duals, _ in proofs]
    tensors = {"dual": torch.from_numpy(np.stack(padded))} if padded else {}
    for node in ground.maps.graph.nodes:
        if isinstance(node.op, LinearOp) or not proofs:
            continue
        for k, side in enumerate(("low", "high")):
            tensors[f"{side}/{node.name}"] = torch.from_numpy(np.stack([b[node.inputs[0]][k] for _, b in proofs]))
    return Proof(tensors)
