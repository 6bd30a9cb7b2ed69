"""Minimum-size attacks against the peers' best, at equal budgets, in one process.

    PEERS/bin/python benchmarks/attacks/minimum.py [--budgets 1000 2000] [--table]  (PEERS: benchmarks/peers/install.sh)

Budget: forwards + backwards of one sample. 100 correctly classified MNIST images on the robust LeNet-5 and 30 CIFAR-10
images on the published ResNet-20, in ℓ0, ℓ1, ℓ2, ℓ∞; ours is Relay, one attack with its defaults. The peers are those
of AttackBench's ranking that did best in each norm at first, with half the budget as their steps. A module around
the network counts for every peer alike: the forwards and backwards of each row, the smallest point inside the data box
with another label (argmax on the network's own logits; sizes in float64), and an end when the budget is spent. What a
peer returns is not read: every point counts that was shown to the network.

Floor: median size ≤ 1.01 × the best peer's in every norm, on both networks, at both budgets; goal < 1.
A row (network, norm, budget, attack) is a file under benchmarks/results/attacks/minimum/; rows that exist are kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from reference import LENET5, RESNET20, RESULTS, ROOT, Reference, machine
from torch import Tensor, nn

sys.path.insert(0, str(ROOT / "benchmarks" / "peers"))
import stubs

from saddlepoint.attack import EngineSettings, Relay, Rows, run
from saddlepoint.evaluation.versions import versions
from saddlepoint.geometry import L0, L1, L2, Linf, PerturbationSet
from saddlepoint.spec import Access, Model

ROWS, TABLE = RESULTS / "attacks" / "minimum", RESULTS / "attacks" / "minimum.json"
COUNT = {LENET5.name: 100, RESNET20.name: 30}
NORMS: dict[str, PerturbationSet] = {"l0": L0(1), "l1": L1(1), "l2": L2(1), "linf": Linf(1)}
ORDER = {"l0": 0.0, "l1": 1.0, "l2": 2.0, "linf": float("inf")}
PEERS = {
    "l0": ("sigma-zero", "fmn"),
    "l1": ("pdpgd", "minimal-apgd"),
    "l2": ("ddn", "pdgd", "minimal-apgd"),
    "linf": ("pdpgd", "minimal-apgd"),
}
SEARCHES = 20  # bisection steps of minimal-apgd


class Spent(Exception):
    """Every row has used its budget."""


class Counted(nn.Module):
    """The network, counting per image; rows of a smaller batch are told apart by the nearest original."""

    def __init__(self, net: nn.Module, x: Tensor, y: Tensor, order: float, budget: int) -> None:
        super().__init__()
        self.net, self.order, self.budget = net, order, budget
        self.x, self.y = x, y
        self.used = torch.zeros(len(x), dtype=torch.int64)
        self.best = torch.full((len(x),), torch.inf, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        if bool((self.used >= self.budget).all()):
            raise Spent
        owner = self._owner(x)
        live = (self.used[owner] < self.budget).nonzero()[:, 0]
        mine = owner[live]
        self.used.index_add_(0, mine, torch.ones_like(mine))
        z = self.net(x if len(live) == len(x) else x[live])
        self._note(x.detach()[live], z.detach(), mine)
        if z.requires_grad:
            z.register_hook(lambda _: self._went_back(mine))
        if len(live) == len(x):
            return z
        # the others are told that their own class wins, and get no gradient
        quiet = nn.functional.one_hot(self.y[owner], z.shape[1]).to(z) + 0 * x.flatten(1).sum(1, keepdim=True)
        return quiet.index_copy(0, live, z)

    def _went_back(self, rows: Tensor) -> None:
        self.used.index_add_(0, rows, torch.ones_like(rows))

    def _owner(self, x: Tensor) -> Tensor:
        if len(x) == len(self.x):
            return torch.arange(len(x))
        return torch.cdist(x.detach().flatten(1).double(), self.x.flatten(1).double()).argmin(1)

    def _note(self, x: Tensor, z: Tensor, owner: Tensor) -> None:
        inside = ((x >= 0) & (x <= 1)).flatten(1).all(1)
        size = length(x, self.x[owner], self.order)
        size = torch.where(inside & (z.argmax(1) != self.y[owner]), size, torch.inf)
        self.best.scatter_reduce_(0, owner, size, "amin")


def length(x: Tensor, x0: Tensor, order: float) -> Tensor:
    """‖x − x0‖, float64."""
    d = (x.double() - x0.double()).flatten(1)
    return (d != 0).sum(1).double() if order == 0 else torch.linalg.vector_norm(d, order, dim=1)


def peer(name: str, order: float, budget: int) -> Callable[[nn.Module, Tensor, Tensor], Any]:
    """A peer's attack, a forward and a backward for each of its steps."""
    stubs.install()
    import adv_lib.attacks as lib
    from adv_lib.attacks.auto_pgd import minimal_apgd

    steps = budget // 2
    most = {1.0: 100.0, 2.0: 10.0, torch.inf: 1.0}.get(order)
    return {
        "fmn": lambda m, x, y: lib.fmn(m, x, y, norm=order, steps=steps),
        "sigma-zero": lambda m, x, y: lib.sigma_zero(m, x, y, num_steps=steps),
        "pdpgd": lambda m, x, y: lib.pdpgd(m, x, y, norm=order, num_steps=steps),
        "pdgd": lambda m, x, y: lib.pdgd(m, x, y, num_steps=steps),
        "ddn": lambda m, x, y: lib.ddn(m, x, y, steps=steps, levels=None),
        "minimal-apgd": lambda m, x, y: minimal_apgd(
            m, x, y, norm=order, max_eps=most, binary_search_steps=SEARCHES, n_iter=steps // SEARCHES,
            use_large_reps=order == 1,
        ),
    }[name]  # fmt: skip


def right(reference: Reference) -> tuple[Model, Tensor, Tensor, tuple[str, ...]]:
    """The model, and the first test images that it gets right."""
    model, count = reference.model(), COUNT[reference.name]
    x, y, ids = reference.samples(2 * count)
    with torch.no_grad():
        index = (model(x).argmax(1) == y).nonzero()[:count, 0]
    return model, x[index].contiguous(), y[index], tuple(ids[i] for i in index.tolist())


def flat(model: Model, shape: tuple[int, ...]) -> Model:
    """The same model on inputs without axes."""
    size = int(torch.Size(shape).numel())
    return Model(lambda v: model(v.reshape(-1, *shape)), model.domain, model.classes, Access.GRADIENT, "flat", (size,))


def measure(reference: Reference, norm: str, budget: int, attack: str) -> dict[str, Any]:
    """One row."""
    model, x, y, ids = right(reference)
    began = time.perf_counter()
    if attack == "relay":
        # one forward at x0 that the engine asks for, `steps` + 1 and as many backwards of the attack's own
        settings = EngineSettings(batch=len(x), smallest=True)
        if norm == "l0":  # the peers count coordinates; of an image, our l0 counts pixels
            model, x = flat(model, tuple(x.shape[1:])), x.flatten(1)
        found = run(model, Relay(steps=(budget - 2) // 2), Rows(x, y, ids, NORMS[norm]), settings)
        best, used = found.size, found.forwards + found.backwards
    else:
        net = model.fn.module  # pyright: ignore[reportFunctionMemberAccess]  # a module that peers can call
        counted = Counted(net, x, y, ORDER[norm], budget)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            with contextlib.suppress(Spent):
                peer(attack, ORDER[norm], budget)(counted, x, y)
        best, used = counted.best, counted.used
    quartiles = best.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=best.dtype)).tolist()
    return {
        "model": reference.name,
        "norm": norm,
        "budget": budget,
        "attack": attack,
        "samples": len(x),
        "median": quartiles[1],
        "quartiles": [quartiles[0], quartiles[2]],
        "unbroken": int(best.isinf().sum()),
        "most_used": int(used.max()),
        "seconds": round(time.perf_counter() - began, 1),
        "versions": {**versions(), **stubs.versions()},
        "machine": machine(),
    }


def path_of(reference: Reference, norm: str, budget: int, attack: str) -> Path:
    return ROWS / f"{reference.name}--{norm}--{budget}--{attack}.json"


def table(budgets: list[int]) -> bool:
    """The table from the rows that are there; whether the floor holds."""
    rows = []
    for reference, norm, budget in product((LENET5, RESNET20), NORMS, budgets):
        paths = {a: path_of(reference, norm, budget, a) for a in (*PEERS[norm], "relay")}
        if not all(p.exists() for p in paths.values()):
            continue
        medians = {a: json.loads(p.read_text())["median"] for a, p in paths.items()}
        ours, best = medians.pop("relay"), min(medians, key=medians.__getitem__)
        ratio = ours / medians[best]
        rows.append(
            {"model": reference.name, "norm": norm, "budget": budget, "relay": ours, "peers": medians}
            | {"best_peer": best, "ratio": round(ratio, 4), "holds": ratio <= 1.01, "goal": ratio < 1}
        )
    holds = all(r["holds"] for r in rows)
    found = {"what": "median smallest size, Relay and the peers", "holds": holds, "rows": rows}
    TABLE.write_text(json.dumps(found, indent=1) + "\n")
    for r in rows:
        print(f"{r['model']:28} {r['norm']:5} {r['budget']:5} {r['relay']:.5f} / {r['best_peer']} = {r['ratio']}")
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", type=int, nargs="+", default=[1000, 2000])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="make the table from the rows that are there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ROWS.mkdir(parents=True, exist_ok=True)
    if not arguments.table:
        for reference, norm, budget in product((LENET5, RESNET20), NORMS, arguments.budgets):
            for attack in ("relay", *PEERS[norm]):
                path = path_of(reference, norm, budget, attack)
                if not path.exists():
                    row = measure(reference, norm, budget, attack)
                    path.write_text(json.dumps(row, indent=1) + "\n")
                    print(path.name, round(row["median"], 5), row["seconds"], "s", flush=True)
    return 0 if table(arguments.budgets) else 1


if __name__ == "__main__":
    sys.exit(main())
