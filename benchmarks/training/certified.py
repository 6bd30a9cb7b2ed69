"""Certified training on MNIST: what `saddlepoint train` reaches with the certified objectives.

    python benchmarks/training/certified.py [--only 0.1 0.3] [--objective ibp] [--more=--rate=2e-3] [--seed 0 1 2]

    0.1     ℓ∞ 0.1, wk17, all training images: certified accuracy ≥ 0.955 (goal 0.97)
    0.3     ℓ∞ 0.3, wk17, all training images: certified accuracy ≥ 0.86 (goal 0.90)

The command itself is run, its own bracket left out; what differs from its defaults is in the row's name and command.
Certified accuracy counts the verdicts CERTIFIED of the plan `standard` followed by a complete search of 20 seconds an
image (proofs that were checked), on all test images, or on the first of them where a row's name says so, with a
Clopper–Pearson interval; `bounded` is the part that bounds alone certified, and what no attack broke stands beside it.
A floor holds where any objective's row reaches it.
Rows are files under benchmarks/results/training/certified/ (weights in its runs/); a row that exists is not made again,
a training that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from objectives import RESULTS, SHARED, counted, machine, mnist, versions

import saddlepoint as sp
from saddlepoint.adapters import load as load_model
from saddlepoint.bound.complete import Complete
from saddlepoint.cli.main import run_app
from saddlepoint.evaluation import evaluate
from saddlepoint.evaluation.named_plans import standard
from saddlepoint.evaluation.plan import Plan
from saddlepoint.spec import Verdict

ROWS = RESULTS / "training" / "certified"
UNIT = sp.Box(0.0, 1.0)
PLAN = Plan("standard, then search", lambda threat: [*standard(threat), Complete(seconds=20.0)])
ALL = 10_000  # test images
FLOORS, GOALS = {"0.1": 0.955, "0.3": 0.86}, {"0.1": 0.97, "0.3": 0.90}


def command(size: str, seed: int, output: Path, arguments: argparse.Namespace) -> list[str]:
    """What somebody would type."""
    words = ["train", f"{SHARED / 'mnist.npz'}:train", "--arch", arguments.arch, "--objective", arguments.objective]
    words += ["--threat", f"linf:{size}", "--seed", str(seed), "-o", str(output), "--no-bracket", *arguments.more]
    words += [] if arguments.n is None else ["--n", str(arguments.n)]
    return words if arguments.epochs is None else [*words, "--epochs", str(arguments.epochs)]


def made(size: str, seed: int, output: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row: the training, timed, and both ends of the bracket. No seconds where a training was gone on with."""
    fresh_run = not any(output.parent.glob(f"{output.name}*"))
    words = command(size, seed, output, arguments)
    began = time.perf_counter()
    code = run_app(words)
    seconds = time.perf_counter() - began
    if code != 0:
        raise SystemExit(f"saddlepoint {' '.join(words)} ended with {code}")
    with evaluate(load_model(str(output)), mnist("test", arguments.images), sp.Linf(size, box=UNIT), PLAN) as book:
        samples = book.bracket().samples
    verdicts = [s.verdict for s in samples]
    bounded = [s.verdict is Verdict.CERTIFIED and Complete.name not in s.by for s in samples]

    def share(*wanted: Verdict) -> dict[str, Any]:
        return counted(torch.tensor([v in wanted for v in verdicts]))

    certified = share(Verdict.CERTIFIED)
    return {
        "size": size,
        "objective": arguments.objective,
        "seed": seed,
        "command": " ".join(["saddlepoint", *(Path(w).name if Path(w).is_absolute() else w for w in words)]),
        "certified": certified,
        "bounded": counted(torch.tensor(bounded)),
        "unbroken": share(Verdict.CERTIFIED, Verdict.OPEN),
        "clean": share(Verdict.CERTIFIED, Verdict.OPEN, Verdict.BROKEN),
        "seconds": round(seconds, 1) if fresh_run else None,
        "holds": certified["share"] >= FLOORS[size],
        "goal": certified["share"] >= GOALS[size],
        "threads": arguments.threads,
        "versions": versions(),
        "machine": machine(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(FLOORS), choices=list(FLOORS), help="sizes")
    parser.add_argument("--objective", default="ibp", help="ibp, crown-ibp, sabr, mtl-ibp, wong-kolter, with options")
    parser.add_argument("--arch", default="wk17")
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="for trials only: the rows are made with the default")
    parser.add_argument("--n", type=int, help="training images, for trials only")
    parser.add_argument("--more", nargs="*", default=[], help="further words of the command, part of the row's name")
    parser.add_argument("--images", type=int, default=ALL, help="test images")
    parser.add_argument("--rows", type=Path, default=ROWS, help="another folder for trials")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.rows == ROWS and (arguments.epochs or arguments.n):
        parser.error("--epochs and --n are for trials: give them another folder with --rows")
    torch.set_num_threads(arguments.threads)
    (arguments.rows / "runs").mkdir(parents=True, exist_ok=True)
    for size in arguments.only:
        for seed in arguments.seed:
            told = [arguments.objective.replace(":", "-"), *(word.lstrip("-") for word in arguments.more)]
            part = [] if arguments.images == ALL else [f"first-{arguments.images}"]
            name = "--".join([*told, arguments.arch, size, f"seed{seed}", *part])
            path = arguments.rows / f"{name}.json"
            if not path.exists():
                row = made(size, seed, arguments.rows / "runs" / f"{name}.safetensors", arguments)
                path.write_text(json.dumps(row, indent=1) + "\n")
            found = json.loads(path.read_text())
            print(name, "certified", found["certified"], "clean", found["clean"]["share"], found["seconds"], flush=True)
    rows = [json.loads(path.read_text()) for path in sorted(arguments.rows.glob("*.json"))]
    reached = {size: any(row["holds"] for row in rows if row["size"] == size) for size in arguments.only}
    print("floors reached:", reached)
    return 0 if all(reached.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
