"""Peak memory of a run against the number of samples: it must not grow from 1,000 to 10,000.

Each size runs in a process of its own (MNIST test images, `mnist_mlp_300_100_standard`, ℓ∞ 0.1, plan quick); the
figure is the operating system's peak resident set (ru_maxrss). Writes benchmarks/results/memory.json.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from saddlepoint.adapters import LoadOptions, load
from saddlepoint.data import load as load_data
from saddlepoint.evaluation import Request, plan_named, run
from saddlepoint.evaluation.versions import versions
from saddlepoint.geometry import Linf
from saddlepoint.ledger import Ledger
from saddlepoint.spec import Threat

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
OUT = ROOT / "benchmarks" / "results" / "memory.json"
SIZES, ROUNDS, FLAT = (1000, 10_000), 3, 1.10


def one(n: int) -> None:
    """One run, and its peak in MiB on standard output."""
    options = LoadOptions(domain=(0, 1), arch="mlp-300-100")
    model = load(str(SHARED / "models" / "mnist_mlp_300_100_standard.pt"), options)
    data = load_data(f"{SHARED / 'mnist.npz'}:test")
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "a.ledger") as book:
        run(Request(model, data, (Threat(Linf("0.1")),), plan_named("quick"), n=n), book)
        claim = book.bracket()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    print(json.dumps({"n": n, "peak_mib": peak, "seconds": time.perf_counter() - begun, "claim": repr(claim)}))


def main() -> int:
    """Alternate the sizes, write the table, and say whether the peak is flat."""
    rows = []
    for _ in range(ROUNDS):
        for n in SIZES:
            answer = subprocess.run([sys.executable, __file__, str(n)], check=True, capture_output=True, text=True)
            rows.append(json.loads(answer.stdout.splitlines()[-1]))
            print(rows[-1])
    median = {n: sorted(row["peak_mib"] for row in rows if row["n"] == n)[ROUNDS // 2] for n in SIZES}
    ratio = median[SIZES[1]] / median[SIZES[0]]
    table = {
        "what": "peak resident set of one run, MiB; mnist_mlp_300_100_standard, linf 0.1, plan quick",
        "floor": f"median at {SIZES[1]} <= {FLAT} x median at {SIZES[0]}",
        "median_peak_mib": {str(n): round(value, 1) for n, value in median.items()},
        "ratio": round(ratio, 4),
        "holds": ratio <= FLAT,
        "rows": rows,
        "threads": torch.get_num_threads(),
        "seed": 0,
        "versions": versions(),
    }
    OUT.write_text(json.dumps(table, indent=1) + "\n")
    return 0 if table["holds"] else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one(int(sys.argv[1]))
    else:
        sys.exit(main())
