"""All 279 instances of ../shared/data/vnnlib by `saddlepoint verify`, one process each.

    python benchmarks/verify/instances.py [--families acasxu …] [--n N] [--limit 60] [--threads 2] [--again]

Every instance gets min(its own timeout, --limit) seconds, start-up included. A row is a file and is not measured twice;
rows of another commit are kept and counted as stale, `--again` measures them anew. The table per family:

    solved     sat or unsat, and the same as the known answer
    wrong      sat or unsat, and the other one (one is a bug)
    PAR-2      mean seconds, with twice the limit for what is not solved
    median     wall seconds of the solved ones, beside 2 × (python -c "import torch") + 0.5 s and 1.3 × … + 0.3 s
    check      of the unsat ones: whole time over the time without the check of the certificate, median
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "vnnlib"
RESULTS = ROOT / "benchmarks" / "results" / "verify"
ROWS = RESULTS / "instances"
SLACK = 1.0  # seconds that a process may take beyond its limit


@dataclass(frozen=True)
class Instance:
    """A row of instances.csv."""

    family: str
    onnx: str
    vnnlib: str
    seconds: float
    truth: str

    @property
    def file(self) -> Path:
        """Where its row is kept."""
        name = f"{Path(self.onnx).name.split('.onnx')[0]}--{Path(self.vnnlib).name.split('.vnnlib')[0]}"
        return ROWS / self.family / f"{name}.json"


def instances(families: list[str], n: int | None, limit: float) -> list[Instance]:
    """The instances of some families (all: none named), the first n of each."""
    found: dict[str, list[Instance]] = {}
    with (DATA / "instances.csv").open() as file:
        for row in csv.DictReader(file):
            seconds = min(float(row["timeout_s"]), limit)
            instance = Instance(row["benchmark"], row["onnx"], row["vnnlib"], seconds, row["verdict_consensus"])
            found.setdefault(instance.family, []).append(instance)
    unknown = set(families) - set(found)
    if unknown:
        raise SystemExit(f"no family is named {', '.join(sorted(unknown))}; there are {', '.join(found)}")
    return [i for family, rows in found.items() if not families or family in families for i in rows[:n]]


def measure(instance: Instance, threads: int, commit: str) -> dict[str, Any]:
    """One process: word, wall seconds, reason and the stages it names."""
    command = [sys.executable, "-m", "saddlepoint", "verify", str(DATA / instance.onnx), str(DATA / instance.vnnlib)]
    command += ["--timeout", f"{instance.seconds:g}", "--threads", str(threads)]
    begun = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=instance.seconds + 30)
        word, reason, code = done.stdout.strip(), done.stderr.strip(), done.returncode
    except subprocess.TimeoutExpired:
        word, reason, code = "overrun", "the process did not end by itself", -1
    seconds = time.perf_counter() - begun
    stages = {name: float(value) for name, value in re.findall(r"(\w+) (\d+\.\d+) s", reason)}
    return {
        "family": instance.family,
        "onnx": instance.onnx,
        "vnnlib": instance.vnnlib,
        "limit": instance.seconds,
        "truth": instance.truth,
        "word": word,
        "code": code,
        "seconds": round(seconds, 3),
        "stages": stages,
        "reason": reason[-400:],
        "threads": threads,
        "commit": commit,
    }


def importing_torch(repeats: int = 5) -> float:
    """Median wall seconds of `python -c "import torch"`."""
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the table says of some rows."""
    solved = [r for r in rows if r["word"] == r["truth"]]
    decided = [r for r in rows if r["word"] in ("sat", "unsat")]
    unsat = [r for r in solved if r["word"] == "unsat" and "check" in r["stages"]]
    shares = [r["seconds"] / (r["seconds"] - r["stages"]["check"]) for r in unsat]
    par2 = [r["seconds"] if r["word"] == r["truth"] else 2 * r["limit"] for r in rows]
    return {
        "n": len(rows),
        "solved": len(solved),
        "share": round(len(solved) / len(rows), 4),
        "wrong": len(decided) - len(solved),
        "par2": round(statistics.fmean(par2), 3),
        "median_seconds": round(statistics.median(r["seconds"] for r in solved), 3) if solved else None,
        "check_share_median": round(statistics.median(shares), 3) if shares else None,
        "check_share_most": round(max(shares), 3) if shares else None,
        "overruns": sum(r["seconds"] > r["limit"] + SLACK for r in rows),
        "words": {word: sum(r["word"] == word for r in rows) for word in sorted({r["word"] for r in rows})},
    }


def table(rows: list[dict[str, Any]], torch_seconds: float, commit: str) -> dict[str, Any]:
    """The whole result."""
    families = sorted({r["family"] for r in rows})
    return {
        "what": "saddlepoint verify, one process per instance, limit min(own timeout, 60 s)",
        "commit": commit,
        "stale_rows": sum(r["commit"] != commit for r in rows),
        "cores": os.cpu_count(),
        "import_torch_seconds": round(torch_seconds, 3),
        "floor_median_seconds": round(2 * torch_seconds + 0.5, 3),
        "goal_median_seconds": round(1.3 * torch_seconds + 0.3, 3),
        "all": summary(rows),
        "families": {f: summary([r for r in rows if r["family"] == f]) for f in families},
        "wrong": [r["file"] for r in rows if r["word"] in ("sat", "unsat") and r["word"] != r["truth"]],
        "open": [r["file"] for r in rows if r["word"] != r["truth"]],
    }


def shown(result: dict[str, Any]) -> str:
    """The table as text."""
    lines = [f"{'family':<18}{'n':>5}{'solved':>8}{'wrong':>7}{'PAR-2':>9}{'median':>9}{'check':>7}"]
    for name, s in [*result["families"].items(), ("all", result["all"])]:
        median, check = (f"{s[k]:.2f}" if s[k] is not None else "-" for k in ("median_seconds", "check_share_median"))
        lines.append(f"{name:<18}{s['n']:>5}{s['solved']:>8}{s['wrong']:>7}{s['par2']:>9.2f}{median:>9}{check:>7}")
    goal, floor = result["goal_median_seconds"], result["floor_median_seconds"]
    lines.append(f"import torch {result['import_torch_seconds']:.2f} s; median goal {goal:.2f} s, floor {floor:.2f} s")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, write the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--families", nargs="*", default=[])
    options.add_argument("--n", type=int, help="the first n of every family")
    options.add_argument("--limit", type=float, default=60.0)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--again", action="store_true", help="measure rows of other commits anew")
    asked = options.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    head = commit.stdout.strip() or "unknown"
    wanted = instances(asked.families, asked.n, asked.limit)
    for k, instance in enumerate(wanted, start=1):
        known = json.loads(instance.file.read_text()) if instance.file.exists() else None
        if known is not None and known["limit"] == instance.seconds and (known["commit"] == head or not asked.again):
            continue
        row = measure(instance, asked.threads, head)
        instance.file.parent.mkdir(parents=True, exist_ok=True)
        instance.file.write_text(json.dumps(row, indent=1) + "\n")
        mark = "" if row["word"] == row["truth"] else f"   (known: {row['truth']})"
        name = f"{instance.family}/{instance.file.stem}"
        print(f"{k}/{len(wanted)} {name} {row['word']} {row['seconds']:.2f} s{mark}", flush=True)
    rows = [
        {**json.loads(file.read_text()), "file": f"{file.parent.name}/{file.stem}"}
        for file in sorted(ROWS.glob("*/*.json"))
    ]
    result = table(rows, importing_torch(), head)
    (RESULTS / "instances.json").write_text(json.dumps(result, indent=1) + "\n")
    print(shown(result))


if __name__ == "__main__":
    main()
