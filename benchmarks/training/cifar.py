"""Robust accuracy against training time on CIFAR-10: standard training, PGD, N-FGSM, TRADES, Free.

    python benchmarks/training/cifar.py [--method NAME …] [--seed S …] [--minutes 20] [--threads 1] [--table]

resnet8 on the first 10,000 training images, ℓ∞ 8/255, no augmentation; SGD with momentum, batches of 128, weight decay
5e-4, the cyclic rate. A method is given as many whole epochs as fit into `--minutes` of processor time (one epoch is
timed first, on a copy; processor time, since it does not depend on what else runs), so every schedule ends. About every
tenth of that time 200 test images are attacked with PGD-20 on the margin, a point of the curve; at the end 500 test
images by the attacks of `strong`, with a Clopper–Pearson interval. Time spent on evaluating does not count.

A row (method, seed) is a file under benchmarks/results/training/cifar/; rows that exist are not made again. The table
and the figure (docs/figures/cifar_training.svg) are made from the rows at the end, or alone by `--table`; the table
says which rows are complete, which had less than the 20 minutes, and which methods have none.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from objectives import ATTACKS, RESULTS, SHARED, counted, machine, stands, versions
from torch import nn

import saddlepoint as sp
from saddlepoint.adapters.architectures import build
from saddlepoint.attack import PGD
from saddlepoint.data import Data, from_arrays, load
from saddlepoint.evaluation.plan import Plan
from saddlepoint.training import NFGSM, TRADES, Adversarial, Free, Objective, Standard, Trainer, epochs, fresh

ROWS, TABLE = RESULTS / "training" / "cifar", RESULTS / "training" / "cifar.json"
FIGURE = Path(__file__).resolve().parents[2] / "docs" / "figures" / "cifar_training.svg"
BALL = sp.Linf("8/255", box=sp.Box(0.0, 1.0))
METHODS: dict[str, Objective] = {
    "standard": Standard(),
    "pgd": Adversarial(BALL),
    "n-fgsm": NFGSM(BALL),
    "trades": TRADES(BALL),
    "free": Free(BALL),
}
QUICK = Plan("pgd-20", lambda threat: [PGD(steps=20, loss="margin")])
POINTS, MINUTES = 10, 20.0


def cifar(part: str, count: int) -> Data:
    batch = load(str(SHARED / "cifar10" / f"cifar10_{part}.npz")).take(range(count))
    return from_arrays(batch.x.numpy(), batch.y.numpy())


def clean(net: nn.Module, data: Data) -> dict[str, Any]:
    batch = data.take(range(len(data)))
    with torch.no_grad():
        return counted(torch.cat([net(x) for x in batch.x.split(100)]).argmax(1) == batch.y)


def point(net: nn.Module, data: Data, epoch: int, seconds: float) -> dict[str, Any]:
    """One point of a curve."""
    seen = copy.deepcopy(net).eval()
    robust = counted(stands(seen, data, BALL, QUICK))
    return {"epoch": epoch, "seconds": round(seconds, 1), "clean": clean(seen, data), "robust": robust}


def measured(method: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row: a training and its curve."""
    objective, data = METHODS[method], cifar("train_1", arguments.samples)
    few, many = cifar("test", 200), cifar("test", arguments.images)
    net = fresh(build("resnet8"), seed)
    trainer = Trainer(
        epochs=1, batch=128, rate=0.1, optimiser="sgd", weight_decay=5e-4, schedule="cyclic", warm_up=0, seed=seed
    )
    began = time.process_time()
    list(epochs(copy.deepcopy(net), data, objective, trainer, guards=None))
    one, limit = time.process_time() - began, 60.0 * arguments.minutes
    trainer = replace(trainer, epochs=max(1, int(limit / one)))
    curve, spent, wall = [], 0.0, 0.0
    run = iter(epochs(net, data, objective, trainer, guards=None))
    for number in range(1, trainer.epochs + 1):
        began, watch = time.process_time(), time.perf_counter()
        next(run)
        spent, wall = spent + time.process_time() - began, wall + time.perf_counter() - watch
        if number == trainer.epochs or number * POINTS // trainer.epochs > (number - 1) * POINTS // trainer.epochs:
            curve.append(point(net, few, number, spent))
            print(method, seed, curve[-1]["epoch"], curve[-1]["robust"]["share"], f"{spent:.0f} s", flush=True)
    for _ in run:  # the loop ends its own work after the last epoch
        pass
    net.eval()
    return {
        "method": method,
        "seed": seed,
        "settings": repr(objective),
        "trainer": repr(trainer),
        "samples": arguments.samples,
        "curve": curve,
        "clean": clean(net, many),
        "robust": counted(stands(net, many, BALL, ATTACKS)),
        "seconds": {"epoch": round(spent / trainer.epochs, 2), "processor": round(spent, 1), "wall": round(wall, 1)},
        "threads": arguments.threads,
        "versions": versions(),
        "machine": machine(),
    }


def table() -> None:
    """All rows as one file, and the figure."""
    rows = [json.loads(p.read_text()) for p in sorted(ROWS.glob("*.json"))]
    lines = [{k: r[k] for k in ("method", "seed", "clean", "robust", "seconds", "curve")} for r in rows]
    long = {r["method"]: r["seconds"]["processor"] >= 0.9 * 60 * MINUTES for r in lines}  # whole epochs fill no budget
    facts = {
        "what": "CIFAR-10 10k, l-inf 8/255, resnet8",
        "minutes": MINUTES,
        "complete": [m for m in METHODS if long.get(m)],
        "shortened": [m for m in METHODS if long.get(m) is False],
        "missing": [m for m in METHODS if m not in long],
        "rows": lines,
    }
    TABLE.write_text(json.dumps(facts, indent=1) + "\n")
    for r in lines:
        print(r["method"], r["seed"], "clean", r["clean"]["share"], "robust", r["robust"], r["seconds"])
    if lines:
        drawn(lines)


def drawn(lines: list[dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "saddlepoint"  # the same rows give the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    colours = dict(zip(METHODS, ("#888888", "#0072b2", "#d55e00", "#009e73", "#cc79a7"), strict=True))
    for r in lines:
        minutes = [p["seconds"] / 60 for p in r["curve"]]
        axes.plot(minutes, [p["robust"]["share"] for p in r["curve"]], "o-", ms=3, color=colours[r["method"]])
        low, high = r["robust"]["ci95"]
        share, end = r["robust"]["share"], r["seconds"]["processor"] / 60
        bars = [[share - low], [high - share]]
        aside = end + 0.4 * (1 + list(METHODS).index(r["method"]))  # bars that end together stand side by side
        axes.errorbar([aside], [share], bars, fmt="s", color=colours[r["method"]], capsize=3, label=r["method"])
    axes.set(xlabel="minutes of one processor core", ylabel="robust accuracy, ℓ∞ 8/255", ylim=(0, None))
    axes.legend(title="■ `strong`, 500 images\n● PGD-20, 200 images", loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of processor time, a method")
    parser.add_argument("--samples", type=int, default=10_000, help="training images")
    parser.add_argument("--images", type=int, default=500, help="test images at the end")
    parser.add_argument("--rows", type=Path, default=ROWS, help="another folder for trials")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only the table and the figure")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.rows.mkdir(parents=True, exist_ok=True)
    for seed in [] if arguments.table else arguments.seed:
        for method in arguments.method:
            path = arguments.rows / f"{method}--seed{seed}.json"
            if not path.exists():
                path.write_text(json.dumps(measured(method, seed, arguments), indent=1) + "\n")
    if arguments.rows == ROWS:
        table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
