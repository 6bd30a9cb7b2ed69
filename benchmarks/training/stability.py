"""ReLU stability on MNIST: unstable units, time of exact verification and robust accuracy, with and without.

    python benchmarks/training/stability.py [--seed 0 1 2] [--images 50] [--threads 2]

mlp:32-32, ℓ∞ 0.1, PGD training with 7 steps, and the same with ReluStability followed by Pruning (Xiao et al. 2019).
    unstable    mean number of ReLUs that intervals cannot settle, over the first 1,000 test images
    robust      accuracy under the attacks of `strong`, the first 1,000 test images
    seconds     of MILP with all nine margins of an image, until its sign is decided or 60 s are over; the images are
                the first that are classified rightly; a time that ran out counts with its 60 s and is `open`
Floor: at every seed unstable units halved, mean seconds a third, robust accuracy within one point; goal: an eighth.
Rows are files under benchmarks/results/training/stability/; rows that exist are not made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from objectives import ATTACKS, RESULTS, counted, machine, mnist, stands, versions
from torch import nn

import saddlepoint as sp
from saddlepoint.adapters.architectures import build
from saddlepoint.bound.interval import region_of
from saddlepoint.bound.milp import MILP
from saddlepoint.graph.capture import capture
from saddlepoint.spec import margin_matrix
from saddlepoint.training import Adversarial, Objective, Trainer, fresh, train
from saddlepoint.training.pruning import Pruning
from saddlepoint.training.stability import ReluStability, current_graph, relu_inputs, unstable

ROWS = RESULTS / "training" / "stability"
BALL = sp.Linf("0.1", box=sp.Box(0.0, 1.0))
LIMIT = 60.0


def trained(objective: Objective, seed: int, arguments: argparse.Namespace) -> nn.Module:
    """The network of one row, not pruned."""
    trainer = Trainer(epochs=arguments.epochs, warm_up=arguments.epochs // 3, rate=3e-3, batch=128, seed=seed)
    return train(fresh(build(arguments.arch), seed), mnist("train", arguments.samples), objective, trainer).net.eval()


def exact_seconds(net: nn.Module, images: int) -> dict[str, Any]:
    """Time of the exact programme per image, and how many it decided."""
    batch = mnist("test", 10 * images).take(range(2 * images))
    with torch.no_grad():
        right = (net(batch.x).argmax(1) == batch.y).nonzero().flatten()[:images]
    graph, times, decided, holds = capture(net, batch.x[:2]), [], 0, 0
    for i in right.tolist():
        x, y = batch.x[i : i + 1], batch.y[i : i + 1]
        began = time.perf_counter()
        found = MILP(seconds=LIMIT, stop_below=0.0).solve(graph, BALL, x, margin_matrix(y, 10))
        times.append(min(time.perf_counter() - began, LIMIT))  # HiGHS may notice its limit late
        certified, broken = bool((found.lower > 0).all()), bool((found.value <= 0).any())
        decided, holds = decided + (certified or broken), holds + certified
    return {
        "n": len(times),
        "mean": statistics.mean(times),
        "median": statistics.median(times),
        "decided": decided,
        "robust": holds,
        "all": [round(t, 3) for t in times],
    }


def measured(net: nn.Module, images: int) -> dict[str, Any]:
    data = mnist("test", 1000)
    batch = data.take(range(len(data)))
    layers = relu_inputs(current_graph(net, batch.x), region_of(BALL, batch.x), "naive")
    with torch.no_grad():
        clean = net(batch.x).argmax(1) == batch.y
    return {
        "unstable": float(unstable(layers).mean()),
        "clean": counted(clean),
        "robust": counted(stands(net, data, BALL, ATTACKS)),
        "seconds": exact_seconds(net, images),
    }


def made(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row: both networks."""
    base = Adversarial(BALL)
    plain = trained(base, seed, arguments)
    objective = ReluStability(BALL, arguments.weight, arguments.l1, objective=base)
    images = mnist("train", 2000)
    stable = Pruning(BALL)(trained(objective, seed, arguments), images.take(range(2000)).x).eval()
    found = {"plain": measured(plain, arguments.images), "stable": measured(stable, arguments.images)}
    a, b = found["plain"], found["stable"]
    ratios = {
        "unstable": b["unstable"] / a["unstable"],
        "faster": a["seconds"]["mean"] / b["seconds"]["mean"],
        "robust_lost": a["robust"]["share"] - b["robust"]["share"],
    }
    return {
        "seed": seed,
        "settings": {k: v for k, v in vars(arguments).items() if k not in ("rows", "seed")},
        **found,
        "ratios": ratios,
        "holds": ratios["unstable"] <= 0.5 and ratios["faster"] >= 3 and ratios["robust_lost"] <= 0.01,
        "goal": ratios["faster"] >= 8,
        "versions": versions(),
        "machine": machine(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="mlp:32-32")
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--samples", type=int, default=60_000, help="training images")
    parser.add_argument("--images", type=int, default=50, help="images that are verified exactly")
    parser.add_argument("--weight", type=float, default=2e-3, help="w_rs")
    parser.add_argument("--l1", type=float, default=2e-5, help="w_l1")
    parser.add_argument("--rows", type=Path, default=ROWS, help="another folder for trials")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.rows.mkdir(parents=True, exist_ok=True)
    holds = True
    for seed in arguments.seed:
        path = arguments.rows / f"{arguments.arch.replace(':', '-')}--seed{seed}.json"
        if not path.exists():
            path.write_text(json.dumps(made(seed, arguments), indent=1) + "\n")
        found = json.loads(path.read_text())
        holds &= found["holds"]
        print(seed, found["ratios"], found["plain"]["robust"]["share"], found["stable"]["robust"]["share"], flush=True)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
