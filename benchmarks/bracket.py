"""The bracket of a published certified network against its published numbers.

`mnist_wk17_certified_eps0.1` (Wong & Kolter 2018, convex_adversarial README: PGD error 4.1 %, provable error ≤ 5.8 % on
10,000 images) at ℓ∞ 0.1 on the first 1,000 MNIST test images, plan `standard`, three seeds.

Must hold: certified ≥ 0.93, attacked ≤ 0.965, no CONTRADICTION. Writes benchmarks/results/bracket.json.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from saddlepoint.adapters import LoadOptions, load
from saddlepoint.data import load as load_data
from saddlepoint.evaluation import Request, Work, plan_named, run
from saddlepoint.evaluation.versions import versions
from saddlepoint.geometry import Linf
from saddlepoint.ledger import Ledger
from saddlepoint.spec import Threat, Verdict

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
OUT = ROOT / "benchmarks" / "results" / "bracket.json"
SEEDS, N = (0, 1, 2), 1000


def main() -> int:
    """Measure, write the table, and say whether the floors hold."""
    model = load(str(SHARED / "models" / "mnist_wk17_certified_eps0.1.pt"), LoadOptions(domain=(0, 1), arch="wk17"))
    data = load_data(f"{SHARED / 'mnist.npz'}:test")
    rows = []
    for seed in SEEDS:
        begun = time.perf_counter()
        request = Request(model, data, (Threat(Linf("0.1")),), plan_named("standard"), n=N, work=Work(seed=seed))
        with Ledger.temporary() as book:
            run(request, book)
            claim = book.bracket()
        rows.append(
            {
                "seed": seed,
                "seconds": round(time.perf_counter() - begun, 1),
                "certified": claim.certified,
                "attacked": claim.attacked,
                "ci95": claim.ci95,
                "clean": [claim.clean_k, claim.n, claim.clean_ci95],
                "verdicts": {verdict.value: count for verdict, count in claim.counts.items()},
                "methods": [
                    [m.name, m.rows, m.decided, round(m.seconds, 2), m.forwards, m.backwards] for m in claim.methods
                ],
            }
        )
        print(f"seed {seed}: {claim!r}  {rows[-1]['seconds']} s")
    good = all(
        row["certified"] >= 0.93 and row["attacked"] <= 0.965 and row["verdicts"][Verdict.CONTRADICTION.value] == 0
        for row in rows
    )
    table = {
        "what": f"mnist_wk17_certified_eps0.1, linf 0.1, first {N} MNIST test images, plan standard",
        "floor": {"certified": 0.93, "attacked": 0.965, "contradictions": 0},
        "published": "10,000 images: PGD error 0.041, provable error <= 0.058",
        "holds": good,
        "rows": rows,
        "methods_columns": ["name", "rows", "decided", "seconds", "forwards", "backwards"],
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(table, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
