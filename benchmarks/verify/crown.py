"""CROWN and alpha-CROWN (20 steps): ours and auto_LiRPA's, in one process, on three networks, batches of 1 and 64.

    PEERS/bin/python benchmarks/verify/crown.py [--repeats 7] [--threads 1]
                                                     (PEERS: sh benchmarks/verify/peers/install.sh PEERS)

auto_LiRPA is the copy inside NeuralSAT 0.2.17. Test images that the network gets right, an ℓ∞ ball in the network's
own input units, specification z_label − z_j for the nine others. Both sides have their graph ready before the clock and
refine every intermediate bound that is not exact by backward passes. Rounds alternate; seconds are medians over rounds,
ratios are taken within a round. Tightness: ours minus theirs per row over 1 + |theirs|; "as tight" is ≥ −1e-5 on the
lowest row for CROWN, on the mean of rows for alpha-CROWN, whose optimum neither side reaches on every row.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

sys.path += [str(Path(__file__).resolve().parents[1] / folder) for folder in ("peers", "attacks")]
import stubs
from reference import RESULTS, SHARED, machine

from saddlepoint.adapters.architectures.registry import build
from saddlepoint.bound import CROWN, AlphaCROWN
from saddlepoint.data import load as load_data
from saddlepoint.geometry import Linf
from saddlepoint.graph.capture import capture
from saddlepoint.graph.ir import Graph

BATCHES, STEPS = (1, 64), 20
LONG = 60.0  # seconds of a round that is measured once
FLOORS = {"crown": 1.0, "alpha-crown": 0.667}
GOALS = {"crown": 0.5, "alpha-crown": 0.333}
Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Case:
    """A network, images in its own units that it gets right, and the size of the ball."""

    name: str
    net: nn.Module
    x: Tensor
    y: Tensor
    size: float

    def differences(self, count: int) -> Tensor:
        """z_label − z_j, (count, 9, 10)."""
        eye = torch.eye(10)
        return torch.stack(
            [torch.stack([eye[y] - eye[j] for j in range(10) if j != y]) for y in self.y[:count].tolist()]
        )


def cases() -> list[Case]:
    """The three networks."""
    dense = _dense(SHARED / "vnnlib" / "mnist_fc" / "onnx" / "mnist-net_256x2.onnx.gz")
    return [
        _case("mnist-net_256x2", dense, f"{SHARED / 'mnist.npz'}:test", ([0.0], [1.0]), 0.03),
        _published("cifar10_oval_base_certified_2_255", "oval-base", "cifar_base_kw"),
        _published("cifar10_resnet2b_adv_2_255", "resnet2b", "resnet_2b"),
    ]


def _dense(file: Path) -> nn.Module:
    """A chain of Gemm and Relu."""
    model = onnx.load_from_string(gzip.decompress(file.read_bytes()))
    weights = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
    layers: list[nn.Module] = []
    for node in model.graph.node:
        if node.op_type == "Relu":
            layers.append(nn.ReLU())
        if node.op_type == "Gemm":
            w, b = weights[node.input[1]], weights[node.input[2]]
            w = w if any(a.name == "transB" and a.i for a in node.attribute) else w.T
            layer = nn.Linear(w.shape[1], w.shape[0])
            layer.load_state_dict({"weight": w.contiguous(), "bias": b})
            layers.append(layer)
    return nn.Sequential(nn.Flatten(), *layers)


def _published(file: str, arch: str, name: str) -> Case:
    card = json.loads((SHARED / "models" / f"{file}.json").read_text())
    net = build(arch)
    net.load_state_dict(torch.load(SHARED / "models" / card["file"], weights_only=True))
    scale = card["input"]["normalise"]
    data = str(SHARED / "cifar10" / "cifar10_test.npz")
    return _case(name, net, data, (scale["mean"], scale["std"]), 2 / 255 / statistics.fmean(scale["std"]))


def _case(name: str, net: nn.Module, data: str, scale: tuple[list[float], list[float]], size: float) -> Case:
    net = net.eval().requires_grad_(False)
    mean, std = (torch.tensor(t).view(-1, 1, 1) for t in scale)
    batch = load_data(data).take(list(range(200)))
    x = (batch.x - mean) / std
    right = (net(x).argmax(1) == batch.y).nonzero().flatten()[: max(BATCHES)]
    return Case(name, net, x[right], batch.y[right], size)


def lirpa(case: Case, count: int, method: str) -> Call:
    """The peer's bound of the first `count` images; its graph is built here."""
    from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm

    x, c = case.x[:count], case.differences(count)
    options = {"optimize_bound_args": {"iteration": STEPS}}
    bounded = BoundedModule(case.net, torch.zeros_like(x), bound_opts=options, device="cpu")
    point = BoundedTensor(x, PerturbationLpNorm(norm=float("inf"), eps=case.size))

    def run() -> Tensor:
        if method == "crown":
            with torch.no_grad():
                lower, _ = bounded.compute_bounds(x=(point,), C=c, method="CROWN", bound_upper=False)
        else:
            lower, _ = bounded.compute_bounds(x=(point,), C=c, method="CROWN-Optimized", bound_upper=False)
        return lower.detach()

    return run


def ours(case: Case, graph: Graph, count: int, method: str) -> Call:
    """Ours."""
    x, c, ball = case.x[:count], case.differences(count), Linf(case.size)
    bound = CROWN(stop_above=None) if method == "crown" else AlphaCROWN(steps=STEPS)
    return lambda: bound(graph, ball, x, c).lower


def measure(case: Case, count: int, method: str, repeats: int) -> dict[str, Any]:
    """One cell."""
    calls = {
        "saddlepoint": ours(case, capture(case.net, case.x[:2]), count, method),
        "auto_LiRPA": lirpa(case, count, method),
    }
    bounds, seconds, begun = {}, {name: [] for name in calls}, time.perf_counter()
    for name, call in calls.items():  # to warm up; a round that takes minutes is not repeated
        start = time.perf_counter()
        bounds[name] = call()
        seconds[name].append(time.perf_counter() - start)
    if time.perf_counter() - begun < LONG:
        seconds = {name: [] for name in calls}
    for _ in range(repeats if time.perf_counter() - begun < LONG else 0):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begun)
    gap = (bounds["saddlepoint"] - bounds["auto_LiRPA"]) / (1 + bounds["auto_LiRPA"].abs())
    ratios = [a / b for a, b in zip(seconds["saddlepoint"], seconds["auto_LiRPA"], strict=True)]
    ratio = statistics.median(ratios)
    tight = float(gap.min() if method == "crown" else gap.mean()) >= -1e-5
    return {
        "model": case.name,
        "batch": count,
        "method": method,
        "seconds": {name: round(statistics.median(s), 4) for name, s in seconds.items()},
        "ratio": {"median": round(ratio, 3), "min": round(min(ratios), 3), "max": round(max(ratios), 3)},
        "gap": {"lowest": float(gap.min()), "mean": float(gap.mean()), "highest": float(gap.max())},
        "as_tight": tight,
        "holds": tight and ratio <= FLOORS[method],
        "goal": tight and ratio <= GOALS[method],
    }


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole result so far."""
    return {
        "what": "seconds of one bound, ours and auto_LiRPA's",
        "rows": rows,
        "holds": all(r["holds"] for r in rows),
        "versions": {"auto_LiRPA": "0.6.0 in neuralsat " + version("neuralsat"), "torch": version("torch")},
        "machine": machine(),
    }


def main() -> None:
    """Measure, print and keep the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--cells", nargs="+", default=[], help="model:method:batch, to measure only these")
    options.add_argument("--methods", nargs="+", default=list(FLOORS), choices=list(FLOORS))
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    stubs.install()
    spec = importlib.util.find_spec("src")
    if spec is None or spec.origin is None:
        raise SystemExit("NeuralSAT is not installed here: run benchmarks/verify/peers/install.sh")
    sys.path.insert(0, str(Path(spec.origin).parent / "abstractor"))
    file = RESULTS / "verify" / "crown.json"
    rows = json.loads(file.read_text())["rows"] if asked.cells and file.exists() else []
    for case in cases():
        for method in asked.methods:
            for count in BATCHES:
                if not asked.cells or f"{case.name}:{method}:{count}" in asked.cells:
                    row = measure(case, count, method, asked.repeats)
                    same = (row["model"], row["method"], row["batch"])
                    rows = [r for r in rows if (r["model"], r["method"], r["batch"]) != same] + [row]
                    print(json.dumps(row), flush=True)
                    file.write_text(json.dumps(table(rows), indent=1) + "\n")


if __name__ == "__main__":
    main()
