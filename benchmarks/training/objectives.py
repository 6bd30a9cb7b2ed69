"""Every empirical objective trained on 10,000 images of MNIST, and compared with standard training in its own measure.

    python benchmarks/training/objectives.py [--only NAME …] [--seed S …] [--epochs 10] [--images 1000] [--threads 2]

cnn-s (lipschitz-s for the certified margins), the settings the objectives and the trainer come with (certified
objectives: those that the command line gives them, epochs too), the first 10,000 training images. A measure counts
test images:

    linf        accuracy under ℓ∞ 0.2, the attacks of `strong`   adversarial objectives
    proved      certified accuracy at ℓ∞ 0.1 by intervals or CROWN, without search      certified objectives
    dual        the same on mlp:64-64, where the dual loss takes minutes
    l2          accuracy under ℓ2 1.0, the attacks of `strong`   penalties
    one-step    accuracy under FGSM, ℓ∞ 0.1: all that label smoothing claims, and no evidence of robustness; how it
                fares in l2 stands beside it in the table, and need not beat anything
    several     accuracy under ℓ∞ 0.1, ℓ2 1 and ℓ1 8 at once, the attacks of `strong` for each
    turned      accuracy at one random rotation + translation (30 degrees, 3 pixels) an image
    grid        accuracy at the worst of the 775 points of its grid
    smoothed    certified accuracy of the smoothed classifier (σ 0.5) at ℓ2 1.0: CERTIFY, 1,000 draws, α 0.001
    certified   certified accuracy at ℓ2 0.5 by the bound `lipschitz`

A row (objective, measure, seed) is a file under benchmarks/results/training/objectives/; rows that exist are not made
again. An objective beats standard training where, at each seed, the lower end of its Clopper–Pearson interval lies
above the upper end of that of standard training with the same seed. The table is made from the rows at the end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "attacks"))
from reference import RESULTS, SHARED, machine

import saddlepoint as sp
from saddlepoint.adapters.architectures import build
from saddlepoint.attack import FGSM
from saddlepoint.bound import CROWN, BoundMethod, Interval, Lipschitz
from saddlepoint.bound.smoothing import RandomizedSmoothing
from saddlepoint.check.counts import clopper_pearson
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data import Data, from_arrays, load
from saddlepoint.evaluation import evaluate
from saddlepoint.evaluation.named_plans import cascade_for
from saddlepoint.evaluation.plan import Plan
from saddlepoint.evaluation.versions import versions
from saddlepoint.geometry import PerturbationSet
from saddlepoint.graph.capture import capture
from saddlepoint.spec import Noise, Smoothing, Verdict, margin_matrix
from saddlepoint.training import (
    ALP,
    AWP,
    CATALOGUE,
    CURE,
    MACER,
    MART,
    MSD,
    NFGSM,
    TRADES,
    Adversarial,
    AverageOfSets,
    FastAdversarial,
    Free,
    GaussianAugmentation,
    GradientPenalty,
    JacobianPenalty,
    LabelSmoothing,
    LipschitzMargin,
    MaxOfSets,
    Objective,
    RandomAugmentation,
    SmoothAdv,
    Standard,
    Trainer,
    WorstOfK,
    fresh,
    train,
)
from saddlepoint.training.certified import IBP, MTLIBP, SABR, CrownIBP, DualLoss, interval_initialised

ROWS, TABLE = RESULTS / "training" / "objectives", RESULTS / "training" / "objectives.json"
UNIT = sp.Box(0.0, 1.0)
LINF, L2, TURN = sp.Linf("0.2", box=UNIT), sp.L2("1", box=UNIT), sp.RotationTranslation("30", "3", UNIT)
SEVERAL = (sp.Linf("0.1", box=UNIT), sp.L2("1", box=UNIT), sp.L1("8", box=UNIT))
ATTACKS = Plan("attacks of strong", lambda threat: [*cascade_for(threat)])  # bounds are not what is counted here
ONE_STEP = Plan("one step", lambda threat: [FGSM()])
SIGMA, RADIUS, MARGIN = 0.5, 1.0, "0.5"
SMALL = sp.Linf("0.1", box=UNIT)


@dataclass(frozen=True)
class Row:
    """An objective, the measure it is made for, and what the trainer is told beyond its defaults."""

    objective: Objective
    measure: str
    arch: str = "cnn-s"
    warm_up: int = 0
    beside: str = ""
    """A second measure, for the record: it need not beat standard training there."""


OBJECTIVES = {
    "standard": Row(Standard(), ""),
    "pgd": Row(Adversarial(LINF), "linf", warm_up=2),
    "fgsm": Row(FastAdversarial(LINF), "linf", warm_up=2),
    "n-fgsm": Row(NFGSM(LINF), "linf", warm_up=2),
    "free": Row(Free(LINF), "linf", warm_up=2),
    "trades": Row(TRADES(LINF), "linf", warm_up=2),
    "mart": Row(MART(LINF), "linf", warm_up=2),
    "awp": Row(AWP(Adversarial(LINF)), "linf", warm_up=2),
    "alp": Row(ALP(LINF), "linf", warm_up=2),
    "gradient-penalty": Row(GradientPenalty(), "l2"),
    "jacobian": Row(JacobianPenalty(), "l2"),
    "cure": Row(CURE(), "l2"),
    "label-smoothing": Row(LabelSmoothing(), "one-step", beside="l2"),
    "augment": Row(RandomAugmentation(TURN), "turned"),
    "worst-of-k": Row(WorstOfK(TURN), "grid"),
    "max": Row(MaxOfSets(SEVERAL), "several", warm_up=2),
    "average": Row(AverageOfSets(SEVERAL), "several", warm_up=2),
    "msd": Row(MSD(SEVERAL), "several", warm_up=2),
    "gaussian": Row(GaussianAugmentation(SIGMA), "smoothed"),
    "smoothadv": Row(SmoothAdv(L2, sigma=SIGMA), "smoothed", warm_up=2),
    "macer": Row(MACER(SIGMA), "smoothed"),
    "lipschitz": Row(LipschitzMargin(sp.L2(MARGIN, box=UNIT)), "certified", arch="lipschitz-s"),
    "ibp": Row(IBP(SMALL), "proved"),
    "crown-ibp": Row(CrownIBP(SMALL), "proved"),
    "sabr": Row(SABR(SMALL), "proved"),
    "mtl-ibp": Row(MTLIBP(SMALL), "proved"),
    "wong-kolter": Row(DualLoss(SMALL), "dual"),
}


def stands(net: nn.Module, data: Data, ball: PerturbationSet, plan: str | Plan) -> torch.Tensor:
    """Which images no stage of the plan broke."""
    with evaluate(sp.from_torch(net, domain=(0, 1), shape=data.shape), data, ball, plan) as book:
        return torch.tensor([s.verdict in (Verdict.CERTIFIED, Verdict.OPEN) for s in book.bracket().samples])


def several(net: nn.Module, data: Data) -> torch.Tensor:
    return torch.stack([stands(net, data, ball, ATTACKS) for ball in SEVERAL]).all(0)


@torch.no_grad()
def turned(net: nn.Module, data: Data) -> torch.Tensor:
    batch = data.take(range(len(data)))
    params = TURN.sample(batch.x, Draws(row_keys(0, batch.ids, "one random point")))
    return net(TURN.render(batch.x, params)).argmax(1) == batch.y


def smoothed(net: nn.Module, data: Data) -> torch.Tensor:
    batch = data.take(range(len(data)))
    smoothing = Smoothing(net, Noise("gaussian", SIGMA))
    found = RandomizedSmoothing(n0=100, n=1000, alpha=0.001).certify(smoothing, batch.x, batch.ids)
    return (found.label == batch.y) & (found.radius > RADIUS)


def certified(net: nn.Module, data: Data) -> torch.Tensor:
    return bounded(net, data, sp.L2(MARGIN, box=UNIT), Lipschitz())


def proved(net: nn.Module, data: Data) -> torch.Tensor:
    return bounded(net, data, SMALL, Interval()) | bounded(net, data, SMALL, CROWN())


def bounded(net: nn.Module, data: Data, ball: PerturbationSet, method: BoundMethod) -> torch.Tensor:
    """Where every margin's lower bound is positive."""
    graph, right = capture(net, data.take(range(2)).x), []
    for start in range(0, len(data), 100):
        batch = data.take(range(start, min(start + 100, len(data))))
        right.append((method(graph, ball, batch.x, margin_matrix(batch.y, 10)).lower > 0).all(1))
    return torch.cat(right)


MEASURES: dict[str, Callable[[nn.Module, Data], torch.Tensor]] = {
    "linf": lambda net, data: stands(net, data, LINF, ATTACKS),
    "l2": lambda net, data: stands(net, data, L2, ATTACKS),
    "one-step": lambda net, data: stands(net, data, SMALL, ONE_STEP),
    "several": several,
    "turned": turned,
    "grid": lambda net, data: stands(net, data, TURN, "standard"),
    "smoothed": smoothed,
    "certified": certified,
    "proved": proved,
    "dual": proved,
}


def mnist(part: str, count: int) -> Data:
    batch = load(f"{SHARED / 'mnist.npz'}:{part}").take(range(count))
    return from_arrays(batch.x.numpy(), batch.y.numpy())


def counted(right: torch.Tensor) -> dict[str, Any]:
    k, n = int(right.sum()), len(right)
    return {"k": k, "n": n, "share": k / n, "ci95": [round(end, 4) for end in clopper_pearson(k, n)]}


def measured(name: str, measure: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    row = OBJECTIVES[name]
    told: dict[str, Any] = {"epochs": arguments.epochs, "warm_up": row.warm_up}
    choice = CATALOGUE.get(name)
    if choice is not None and measure in ("proved", "dual"):
        told = {**choice.trainer}
    trainer = Trainer(**told, seed=seed)
    began = time.perf_counter()
    by_intervals = choice is not None and choice.interval_weights
    arch = "mlp:64-64" if measure == "dual" else row.arch
    start = (interval_initialised if by_intervals else fresh)(build(arch, (1, 28, 28), 10), seed)
    net = train(start, mnist("train", arguments.samples), row.objective, trainer).net.eval()
    seconds = time.perf_counter() - began
    data = mnist("test", arguments.images)
    batch = data.take(range(len(data)))
    with torch.no_grad():
        clean = net(batch.x).argmax(1) == batch.y
    return {
        "objective": name,
        "measure": measure,
        "seed": seed,
        "settings": repr(row.objective),
        "arch": arch,
        "trainer": repr(trainer),
        "samples": arguments.samples,
        "clean": counted(clean),
        "own": counted(MEASURES[measure](net, data)),
        "seconds": {"training": round(seconds, 1), "all": round(time.perf_counter() - began, 1)},
        "versions": versions(),
        "machine": machine(),
    }


def asked(name: str) -> list[str]:
    """Its own measure, and the one beside it."""
    return [measure for measure in (OBJECTIVES[name].measure, OBJECTIVES[name].beside) if measure]


def table() -> bool:
    """All rows with those of standard training beside them; whether every objective beats it at every seed."""
    rows = [json.loads(p.read_text()) for p in sorted(ROWS.glob("*.json"))]
    plain = {(r["measure"], r["seed"]): r for r in rows if r["objective"] == "standard"}
    lines, holds = [], True
    for name, measure in [(who, what) for who in OBJECTIVES if who != "standard" for what in asked(who)]:
        mine = [r for r in rows if (r["objective"], r["measure"]) == (name, measure) and (measure, r["seed"]) in plain]
        if not mine:
            continue
        pairs = [(r, plain[measure, r["seed"]]) for r in mine]
        beats = all(r["own"]["ci95"][0] > p["own"]["ci95"][1] for r, p in pairs)
        holds &= beats or measure == OBJECTIVES[name].beside
        line = {
            "objective": name,
            "measure": measure,
            "seeds": [r["seed"] for r in mine],
            "own": [r["own"]["share"] for r in mine],
            "own_ci95": [r["own"]["ci95"] for r in mine],
            "standard": [p["own"]["share"] for _, p in pairs],
            "standard_ci95": [p["own"]["ci95"] for _, p in pairs],
            "clean": [r["clean"]["share"] for r in mine],
            "training_seconds": [r["seconds"]["training"] for r in mine],
            "beats": beats,
        }
        lines.append(line)
        print(name, line["measure"], line["own"], "standard", line["standard"], "beats" if beats else "DOES NOT BEAT")
    what = "objectives on MNIST 10k against standard training, each in its own measure"
    TABLE.write_text(json.dumps({"what": what, "holds": holds, "rows": lines}, indent=1) + "\n")
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name in OBJECTIVES if name != "standard"]
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--samples", type=int, default=10_000, help="training images")
    parser.add_argument("--images", type=int, default=1000, help="test images")
    parser.add_argument("--rows", type=Path, default=ROWS, help="another folder for trials")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.rows.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seed:
        for name in arguments.only:
            for measure, who in itertools.product(asked(name), ("standard", name)):
                path = arguments.rows / f"{who}--{measure}--seed{seed}.json"
                if not path.exists():
                    row = measured(who, measure, seed, arguments)
                    path.write_text(json.dumps(row, indent=1) + "\n")
                    print(who, measure, seed, row["own"], row["clean"]["share"], row["seconds"], flush=True)
    return 0 if arguments.rows != ROWS or table() else 1


if __name__ == "__main__":
    sys.exit(main())
