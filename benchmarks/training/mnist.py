"""What `saddlepoint train` reaches on MNIST with default settings.

    python benchmarks/training/mnist.py [--only small lenet5] [--seed 0 1 2] [--threads 2]

    small      ℓ∞ 0.2, cnn-s, 10,000 images: robust accuracy ≥ 0.76, clean ≥ 0.94, training ≤ 240 s (goals 0.80, 90 s)
    lenet5     ℓ∞ 0.3, lenet5, all images, one seed: robust accuracy ≥ 0.86 (goal 0.90)
    lenet5-10k the same on 10,000 images, three seeds
    lenet5-10k-trades    and with `--objective trades`, where the others have pgd

The command itself is run, nothing tuned; its own bracket is left out. Robust accuracy is what the attacks of the plan
`strong` leave unbroken of the first 1,000 test images. Rows are files under benchmarks/results/training/mnist/ (weights
in its runs/); a row that exists is not made again, a training that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from objectives import ATTACKS, RESULTS, SHARED, counted, machine, mnist, versions

import saddlepoint as sp
from saddlepoint.adapters import load as load_model
from saddlepoint.cli.main import run_app
from saddlepoint.evaluation import evaluate
from saddlepoint.spec import Verdict

ROWS = RESULTS / "training" / "mnist"
UNIT = sp.Box(0.0, 1.0)


@dataclass(frozen=True)
class Row:
    """One line of the table: what is trained, at which seeds, and what must hold."""

    arch: str
    size: str
    n: int | None
    seeds: tuple[int, ...]
    robust: float
    clean: float = 0.0
    seconds: float = float("inf")
    objective: str = "pgd"


TABLE = {
    "small": Row("cnn-s", "0.2", 10_000, (0, 1, 2), 0.76, 0.94, 240),
    "lenet5": Row("lenet5", "0.3", None, (0,), 0.86),
    "lenet5-10k": Row("lenet5", "0.3", 10_000, (0, 1, 2), 0.86),
    "lenet5-10k-trades": Row("lenet5", "0.3", 10_000, (0, 1, 2), 0.86, objective="trades"),
}


def command(row: Row, seed: int, output: Path, epochs: int | None) -> list[str]:
    """What somebody would type."""
    words = ["train", f"{SHARED / 'mnist.npz'}:train", "--arch", row.arch, "--objective", row.objective]
    words += ["--threat", f"linf:{row.size}", "--seed", str(seed), "-o", str(output), "--no-bracket"]
    words += [] if row.n is None else ["--n", str(row.n)]
    return words if epochs is None else [*words, "--epochs", str(epochs)]


def made(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row: the training, timed, and what the plan leaves. Seconds are None where a training was gone on with."""
    row, output = TABLE[name], arguments.rows / "runs" / f"{name}--seed{seed}.safetensors"
    output.parent.mkdir(exist_ok=True)
    fresh_run = not any(output.parent.glob(f"{output.name}*"))
    words = command(row, seed, output, arguments.epochs)
    began = time.perf_counter()
    code = run_app(words)
    seconds = time.perf_counter() - began
    if code != 0:
        raise SystemExit(f"saddlepoint {' '.join(words)} ended with {code}")
    model, data = load_model(str(output)), mnist("test", arguments.images)
    ball = sp.Linf(row.size, box=UNIT)
    with evaluate(model, data, ball, ATTACKS) as book:
        verdicts = [s.verdict for s in book.bracket().samples]
    robust = torch.tensor([v in (Verdict.CERTIFIED, Verdict.OPEN) for v in verdicts])
    clean = torch.tensor([v != Verdict.MISCLASSIFIED for v in verdicts])
    kept = {"robust": counted(robust), "clean": counted(clean), "seconds": round(seconds, 1) if fresh_run else None}
    holds = {
        "robust": kept["robust"]["share"] >= row.robust,
        "clean": kept["clean"]["share"] >= row.clean,
        "seconds": None if kept["seconds"] is None else kept["seconds"] <= row.seconds,
    }
    return {
        "row": name,
        "seed": seed,
        "command": " ".join(["saddlepoint", *(Path(w).name if Path(w).is_absolute() else w for w in words)]),
        **kept,
        "holds": holds,
        "threads": arguments.threads,
        "versions": versions(),
        "machine": machine(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(TABLE), choices=list(TABLE))
    parser.add_argument("--seed", nargs="+", type=int, help="default: those of the row")
    parser.add_argument("--epochs", type=int, help="for trials only: the rows are made with the default")
    parser.add_argument("--images", type=int, default=1000, help="test images")
    parser.add_argument("--rows", type=Path, default=ROWS, help="another folder for trials")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.epochs is not None and arguments.rows == ROWS:
        parser.error("--epochs is for trials: give them another folder with --rows")
    torch.set_num_threads(arguments.threads)
    arguments.rows.mkdir(parents=True, exist_ok=True)
    holds = True
    for name in arguments.only:
        for seed in arguments.seed or TABLE[name].seeds:
            path = arguments.rows / f"{name}--seed{seed}.json"
            if not path.exists():
                path.write_text(json.dumps(made(name, seed, arguments), indent=1) + "\n")
            found = json.loads(path.read_text())
            holds &= all(value is not False for value in found["holds"].values())
            print(name, seed, "robust", found["robust"], "clean", found["clean"]["share"], found["seconds"], flush=True)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
