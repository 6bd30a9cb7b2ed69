"""The exact program: every open ReLU is one whole number.

    min ⟨C, f⟩   y ≤ z − l (1 − a),  y ≤ u a,  y ≥ z,  y ≥ 0,  a ∈ {0, 1}

(Tjeng, Xiao, Tedrake, ICLR 2019, "Evaluating Robustness of Neural Networks with Mixed Integer Programming", eq. 4–10;
max pooling and other pieces in program/build.py.) Bounds l, u come from CROWN, tightened by linear programs layer by
layer where `narrow` asks for it: their "progressive bound tightening", worth it when big-M is loose.

`bound` is HiGHS's own dual bound minus its tolerances: it can be used at any moment the search is stopped, and stays a
claim, since no proof of its tree comes with it. The other side is a point: HiGHS's solution put into the set and
evaluated on the network in float64, so it is an upper bound whatever the program says.

Cost: exponential in the open neurons at worst; a second or two for some 60 of them.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.bound.base import Bounds, Proof, specification
from saddlepoint.bound.lp import Ground, narrowing
from saddlepoint.bound.program import Built, Solver
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.geometry.snap import round_down
from saddlepoint.graph.ir import Graph

SLACK = 3e-8  # relative to the objective's scale: thirty of HiGHS's tolerances of 1e-9, which reach it through big-M


@dataclass(frozen=True, eq=False)
class Exact:
    """Per row: lower (b, m) ≤ minimum ≤ value (b, m), attained at witness (b, m, *shape); `closed`: they meet.

    float64. value is +∞ and the witness NaN where no point was found.
    """

    lower: Float[Tensor, "b m"]
    value: Float[Tensor, "b m"]
    witness: Float[Tensor, "b m *shape"]
    closed: Tensor


@dataclass(frozen=True)
class MILP:
    """Big-M program. `seconds` limits a call; `stop_below`: a row ends once a point lies below it (None: never)."""

    narrow: bool = False
    enclose: bool = False
    seconds: float | None = None
    stop_below: float | None = None
    threads: int = 1

    @property
    def name(self) -> str:
        """The method's name in evidence."""
        return f"milp{'-narrow' if self.narrow else ''}{'-box' if self.enclose else ''}"

    def __call__(
        self,
        graph: Graph,
        set: PerturbationSet,
        x: Float[Tensor, "b *shape"],
        C: Float[Tensor, "b m k"] | None = None,
    ) -> Bounds:
        """lower (b, m) ≤ C f(x') on S(x), claimed: there is no proof."""
        return Bounds(round_down(self.solve(graph, set, x, C).lower, x.dtype).to(x.device), None, Proof({}))

    def solve(
        self,
        graph: Graph,
        set: PerturbationSet,
        x: Float[Tensor, "b *shape"],
        C: Float[Tensor, "b m k"] | None = None,
    ) -> Exact:
        """Both sides of every row's minimum, as far as the time allows."""
        deadline = math.inf if self.seconds is None else time.monotonic() + self.seconds
        wanted = specification(graph, x, C).double()
        ground = Ground.of(graph, set, x, enclose=self.enclose)
        b, m, _ = wanted.shape
        lower = torch.full((b, m), -torch.inf, dtype=torch.float64)
        witness = torch.full((b, m, *x.shape[1:]), torch.nan, dtype=torch.float64)
        for i in range(b):
            built = ground.program(i, exact=True, narrow=narrowing(deadline) if self.narrow else None)
            if built is None:
                continue
            bounds, points = self._rows(built, wanted[i].cpu().numpy(), deadline)
            lower[i] = torch.from_numpy(bounds)
            found = torch.from_numpy(points).view(m, *x.shape[1:])
            known = torch.isfinite(found.flatten(1)).all(1).nonzero().flatten()
            centre = x[i : i + 1].detach().cpu().double().expand(len(known), *x.shape[1:])
            mine = set.rows(torch.full((len(known),), i))
            witness[i, known] = mine.project(centre, found[known])  # limits of the program are rounded outward
        value = _evaluate(replace(ground.maps.graph), witness, wanted.cpu())
        return Exact(lower, value, witness, value - lower <= 2e-6 * (1 + value.abs()))

    def _rows(self, built: Built, rows: np.ndarray, deadline: float) -> tuple[np.ndarray, np.ndarray]:
        solver, size = Solver(built.program, self.threads), len(built.program.lower)
        entries = len(built.limits[next(iter(built.limits))][0])  # the input's columns are the first
        bounds, points = np.full(len(rows), -np.inf), np.full((len(rows), entries), np.nan)
        for j, row in enumerate(rows):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            aim = built.objective(row)
            stop = -math.inf if self.stop_below is None else self.stop_below - aim.constant
            found = solver.minimize(aim.cost, left, stop_below=stop)
            scale = 1 + abs(found.bound) + float(np.abs(aim.cost) @ built.program.reach) / max(size, 1)
            bounds[j] = found.bound + aim.constant - aim.slack - SLACK * scale  # −∞ stays −∞
            if found.point is not None:
                first = found.point[:entries]
                points[j] = np.clip(first, built.program.lower[:entries], built.program.upper[:entries])
        return bounds, points


def _evaluate(graph: Graph, witness: Tensor, wanted: Tensor) -> Tensor:
    """⟨C, f(witness)⟩ in float64, +∞ where there is no witness."""
    b, m = witness.shape[:2]
    known = torch.isfinite(witness.flatten(2)).all(2)
    with torch.no_grad():
        z = graph(torch.nan_to_num(witness).flatten(0, 1)).view(b, m, -1)
    return torch.where(known, (wanted * z).sum(2), torch.inf)
