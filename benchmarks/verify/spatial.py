"""Rotation and translation over the whole box of parameters: certified, broken, open, on worst-of-10 networks.

    python benchmarks/verify/spatial.py [--rows NAME …] [--images N] [--threads 1]

cnn-s trained with worst-of-10 random points: on digits (the first 1,400, 30 epochs, ±15 degrees and ±0.5 pixels) and on
the first 10,000 images of MNIST (5 epochs, ±30 degrees and ±1 pixel; needs ../shared/data). Per image a few random
points, then a complete search of at most `seconds`; every certificate was accepted by the checker, every counterexample
replayed by the deployed model. A row is a file's entry; rows that exist are not measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "attacks"))
from reference import RESULTS, SHARED, machine

from saddlepoint.adapters import from_torch
from saddlepoint.adapters.architectures import build
from saddlepoint.attack import RandomSearch
from saddlepoint.bound.complete import Complete
from saddlepoint.check.counts import clopper_pearson
from saddlepoint.data import Data, from_arrays
from saddlepoint.data import load as load_data
from saddlepoint.evaluation import evaluate
from saddlepoint.evaluation.plan import Plan
from saddlepoint.evaluation.versions import versions
from saddlepoint.geometry import Box, RotationTranslation
from saddlepoint.spec import Model, Verdict
from saddlepoint.training import Trainer, WorstOfK, fresh, train

MNIST = SHARED / "mnist.npz"
TABLE = RESULTS / "verify" / "spatial.json"
ASKED = {  # data, rotation in degrees, shift in pixels, images, seconds for each
    "digits-5-0.5": ("digits", "5", "1/2", 100, 10.0),
    "digits-10-0.5": ("digits", "10", "1/2", 100, 10.0),
    "mnist-5-0.5": ("mnist", "5", "1/2", 50, 10.0),
    "digits-15-0.5": ("digits", "15", "1/2", 100, 10.0),
    "mnist-10-0.5": ("mnist", "10", "1/2", 50, 10.0),
}


def part(data: Data, first: int, count: int) -> Data:
    """Some consecutive samples."""
    batch = data.take(range(first, first + count))
    return from_arrays(batch.x.numpy(), batch.y.numpy(), classes=10)


@cache
def trained(name: str) -> Model:
    """The network of a data set."""
    digits = name == "digits"
    data = part(load_data("digits"), 0, 1400) if digits else part(load_data(f"{SHARED / 'mnist.npz'}:train"), 0, 10_000)
    shape = (1, 8, 8) if digits else (1, 28, 28)
    turn = RotationTranslation(15, "1/2", Box(0, 1)) if digits else RotationTranslation(30, 1, Box(0, 1))
    start = fresh(build("cnn-s", shape), 0)
    net = train(start, data, WorstOfK(turn, 10), Trainer(epochs=30 if digits else 5, seed=0)).net
    return from_torch(net.eval().requires_grad_(False), (0, 1), shape=shape)


def measure(row: str, images: int | None) -> dict[str, Any]:
    """One data set and size."""
    name, rotation, shift, count, seconds = ASKED[row]
    count = images or count
    model = trained(name)
    digits = name == "digits"
    data = (
        part(load_data("digits"), 1400, count) if digits else part(load_data(f"{SHARED / 'mnist.npz'}:test"), 0, count)
    )
    plan = Plan("spatial", lambda threat: [RandomSearch(tries=50), Complete(seconds=seconds)])
    began = time.perf_counter()
    with evaluate(model, data, RotationTranslation(rotation, shift), plan) as book:
        counts, samples = book.bracket().counts, book.bracket().samples
    certified, wrong = counts[Verdict.CERTIFIED], counts[Verdict.BROKEN] + counts[Verdict.MISCLASSIFIED]
    searched = [s.seconds for s in samples if s.verdict is Verdict.CERTIFIED]
    return {
        "row": row,
        "rotation": rotation,
        "shift": shift,
        "n": count,
        "verdicts": {v.name: k for v, k in counts.items() if k},
        "robust_accuracy": [certified / count, 1 - wrong / count],
        "ci95": [clopper_pearson(certified, count)[0], clopper_pearson(count - wrong, count)[1]],
        "decided": (certified + wrong) / count,
        "median_seconds_of_certified": round(statistics.median(searched), 2) if searched else None,
        "seconds": round(time.perf_counter() - began, 1),
        "seconds_each_at_most": seconds,
        "versions": versions(),
        "machine": machine(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(ASKED))
    parser.add_argument("--images", type=int, default=None)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = json.loads(TABLE.read_text())["rows"] if TABLE.exists() else []
    for row in (r for r in ASKED if r in arguments.rows and r not in {known["row"] for known in rows}):
        rows.append(measure(row, arguments.images))
        what = "images certified over the whole box of rotations and translations"
        TABLE.write_text(json.dumps({"what": what, "rows": rows}, indent=1) + "\n")
        print(row, rows[-1]["verdicts"], rows[-1]["seconds"], "s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
