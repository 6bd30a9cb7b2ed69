"""Attack engine against a bare PyTorch loop, in one process: what the engine costs, and what dropping saves.

    python benchmarks/engine_overhead.py [--repeats 5] [--threads 2] [--samples 128]

PGD-20, margin loss, ε = 1/255, batch 128, the first correctly classified CIFAR-10 test images, the published
ResNet-20 of ../shared/data/models. The bare loop is what one would write by hand: frozen parameters,
torch.autograd.grad with respect to the inputs, a clamp to limits computed once, success noted at every iterate
(the last one too). Its random start and its limits are the engine's and cost it nothing; the engine computes them
itself and checks every best point for membership in the set. Logits at x0 are given to the engine, since the images
were chosen by them. Runs alternate (bare, kept, dropped, bare, …), so a busy machine burdens all of them; ratios are
taken within a round, medians over rounds. CPU time is given beside wall time.

The margin's slope in the logits is exactly ±1, so both loops can take the very same steps and "same verdicts" is a
test. With cross-entropy they cannot: the engine ascends its log-odds, in float64, a sign of a near-zero input gradient
flips now and then, and a borderline sample falls in one path only; that number is reported too.

The engine keeps 128 rows in flight, on a CPU calls the model on at most 48 of them at a time (`call`), and works on
the copy that `from_torch` takes, whose convolutions are laid out channels last. The bare loop uses the module as it is.

Floors: kept / bare ≤ 1.10; dropped / bare ≤ 0.5 with the same verdicts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from saddlepoint import __version__
from saddlepoint.adapters import from_torch
from saddlepoint.adapters.architectures import build
from saddlepoint.attack import PGD, EngineSettings, Outcome, Rows, run
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.geometry import Linf

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
NAME = "cifar10_resnet20_standard"
SEED, BATCH, STEPS, EPS = 0, 128, 20, "1/255"


class Normalised(nn.Module):
    """(x − mean) / std in front of the network: sizes are in raw input units."""

    def __init__(self, net: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - self.mean) / self.std)


def network() -> nn.Module:
    """The published weights, frozen, in evaluation mode."""
    card = json.loads((SHARED / "models" / f"{NAME}.json").read_text())
    net = build("resnet20")
    net.load_state_dict(torch.load(SHARED / "models" / card["file"], weights_only=True))
    scale = card["input"]["normalise"]
    return Normalised(net, scale["mean"], scale["std"]).eval().requires_grad_(False)


def images(net: nn.Module, count: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The first `count` test images that the network classifies correctly, with row numbers as ids."""
    with np.load(SHARED / "cifar10" / "cifar10_test.npz") as file:
        x = torch.from_numpy(file["x"][: 2 * count]).permute(0, 3, 1, 2).float().div(255).contiguous()
        y = torch.from_numpy(file["y"][: 2 * count]).long()
    with torch.no_grad():
        right = torch.cat([net(part).argmax(1) for part in x.split(BATCH)]) == y
    index = right.nonzero()[:count, 0]
    return x[index].contiguous(), y[index], tuple(str(i) for i in index.tolist())


def margin_loss(z: Tensor, y: Tensor) -> Tensor:
    rival = z.scatter(1, y[:, None], -torch.inf).amax(1)
    return (rival - z.gather(1, y[:, None])[:, 0]).sum()


def ce_loss(z: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(z, y, reduction="sum")


@dataclass(frozen=True)
class Setting:
    """What both loops are given."""

    net: nn.Module
    x0: Tensor
    y: Tensor
    start: Tensor
    lower: Tensor
    upper: Tensor


def bare(setting: Setting, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """PGD-20 by hand; which samples fell at any iterate."""
    alpha = 2.5 / STEPS * float(Fraction(EPS))
    fell = []
    parts = [t.split(BATCH) for t in (setting.y, setting.start, setting.lower, setting.upper)]
    for y, x, lower, upper in zip(*parts, strict=True):
        fooled = torch.zeros(len(y), dtype=torch.bool)
        for _ in range(STEPS):
            x = x.detach().requires_grad_()
            z = setting.net(x)
            fooled |= z.argmax(1) != y
            (g,) = torch.autograd.grad(loss(z, y), x)
            x = torch.clamp(torch.add(x.detach(), g.sign(), alpha=alpha), lower, upper)
        with torch.no_grad():
            fell.append(fooled | (setting.net(x).argmax(1) != y))
    return torch.cat(fell)


def timed(work: Callable[[], object]) -> tuple[float, float, object]:
    """Wall seconds, CPU seconds, result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def broken(result: object) -> Tensor:
    """The mask of fallen samples of either loop."""
    return result.success if isinstance(result, Outcome) else torch.as_tensor(result)


def measure(samples: int, repeats: int) -> dict[str, object]:
    """Alternating rounds; one round of warming up is thrown away."""
    net = network()
    x0, y, ids = images(net, samples)
    model = from_torch(net, (0, 1), shape=(3, 32, 32), name=NAME)
    threat = Linf(EPS).within(model.domain)
    attack = PGD(steps=STEPS, loss="margin", polish=False)
    entropy = PGD(steps=STEPS, loss="ce", polish=False)
    with torch.no_grad():
        rows = Rows(x0, y, ids, threat, clean=net(x0))

    def setting(of: PGD) -> Setting:
        return Setting(
            net, x0, y, threat.sample(x0, Draws(row_keys(SEED, ids, of.stream))), *threat.hull(x0, rounding="in")
        )

    by_hand = setting(attack)
    runs: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(by_hand, margin_loss),
        "kept": lambda: run(model, attack, rows, EngineSettings(batch=BATCH, seed=SEED, drop=False)),
        "dropped": lambda: run(model, attack, rows, EngineSettings(batch=BATCH, seed=SEED)),
    }
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    results: dict[str, object] = {}
    for round_ in range(repeats + 1):
        for name, work in runs.items():
            seconds, cpu_seconds, results[name] = timed(work)
            if round_:
                wall[name].append(seconds)
                cpu[name].append(cpu_seconds)

    def ratios(name: str, floor: float) -> dict[str, object]:
        rounds = [[a / b for a, b in zip(t[name], t["bare"], strict=True)] for t in (wall, cpu)]
        return {"wall": summary(rounds[0]), "cpu": summary(rounds[1]), "rounds": rounds[0], "floor": floor}

    fell = broken(results["bare"])
    with_entropy = broken(run(model, entropy, rows, EngineSettings(batch=BATCH, seed=SEED)))
    return {
        "samples": len(ids),
        "seconds": {name: {"wall": summary(wall[name]), "cpu": summary(cpu[name])} for name in runs},
        "kept_over_bare": ratios("kept", 1.10),
        "dropped_over_bare": ratios("dropped", 0.5),
        "broken": int(fell.sum()),
        "verdicts_that_differ": {n: int((fell != broken(results[n])).sum()) for n in ("kept", "dropped")},
        "verdicts_that_differ_with_cross_entropy": int((bare(setting(entropy), ce_loss) != with_entropy).sum()),
        "forwards_per_sample": {
            "bare": STEPS + 1,
            **{
                name: float(result.forwards.double().mean())
                for name, result in results.items()
                if isinstance(result, Outcome)
            },
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=BATCH)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "engine_overhead.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load = os.getloadavg()[0]
    result = {
        "what": f"PGD-{STEPS} on {NAME}, linf:{EPS}, batch {BATCH}",
        **measure(arguments.samples, arguments.repeats),
        "repeats": arguments.repeats,
        "seed": SEED,
        "threads": arguments.threads,
        "load_average_at_start": load,
        "versions": {"saddlepoint": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": {"processor": platform.machine(), "system": platform.system()},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
