"""Transfer between two published networks, and universal perturbations: what each method adds, beside random noise.

    python benchmarks/attacks/transfer.py

LeNet-5 and MLP 300-100, both trained on MNIST without defence. Transfer: ℓ∞ 0.15, ten steps of ε/10, the first 200 test
images; counts over those that both classify correctly; methods that draw at random with three seeds. Universal: δ from
test images 0…299, counted on 300…599 of those that the model gets right.
Writes benchmarks/results/attacks/transfer.json.
"""

from __future__ import annotations

import json
import time
from typing import Any

import torch
from reference import RESULTS, Reference, machine

from saddlepoint.attack import PGD, Diverse, EngineSettings, Nesterov, Rows, Scaled, Smoothed
from saddlepoint.attack.measure import Rate
from saddlepoint.attack.rows import take
from saddlepoint.attack.transfer import transfer
from saddlepoint.attack.universal import Universal, find_universal, find_universal_sequential
from saddlepoint.evaluation.versions import versions
from saddlepoint.geometry import L2, Linf, Mask, PerturbationSet
from saddlepoint.spec import Model

MODELS = {
    "lenet5": Reference("mnist_lenet5_standard", "lenet5", "0.15"),
    "mlp": Reference("mnist_mlp_300_100_standard", "mlp-300-100", "0.15"),
}
PLAIN = PGD(steps=10, step_size=0.1, random_start=False, polish=False)
MI = Nesterov(PLAIN, ahead=0.0)
METHODS: dict[str, Any] = {
    "I-FGSM": PLAIN,
    "MI": MI,
    "NI": Nesterov(PLAIN),
    "MI-DI": Diverse(MI),
    "MI-TI": Smoothed(MI, radius=2),
    "MI-SI": Scaled(MI),
    "SI-NI-DI-TI": Diverse(Scaled(Smoothed(Nesterov(PLAIN), radius=2))),
}
RANDOM = ("MI-DI", "SI-NI-DI-TI")
CORNER = Mask((torch.arange(28)[:, None] < 9) & (torch.arange(28) < 9))
UNIVERSAL: dict[str, PerturbationSet] = {"linf 0.2": Linf("0.2"), "l2 3": L2(3), "mask 9x9": CORNER}


def rows_of(reference: Reference, count: int, threat: PerturbationSet) -> Rows:
    x, y, ids = reference.samples(count)
    return Rows(x, y, ids, threat)


def transfers(models: dict[str, Model]) -> list[dict[str, Any]]:
    found = []
    rows = rows_of(MODELS["lenet5"], 200, Linf("0.15"))
    for source, target in (("lenet5", "mlp"), ("mlp", "lenet5")):
        for name, attack in METHODS.items():
            told = [
                transfer(models[source], models[target], attack, rows, EngineSettings(seed=seed))
                for seed in (range(3) if name in RANDOM else range(1))
            ]
            found.append(
                {
                    "source": source,
                    "target": target,
                    "method": name,
                    "n": told[0].target.n,
                    "fooled": [t.target.k for t in told],
                    "surrogate": [t.surrogate.k for t in told],
                    "noise": [t.noise.k for t in told],
                    "ci95": [round(v, 4) for v in told[0].target.ci95],
                }
            )
            print(json.dumps(found[-1]))
    return found


def universals(model: Model) -> list[dict[str, Any]]:
    found = []
    for name, threat in UNIVERSAL.items():
        rows = rows_of(MODELS["lenet5"], 600, threat)
        train, held = take(rows, torch.arange(300)), take(rows, torch.arange(300, 600))
        methods = {"ascent": lambda t=train, h=held: find_universal(model, t, h)}
        if isinstance(threat, Mask):
            methods["ascent, pasted"] = lambda t=train, h=held: find_universal(model, t, h, Universal(pasted=True))
        else:
            methods["sequential"] = lambda t=train, h=held: find_universal_sequential(model, t, h, passes=1)
        for method, find in methods.items():
            begun = time.perf_counter()
            told = find()
            seconds = time.perf_counter() - begun
            found.append(
                {
                    "set": name,
                    "method": method,
                    "held_out": _count(told.held_out),
                    "trained": _count(told.trained),
                    "noise": _count(told.noise),
                    "forwards": told.forwards,
                    "backwards": told.backwards,
                    "seconds": round(seconds, 1),
                }
            )
            print(json.dumps(found[-1]))
    return found


def _count(rate: Rate) -> dict[str, Any]:
    return {"k": rate.k, "n": rate.n, "ci95": [round(v, 4) for v in rate.ci95]}


def main() -> None:
    models = {name: reference.model() for name, reference in MODELS.items()}
    result = {
        "what": "fooled samples: made on one model, scored on another; one perturbation for all, on samples held out",
        "transfer": transfers(models),
        "universal": universals(models["lenet5"]),
        "versions": versions(),
        "machine": machine(),
    }
    (RESULTS / "attacks").mkdir(parents=True, exist_ok=True)
    (RESULTS / "attacks" / "transfer.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
