"""The plan `strong` against `autoattack`, attacks only, on every robust reference model at its own size.

    python benchmarks/attacks/strong.py [--n 1000 --seeds 0 | --n 200 --seeds 0 1 2] [--models NAME …] [--threads 2]

Both plans run on the same engine with the same settings, one after the other in one process. A row (model, n, seed,
plan) is a file under benchmarks/results/attacks/strong/; rows that exist are not run again, so the bench can be stopped
at any time. The tables that are made from the rows afterwards (`--table` makes them alone):

    strong.json       per model: broken, seconds, forwards + 2 × backwards of both plans, their ratios, yields per
                      stage, the robust accuracy with its 95 % interval beside the published one
    early_stops.json  per cut-off `near` of `strong`: how many samples it left out, how many of these AutoAttack breaks,
                      and how many of these `strong` never breaks

Must hold (floors): on each model broken ≥ AutoAttack's − 1 and wall time ≤ 1/5; in sum broken ≥ and wall time ≤ 1/10.
Goals: broken ≥ on each; wall time ≤ 1/20 in total; forwards + 2 × backwards ≤ 1/10.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from reference import RESULTS, ROBUST, Reference, machine

from saddlepoint.attack import EngineSettings, Rows
from saddlepoint.attack.cascade import Cascade, Step, cascade, worth
from saddlepoint.attack.protocol import Attack
from saddlepoint.check.counts import clopper_pearson
from saddlepoint.evaluation import plan_named
from saddlepoint.evaluation.versions import versions
from saddlepoint.geometry import Linf
from saddlepoint.spec import Threat

PLANS = ("autoattack", "strong")
ROWS, TABLES = RESULTS / "attacks" / "strong", RESULTS / "attacks"
BATCH = 256
PUBLISHED = {  # (accuracy under attack, first n test images, who says so)
    "mnist_cnn_a_adv_eps0.3": (0.765, 200, "beta-CROWN paper, PGD"),
    "mnist_wk17_certified_eps0.1": (0.959, 10_000, "README of convex_adversarial, PGD"),
    "cifar10_cnn_a_adv_2_255": (0.500, 200, "beta-CROWN paper, PGD"),
    "cifar10_resnet2b_adv_2_255": (0.5482, 10_000, "README of the VNN-COMP benchmark, PGD"),
}


def steps_of(plan: str, threat: Threat) -> list[Step]:
    """The attacks of a plan, with their cut-offs."""
    stages = plan_named(plan).stages(threat)
    return [Step(s.config, s.near) for s in stages if isinstance(s.config, Attack)]


def measure(reference: Reference, n: int, seed: int, plan: str) -> dict[str, Any]:
    """One row."""
    model, (x, y, ids) = reference.model(), reference.samples(n)
    threat = Threat(Linf(reference.size))
    steps = steps_of(plan, threat)
    rows = Rows(x, y, ids, threat.set)
    warm = Rows(x[:BATCH], y[:BATCH], ids[:BATCH], threat.set)
    cascade(model, steps_of("strong", threat)[:2], warm, EngineSettings(batch=BATCH, seed=99))  # kernels, stand-ins
    began = time.perf_counter()
    found = cascade(model, steps, rows, EngineSettings(batch=BATCH, seed=seed))
    seconds = time.perf_counter() - began
    return {
        "model": reference.name,
        "size": reference.size,
        "n": n,
        "seed": seed,
        "plan": plan,
        "seconds": round(seconds, 2),
        "broken": int((found.success & (found.clean_margin > 0)).sum()),
        "misclassified": int((found.clean_margin <= 0).sum()),
        "forwards": sum(s.forwards for s in found.stages),
        "backwards": sum(s.backwards for s in found.stages),
        "errors": len(found.errors),
        "stages": [
            {"method": s.name, "near": step.near, "asked": s.asked, "broken": s.broken, "forwards": s.forwards}
            | {"backwards": s.backwards, "seconds": round(s.seconds, 2), "parameters": step.attack.method().parameters}
            for s, step in zip(found.stages, steps, strict=True)
        ],
        "fell": "".join("1" if fell else "0" for fell in found.success.tolist()),
        "left_out": left_out(found, steps),
        "versions": versions(),
        "machine": machine(),
    }


def left_out(found: Cascade, steps: list[Step]) -> list[list[int]]:
    """Per stage, the samples that stood before it and that its cut-off left out."""
    chosen = []
    for before, step in zip(found.before, steps, strict=True):
        out = (before > 0) & ~worth(found.clean_margin, before, step.near)
        chosen.append(out.nonzero()[:, 0].tolist() if step.near is not None else [])
    return chosen


def path_of(name: str, n: int, seed: int, plan: str) -> Path:
    return ROWS / f"{name}--n{n}--seed{seed}--{plan}.json"


def tables() -> bool:
    """Both tables from the rows that are there; whether the floors hold."""
    rows = [json.loads(p.read_text()) for p in sorted(ROWS.glob("*.json"))]
    by = {(r["model"], r["n"], r["seed"], r["plan"]): r for r in rows}
    pairs = [(by[*key, "autoattack"], by[*key, "strong"]) for key in sorted({k[:3] for k in by}) if both(by, key)]
    compared = [compare(aa, ours) for aa, ours in pairs]
    sums = [summed([c for c in compared if c["n"] == n]) for n in sorted({c["n"] for c in compared})]
    holds = all(c["holds"] for c in compared) and all(s["holds"] for s in sums)
    write("strong.json", {"what": __doc__.splitlines()[0], "holds": holds, "sums": sums, "rows": compared})  # pyright: ignore[reportOptionalMemberAccess]
    write("early_stops.json", {"what": "samples that a cut-off of `strong` left out", "stages": missed(pairs)})
    for s in sums:
        print(json.dumps(s))
    return holds


def both(by: dict[Any, Any], key: tuple[Any, ...]) -> bool:
    return all((*key, plan) in by for plan in PLANS)


def compare(aa: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """One model, n and seed: both plans side by side."""
    n, stands = ours["n"], ours["fell"].count("0")
    low, high = clopper_pearson(stands, n)
    row = {
        **{key: ours[key] for key in ("model", "size", "n", "seed", "misclassified")},
        "broken": {"autoattack": aa["broken"], "strong": ours["broken"]},
        "seconds": {"autoattack": aa["seconds"], "strong": ours["seconds"]},
        "seconds_ratio": round(ours["seconds"] / aa["seconds"], 4),
        "passes": {"autoattack": passes(aa), "strong": passes(ours)},
        "passes_ratio": round(passes(ours) / passes(aa), 4),
        "only_autoattack": sum(a == "1" and b == "0" for a, b in zip(aa["fell"], ours["fell"], strict=True)),
        "only_strong": sum(a == "0" and b == "1" for a, b in zip(aa["fell"], ours["fell"], strict=True)),
        "robust_accuracy": {"strong": stands / n, "ci95": [round(low, 4), round(high, 4)]},
        "holds": ours["broken"] >= aa["broken"] - 1 and ours["seconds"] <= aa["seconds"] / 5,
        "stages": {"autoattack": brief(aa), "strong": brief(ours)},
    }
    if ours["model"] in PUBLISHED and n >= 1000:
        row["published"] = published(ours)
    return row


def published(ours: dict[str, Any]) -> dict[str, Any]:
    """Our accuracy on the published images (or the first 1,000) with its interval, beside the published one."""
    value, count, source = PUBLISHED[ours["model"]]
    images = min(count, ours["n"])
    stands = ours["fell"][:images].count("0")
    low, high = clopper_pearson(stands, images)
    return {
        "published": value,
        "source": source,
        "images": images,
        "ours": stands / images,
        "ci95": [round(low, 4), round(high, 4)],
        "within": low <= value <= high or stands / images <= value,
        "beaten": stands / images < value,
    }


def passes(row: dict[str, Any]) -> int:
    return row["forwards"] + 2 * row["backwards"]


def brief(row: dict[str, Any]) -> list[list[Any]]:
    return [
        [s["method"], s["near"], s["asked"], s["broken"], s["forwards"], s["backwards"], s["seconds"]]
        for s in row["stages"]
    ]


def summed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """All models and seeds of one n."""
    total = {
        what: {plan: round(sum(r[what][plan] for r in rows), 2) for plan in PLANS}
        for what in ("broken", "seconds", "passes")
    }
    seconds = total["seconds"]["strong"] / total["seconds"]["autoattack"]
    return {
        "n": rows[0]["n"],
        "models": len({r["model"] for r in rows}),
        "seeds": len({r["seed"] for r in rows}),
        **total,
        "seconds_ratio": round(seconds, 4),
        "passes_ratio": round(total["passes"]["strong"] / total["passes"]["autoattack"], 4),
        "weakest": min(r["broken"]["strong"] - r["broken"]["autoattack"] for r in rows),
        "slowest_ratio": max(r["seconds_ratio"] for r in rows),
        "holds": total["broken"]["strong"] >= total["broken"]["autoattack"] and seconds <= 1 / 10,
    }


def missed(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    """Per stage of `strong` with a cut-off: left out, of these broken by AutoAttack, of these never broken by us."""
    table: dict[int, dict[str, Any]] = {}
    for aa, ours in pairs:
        for number, (stage, out) in enumerate(zip(ours["stages"], ours["left_out"], strict=True)):
            if stage["near"] is None:
                continue
            row = table.setdefault(
                number, {"method": stage["method"], "near": stage["near"], "asked": 0, "left_out": 0}
            )
            row["asked"] += stage["asked"]
            row["left_out"] += len(out)
            row["autoattack_breaks"] = row.get("autoattack_breaks", 0) + sum(aa["fell"][i] == "1" for i in out)
            lost = sum(aa["fell"][i] == "1" and ours["fell"][i] == "0" for i in out)
            row["missed"] = row.get("missed", 0) + lost
    return [table[number] for number in sorted(table)]


def write(name: str, content: dict[str, Any]) -> None:
    TABLES.mkdir(parents=True, exist_ok=True)
    (TABLES / name).write_text(json.dumps(content, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", default=[r.name for r in ROBUST])
    parser.add_argument("--plans", nargs="+", default=list(PLANS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="make the tables from the rows that are there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ROWS.mkdir(parents=True, exist_ok=True)
    wanted = [r for r in ROBUST if r.name in arguments.models and not arguments.table]
    for reference in wanted:
        for seed in arguments.seeds:
            for plan in arguments.plans:
                path = path_of(reference.name, arguments.n, seed, plan)
                if path.exists():
                    continue
                row = measure(reference, arguments.n, seed, plan)
                path.write_text(json.dumps(row) + "\n")
                print(
                    row["model"],
                    plan,
                    f"n={row['n']} seed={seed} broken={row['broken']} {row['seconds']} s",
                    flush=True,
                )
    return 0 if tables() else 1


if __name__ == "__main__":
    sys.exit(main())
