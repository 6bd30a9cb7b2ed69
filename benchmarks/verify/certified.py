"""How many images of robust networks are decided: an attack first, CROWN, then a complete search on what is open.

    python benchmarks/verify/certified.py [--models NAME …] [--seconds 60] [--threads 2]

`mnist_wk17_certified_eps0.1` on the first 1,000 test images (MIPVerify decided 10,000: 4.38 % adversarial error), and
the two networks CNN-A-Adv of the beta-CROWN paper on the first 100, at most 60 seconds an image. A run is that of
`saddlepoint run`: every certificate was accepted by the checker, every counterexample replayed by the deployed model.
A model is a file under benchmarks/results/verify/certified/; models that have one are not run again, and a run that was
interrupted goes on where it stopped (its ledger lies beside the table, uncommitted).

Floors: 97 % decided; 0.50 and 0.40 certified. Goals: 99.5 %; 0.70 and 0.43.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "attacks"))
from reference import RESULTS, ROBUST, Reference, machine

from saddlepoint.attack import APGD, PGD, APGDTargeted
from saddlepoint.bound import CROWN
from saddlepoint.bound.complete import Complete
from saddlepoint.check.counts import clopper_pearson
from saddlepoint.data import load as load_data
from saddlepoint.evaluation import evaluate
from saddlepoint.evaluation.plan import Plan
from saddlepoint.evaluation.versions import versions
from saddlepoint.geometry import Linf
from saddlepoint.spec import Verdict

ROWS, TABLE = RESULTS / "verify" / "certified", RESULTS / "verify" / "certified.json"
ASKED = {  # images; what is counted, floor, goal
    "mnist_wk17_certified_eps0.1": (1000, "decided", 0.97, 0.995),
    "mnist_cnn_a_adv_eps0.3": (100, "certified", 0.50, 0.70),
    "cifar10_cnn_a_adv_2_255": (100, "certified", 0.40, 0.43),
}


def plan(seconds: float) -> Plan:
    stages = [PGD(steps=10, loss="margin"), CROWN(), APGD(steps=25), APGDTargeted(steps=30, count=5)]
    return Plan("certified", lambda threat: [*stages, Complete(seconds=seconds)])


def measure(reference: Reference, seconds: float) -> dict[str, Any]:
    """One model."""
    count, what, floor, goal = ASKED[reference.name]
    data = load_data(reference.data)
    began = time.perf_counter()
    ledger = ROWS / f"{reference.name}.ledger"
    with evaluate(reference.model(), data, Linf(reference.size), plan(seconds), n=count, ledger=ledger) as book:
        samples, counts = book.bracket().samples, book.bracket().counts
    certified, wrong = counts[Verdict.CERTIFIED], counts[Verdict.BROKEN] + counts[Verdict.MISCLASSIFIED]
    reached = (certified + wrong if what == "decided" else certified) / count
    return {
        "model": reference.name,
        "size": reference.size,
        "n": count,
        "verdicts": {v.name: k for v, k in counts.items() if k},
        "robust_error": [wrong / count, (count - certified) / count],
        "robust_error_ci95": [clopper_pearson(wrong, count)[0], clopper_pearson(count - certified, count)[1]],
        what: reached,
        "floor": floor,
        "goal": goal,
        "holds": reached >= floor,
        "open": [s.id for s in samples if s.verdict is Verdict.OPEN],
        "seconds": round(time.perf_counter() - began, 1),
        "seconds_each_at_most": seconds,
        "versions": versions(),
        "machine": machine(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(ASKED))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ROWS.mkdir(parents=True, exist_ok=True)
    for reference in (r for r in ROBUST if r.name in arguments.models and r.name in ASKED):
        path = ROWS / f"{reference.name}.json"
        if not path.exists():
            path.write_text(json.dumps(measure(reference, arguments.seconds), indent=1) + "\n")
    rows = [json.loads(p.read_text()) for p in sorted(ROWS.glob("*.json"))]
    holds = all(r["holds"] for r in rows)
    TABLE.write_text(json.dumps({"what": "images decided", "holds": holds, "rows": rows}, indent=1) + "\n")
    for r in rows:
        print(r["model"], r["verdicts"], r["seconds"], "s")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
