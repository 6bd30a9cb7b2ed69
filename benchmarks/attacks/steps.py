"""Steps per second of PGD-20, ours and the peers', in one process; and what dropping fallen samples saves.

    PEERS/bin/python benchmarks/attacks/steps.py [--repeats 7] [--threads 2]      (PEERS: benchmarks/peers/install.sh)

PGD-20, ℓ∞, cross-entropy, random start, step 2.5 ε / 20, batch 128, 128 correctly classified test images; the published
ResNet-20 at 1/255 (a standard network: most samples fall) and the robust LeNet-5 at 0.3 (most stand). Every library
gets the same module (normalisation in front, eval mode) and its own best-known way of running a batch. A step is a
forward and a backward of every sample; "kept" is our engine with dropping turned off, "dropped" as it runs by default,
for the standard network with glances at the vertex after gradients 1 and 3 ("dropped, no glances" is beside it).
Rounds alternate the libraries; ratios are taken within a round against the peer that is fastest over all rounds,
medians over rounds. Time to prepare (folding, timing the stand-ins) is measured apart and stated; peers have none.

Verdicts: samples whose final word differs from the same attack's on the model itself (`hasten` off), both directions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from reference import LENET5, RESNET20, RESULTS, ROOT, Reference, machine
from torch import Tensor, nn

sys.path.insert(0, str(ROOT / "benchmarks" / "peers"))
import stubs

from saddlepoint.attack import PGD, EngineSettings, Rows, run
from saddlepoint.attack.stand_in.choose import choose
from saddlepoint.evaluation.versions import versions
from saddlepoint.geometry import Linf
from saddlepoint.spec import Model

STEPS, BATCH, SEEDS = 20, 128, (0, 1, 2)
FLOORS = {RESNET20.name: (2.2, 4.5), LENET5.name: (1.4, 1.6)}
GOALS = {RESNET20.name: (3.0, 6.0), LENET5.name: (2.0, 3.0)}
GLANCES = {RESNET20.name: (1, 3), LENET5.name: ()}  # they pay where most samples fall


def peers(net: nn.Module, eps: float, x: Tensor, y: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The same attack in every library; each returns adversarial inputs."""
    stubs.install()
    import foolbox
    import numpy as np
    import torchattacks
    from adv_lib.attacks import pgd_linf
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    alpha = 2.5 * eps / STEPS
    classifier = PyTorchClassifier(
        net, loss=nn.CrossEntropyLoss(), input_shape=tuple(x.shape[1:]), nb_classes=10, clip_values=(0.0, 1.0)
    )
    art = ProjectedGradientDescentPyTorch(
        classifier, eps=eps, eps_step=alpha, max_iter=STEPS, num_random_init=1, batch_size=BATCH, verbose=False
    )
    bounded = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    fool = foolbox.attacks.LinfPGD(abs_stepsize=alpha, steps=STEPS)
    torch_attack = torchattacks.PGD(net, eps=eps, alpha=alpha, steps=STEPS)
    numbers, labels = x.numpy(), y.numpy().astype(np.int64)
    return {
        "adv-lib": lambda: pgd_linf(net, x, y, eps, steps=STEPS, absolute_step_size=alpha),
        "foolbox": lambda: fool(bounded, x, y, epsilons=eps)[1],
        "torchattacks": lambda: torch_attack(x, y),
        "art": lambda: torch.from_numpy(art.generate(numbers, labels)),
    }


def right(model: Model, reference: Reference) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The first 128 test images that the model gets right."""
    x, y, ids = reference.samples(2 * BATCH)
    with torch.no_grad():
        index = (model(x).argmax(1) == y).nonzero()[:BATCH, 0]
    return x[index], y[index], tuple(ids[i] for i in index.tolist())


def measure(reference: Reference, repeats: int) -> dict[str, object]:
    """One network: all libraries in turn, `repeats` rounds after one to warm up."""
    model = reference.model()
    net = model.fn.module  # pyright: ignore[reportFunctionMemberAccess]  # a module that peers can call
    x, y, ids = right(model, reference)
    threat, attack = Linf(reference.size), PGD(steps=STEPS, polish=False)
    dropping = PGD(steps=STEPS, polish=False, glances=GLANCES[reference.name])
    with torch.no_grad():
        rows = Rows(x, y, ids, threat, clean=model(x))

    def ours(attack: PGD, **how: object) -> Callable[[], object]:
        return lambda: run(model, attack, rows, EngineSettings(batch=BATCH, **how))  # pyright: ignore[reportArgumentType]

    found = choose(model, x, y, EngineSettings(batch=BATCH).rows_per_call(x))  # so few steps would not pay for it
    others = peers(plain_module(reference, net), float(threat.size), x, y)  # pyright: ignore[reportArgumentType]
    runs = {
        "kept": ours(attack, drop=False),
        "dropped": ours(dropping),
        "dropped, no glances": ours(attack),
        "model itself, kept": ours(attack, drop=False, hasten=False),
        **others,
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(repeats + 1):
        for name, work in runs.items():
            began = time.perf_counter()
            work()
            if round_:
                seconds[name].append(time.perf_counter() - began)
    fastest = min(others, key=lambda name: statistics.median(seconds[name]))
    return {
        "model": reference.name,
        "size": reference.size,
        "samples": len(ids),
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "steps_per_second": {n: round(STEPS * len(ids) / statistics.median(v), 1) for n, v in seconds.items()},
        "fastest_peer": fastest,
        "kept_over_fastest_peer": against(seconds, fastest, "kept", reference, 0),
        "dropped_over_fastest_peer": against(seconds, fastest, "dropped", reference, 1),
        "seconds_to_prepare": round(found.seconds, 2),
        "differentiated": found.notes,
        "verdicts": [verdicts(model, (dropping, attack), rows, seed) for seed in SEEDS],
    }


def plain_module(reference: Reference, net: nn.Module) -> nn.Module:
    """The module as its owner has it: memory laid out as torch lays it out, parameters that could be trained."""
    import copy

    return copy.deepcopy(net).to(memory_format=torch.contiguous_format).requires_grad_(True).eval()  # pyright: ignore[reportCallIssue]


def against(
    seconds: dict[str, list[float]], peer: str, name: str, reference: Reference, which: int
) -> dict[str, object]:
    """How many times as fast, per round."""
    ratios = [a / b for a, b in zip(seconds[peer], seconds[name], strict=True)]
    floor, goal = FLOORS[reference.name][which], GOALS[reference.name][which]
    return {**summary(ratios), "floor": floor, "goal": goal, "holds": statistics.median(ratios) >= floor}


def verdicts(model: Model, attacks: tuple[PGD, PGD], rows: Rows, seed: int) -> dict[str, int]:
    """Broken by the engine as it runs (the first attack), and by the model's own gradients without dropping."""
    fast = run(model, attacks[0], rows, EngineSettings(batch=BATCH, seed=seed))
    slow = run(model, attacks[1], rows, EngineSettings(batch=BATCH, seed=seed, hasten=False, drop=False))
    return {
        "seed": seed,
        "broken": int(fast.success.sum()),
        "broken_by_the_model_itself": int(slow.success.sum()),
        "missed": int((slow.success & ~fast.success).sum()),
        "gained": int((fast.success & ~slow.success).sum()),
    }


def summary(values: list[float]) -> dict[str, float]:
    return {k: round(f(values), 4) for k, f in (("median", statistics.median), ("min", min), ("max", max))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "attacks" / "steps.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tables = [measure(reference, arguments.repeats) for reference in (RESNET20, LENET5)]
    result = {
        "what": f"PGD-{STEPS}, linf, batch {BATCH}, ours and the peers in one process",
        "tables": tables,
        "versions": {**versions(), **stubs.versions()},
        "machine": machine(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0 if all(t[k]["holds"] for t in tables for k in t if k.endswith("_over_fastest_peer")) else 1  # pyright: ignore[reportIndexIssue]


if __name__ == "__main__":
    sys.exit(main())
