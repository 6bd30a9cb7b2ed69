"""What an epoch of PGD adversarial training costs, and what N-FGSM saves.

    python benchmarks/training/speed.py [--repeats 9] [--threads 2]              an epoch against two hand-written loops
    python benchmarks/training/speed.py --n-fgsm [--seed 0 1 2] [--epochs 12]    N-FGSM against PGD-7, same epochs

MNIST, cnn-s, ℓ∞ 0.2, 7 steps, batches of 128 of 10,000 images, the set at its full size, Adam. The loops:

    plain      PyTorch as tutorials have it: loss.backward() inside the ascent (gradients by the weights made, thrown
               away), network in train mode, a DataLoader over a TensorDataset
    careful    torch.autograd.grad by the input only, tensors indexed in memory
    ours       `epochs` with `Adversarial`: also keeps the highest point visited (two forwards more)

All three in one process, alternating; a row holds every repeat. What counts is the median of the rounds' own ratios: a
processor that changes its pace changes it for all three. Floors: plain / ours ≥ 1.6, careful / ours ≥ 1.15; goals 2.5
and 1.8. N-FGSM: robust accuracy (the attacks of `strong`) within 2 points of PGD-7
at ≤ 0.4 of its time; goals 1 point, 1/3. Rows are files under benchmarks/results/training/speed/; rows that exist are
not made again. Wall time and the processor's time are kept; N-FGSM's share is one of processor time, which does not
depend on what else runs. Each is trained with the settings that `saddlepoint train` gives it, but for
the batch: 128 for both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from objectives import ATTACKS, LINF, RESULTS, counted, machine, mnist, stands, versions
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from saddlepoint.adapters.architectures import build
from saddlepoint.training import CATALOGUE, NFGSM, Adversarial, Objective, Trainer, epochs, fresh

ROWS = RESULTS / "training" / "speed"
SIZE, STEPS, BATCH, RATE = 0.2, 7, 128, 3e-3
LENGTH = 2.5 * SIZE / STEPS
FLOORS, GOALS = {"plain": 1.6, "careful": 1.15}, {"plain": 2.5, "careful": 1.8}


def start(seed: int) -> nn.Module:
    return fresh(build("cnn-s"), seed)


def plain(net: nn.Module, x: Tensor, y: Tensor) -> None:
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
    net.train()
    for clean, labels in DataLoader(TensorDataset(x, y), BATCH, shuffle=True):
        moved = (clean + torch.empty_like(clean).uniform_(-SIZE, SIZE)).clamp(0, 1)
        for _ in range(STEPS):
            moved.requires_grad_()
            functional.cross_entropy(net(moved), labels).backward()
            slope = moved.grad
            assert slope is not None
            moved = moved.detach() + LENGTH * slope.sign()
            moved = torch.min(torch.max(moved, clean - SIZE), clean + SIZE).clamp(0, 1)
        optimiser.zero_grad()
        functional.cross_entropy(net(moved), labels).backward()
        optimiser.step()


def careful(net: nn.Module, x: Tensor, y: Tensor) -> None:
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
    for rows in torch.randperm(len(x)).split(BATCH):
        clean, labels = x[rows], y[rows]
        lower, upper = (clean - SIZE).clamp(0, 1), (clean + SIZE).clamp(0, 1)
        moved = torch.empty_like(clean).uniform_(-SIZE, SIZE).add_(clean).clamp_(0, 1)
        net.eval()
        for _ in range(STEPS):
            moved.requires_grad_()
            (slope,) = torch.autograd.grad(functional.cross_entropy(net(moved), labels), moved)
            moved = torch.clamp(moved.detach() + LENGTH * slope.sign(), lower, upper)
        net.train()
        optimiser.zero_grad()
        functional.cross_entropy(net(moved), labels).backward()
        optimiser.step()


def per_epoch(arguments: argparse.Namespace) -> dict[str, Any]:
    """One epoch of each loop, alternating; the first round only warms up."""
    data = mnist("train", arguments.samples)
    batch = data.take(range(len(data)))
    trainer = Trainer(epochs=1, batch=BATCH, rate=RATE)
    loops: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(start(0), batch.x, batch.y),
        "careful": lambda: careful(start(0), batch.x, batch.y),
        "ours": lambda: list(epochs(start(0), data, Adversarial(LINF, STEPS), trainer, guards=None)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    busy: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(arguments.repeats + 1):
        for name, loop in loops.items():
            began, worked = time.perf_counter(), time.process_time()
            loop()
            if turn:
                seconds[name].append(round(time.perf_counter() - began, 3))
                busy[name].append(round(time.process_time() - worked, 3))
    median = {name: statistics.median(times) for name, times in seconds.items()}
    rounds = {name: [a / b for a, b in zip(seconds[name], seconds["ours"], strict=True)] for name in FLOORS}
    factors = {name: round(statistics.median(ratios), 2) for name, ratios in rounds.items()}
    spread = {name: [round(min(ratios), 2), round(max(ratios), 2)] for name, ratios in rounds.items()}
    return {
        "what": "seconds of one epoch of PGD-7 adversarial training",
        "samples": arguments.samples,
        "seconds": seconds,
        "processor_seconds": busy,
        "median": median,
        "faster": factors,
        "spread": spread,
        "floors": FLOORS,
        "goals": GOALS,
        "holds": all(factors[name] >= floor for name, floor in FLOORS.items()),
    }


def trained(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One of the two methods at one seed: its seconds and what the attacks leave."""
    objective: Objective = NFGSM(LINF) if name == "n-fgsm" else Adversarial(LINF, STEPS)
    warm_up = min(4, arguments.epochs // 2)
    told = {
        "epochs": arguments.epochs,
        "warm_up": warm_up,
        "batch": BATCH,
        "rate": RATE,
        "schedule": "cyclic",
        **CATALOGUE[name].trainer,
    }
    trainer = Trainer(**told, seed=seed)
    net, began, worked = start(seed), time.perf_counter(), time.process_time()
    list(epochs(net, mnist("train", arguments.samples), objective, trainer, guards=None))
    seconds, busy = time.perf_counter() - began, time.process_time() - worked
    test = mnist("test", arguments.images)
    batch = test.take(range(len(test)))
    net.eval()
    with torch.no_grad():
        clean = net(batch.x).argmax(1) == batch.y
    return {
        "what": f"{name} for {arguments.epochs} epochs",
        "objective": name,
        "seed": seed,
        "settings": repr(objective),
        "trainer": repr(trainer),
        "samples": arguments.samples,
        "seconds": round(seconds, 1),
        "processor_seconds": round(busy, 1),
        "clean": counted(clean),
        "robust": counted(stands(net, test, LINF, ATTACKS)),
    }


def row(path: Path, make: Callable[[], dict[str, Any]], threads: int) -> dict[str, Any]:
    """A row as it was made before, or made now."""
    if not path.exists():
        made = {**make(), "threads": threads, "versions": versions(), "machine": machine()}
        path.write_text(json.dumps(made, indent=1) + "\n")
    return json.loads(path.read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-fgsm", action="store_true")
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--samples", type=int, default=10_000, help="training images")
    parser.add_argument("--images", type=int, default=1000, help="test images")
    parser.add_argument("--rows", type=Path, default=ROWS, help="another folder for trials")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.rows.mkdir(parents=True, exist_ok=True)
    if not arguments.n_fgsm:
        found = row(arguments.rows / "epoch.json", lambda: per_epoch(arguments), arguments.threads)
        print(found["median"], found["faster"], "holds" if found["holds"] else "DOES NOT HOLD")
        return 0 if found["holds"] else 1
    holds = True
    for seed in arguments.seed:
        fast, pgd = (
            row(
                arguments.rows / f"{name}--seed{seed}.json",
                lambda name=name, seed=seed: trained(name, seed, arguments),
                arguments.threads,
            )
            for name in ("n-fgsm", "pgd")
        )
        behind = round(100 * (pgd["robust"]["share"] - fast["robust"]["share"]), 1)
        share = round(fast["processor_seconds"] / pgd["processor_seconds"], 2)
        holds &= behind <= 2 and share <= 0.4
        print(f"seed {seed}: N-FGSM {behind} points behind PGD-7 at {share} of its time", fast["robust"], pgd["robust"])
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
