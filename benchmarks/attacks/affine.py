"""Affine models, the data box active: how close every attack comes to the closed form, in every norm it has.

    python benchmarks/attacks/affine.py

z = W x + c in float64 with 12 features in [0, 1] crowding the box's faces; five random models of four classes, six
samples each. The smallest size at which a sample breaks is the smallest ε for which some j ≠ y has

    max over S_ε of <w_j − w_y, z>  ≥  c_y − c_j,

and the set's support function is exact and increasing in ε, so bisection gives it to 1e-12 (for ℓ0: the smallest k).
Found / optimum is listed as median and worst over all samples. Floor: ≤ 1.01 for the best attack of each norm; goal
≤ 1.001. Writes benchmarks/results/attacks/affine.json.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from typing import Any

import torch
from reference import RESULTS, machine
from torch import Tensor

from saddlepoint.attack import EngineSettings, Rows, run
from saddlepoint.attack.protocol import Attack
from saddlepoint.core.errors import NotAvailable
from saddlepoint.evaluation.plan import METHODS
from saddlepoint.evaluation.versions import versions
from saddlepoint.geometry import L0, L1, L2, Box, Linf, PerturbationSet
from saddlepoint.spec import Access, Model

CLASSES, FEATURES, SAMPLES, SEEDS = 4, 12, 6, range(5)
SHORTER = {"cw": {"steps": 200}, "ead": {"steps": 200}, "lbfgs": {"constants": 6}}  # each constant is a search
NORMS: dict[str, PerturbationSet] = {"linf": Linf(1), "l2": L2(1), "l1": L1(1), "l0": L0(1)}


@dataclass(frozen=True)
class Affine:
    """W, c, inputs that the model itself labels."""

    weight: Tensor
    constant: Tensor
    x: Tensor
    y: Tensor

    def model(self) -> Model:
        weight, constant = self.weight, self.constant
        return Model(lambda v: v @ weight.T + constant, Box(0, 1), CLASSES, Access.GRADIENT, "affine", (FEATURES,))


def affine(seed: int) -> Affine:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(CLASSES, FEATURES, generator=generator, dtype=torch.float64)
    constant = torch.randn(CLASSES, generator=generator, dtype=torch.float64)
    x = (torch.rand(SAMPLES, FEATURES, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)
    return Affine(weight, constant, x, (x @ weight.T + constant).argmax(1))


def optimum(case: Affine, kind: PerturbationSet) -> Tensor:
    """(n,) smallest size that breaks, by bisection on the exact support function; whole numbers for l0."""
    rows = case.weight[None] - case.weight[case.y][:, None]
    lacking = case.constant[case.y][:, None] - case.constant[None]
    other = torch.ones(SAMPLES, CLASSES, dtype=torch.bool).scatter(1, case.y[:, None], False)

    def breaks(size: Tensor) -> Tensor:
        best = kind.within(Box(0, 1)).resized(size).support(case.x, rows)
        return ((best >= lacking) & other).any(1)

    low, high = torch.zeros(SAMPLES, dtype=torch.float64), torch.full((SAMPLES,), float(FEATURES), dtype=torch.float64)
    if isinstance(kind, L0):
        sizes = torch.stack([breaks(torch.full_like(low, k)) for k in range(FEATURES + 1)])
        return sizes.to(torch.int64).argmax(0).double()
    for _ in range(60):
        middle = (low + high) / 2
        hit = breaks(middle)
        low, high = torch.where(hit, low, middle), torch.where(hit, middle, high)
    return high


def ratios(attack: Attack[Any], kind: PerturbationSet) -> list[float]:
    """Found / optimum per sample; inf where nothing was found."""
    found = []
    for seed in SEEDS:
        case = affine(seed)
        best = optimum(case, kind)
        ids = tuple(f"{seed}-{i}" for i in range(SAMPLES))
        outcome = run(case.model(), attack, Rows(case.x, case.y, ids, kind), EngineSettings(smallest=True, seed=seed))
        reachable = breakable(case, kind)
        found += (outcome.size / best)[reachable].tolist()
    return found


def breakable(case: Affine, kind: PerturbationSet) -> Tensor:
    """Samples that some point of the box breaks."""
    return optimum(case, kind) < FEATURES


def main() -> int:
    rows = []
    for name, kind in NORMS.items():
        for method, attack in ((m, a) for m, a in METHODS.items() if getattr(a, "minimum", False)):
            try:
                values = ratios(attack(**SHORTER.get(method, {})), kind)
            except NotAvailable:
                continue
            rows.append({"norm": name, "attack": method, "samples": len(values), **spread(values)})
            print(json.dumps(rows[-1]))
    best = {n: min(r["worst"] for r in rows if r["norm"] == n) for n in NORMS}
    result = {
        "what": "found / optimum on affine models with the data box active",
        "floor": 1.01,
        "goal": 1.001,
        "best_worst_case": best,
        "holds": all(value <= 1.01 for value in best.values()),
        "rows": rows,
        "versions": versions(),
        "machine": machine(),
    }
    (RESULTS / "attacks").mkdir(parents=True, exist_ok=True)
    (RESULTS / "attacks" / "affine.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["holds"] else 1


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 6), "worst": round(max(values), 6)}


if __name__ == "__main__":
    sys.exit(main())
