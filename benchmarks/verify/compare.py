"""Complete verifiers side by side: ours, NeuralSAT 0.2.17 and Marabou 2.0 on 60 instances of all 13 families.

    PEERS/bin/python benchmarks/verify/compare.py [--tools saddlepoint neuralsat marabou] [--limit 60]
                                                     (PEERS: sh benchmarks/verify/peers/install.sh PEERS)

The selection takes the first instance of every family of ../shared/data/vnnlib, then the second of every one, … up to
60. One process for each tool and instance, one thread each, start-up included; the three tools follow one another on
an instance, so that a busy moment of the machine meets all of them. The peers read no .gz: they get files unpacked
before the clock runs. A process that runs beyond its limit by 5 seconds is ended and counts as a timeout. A verdict
that the known answers contradict counts as wrong, never as solved.
PAR-2: mean seconds, twice the limit for what is not solved. A row is a file and is not measured twice.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from instances import DATA, RESULTS, Instance, instances

HERE = Path(__file__).resolve().parent
ROWS = RESULTS / "compare"
TOOLS = ("saddlepoint", "neuralsat", "marabou")
COUNT, GRACE = 60, 5.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def chosen(limit: float) -> list[Instance]:
    """Round robin over the families."""
    families: dict[str, list[Instance]] = {}
    for instance in instances([], None, limit):
        families.setdefault(instance.family, []).append(instance)
    turns = max(len(rows) for rows in families.values())
    return [rows[k] for k in range(turns) for rows in families.values() if k < len(rows)][:COUNT]


def plain(file: Path, folder: Path) -> str:
    """The file itself, or an unpacked copy: the peers read no .gz."""
    if file.suffix != ".gz":
        return str(file)
    copy = folder / file.stem
    copy.write_bytes(gzip.decompress(file.read_bytes()))
    return str(copy)


def command(tool: str, instance: Instance, answer: Path) -> list[str]:
    """How the tool is asked, each by its documented interface."""
    net, spec, seconds = str(DATA / instance.onnx), str(DATA / instance.vnnlib), f"{instance.seconds:g}"
    if tool == "saddlepoint":
        return [sys.executable, "-m", "saddlepoint", "verify", net, spec, "--timeout", seconds, "--threads", "1"]
    net, spec = (plain(DATA / name, answer.parent) for name in (instance.onnx, instance.vnnlib))
    if tool == "marabou":
        return [sys.executable, str(HERE / "peers" / "marabou.py"), net, spec, seconds]
    asked = ["--net", net, "--spec", spec, "--timeout", seconds, "--device", "cpu", "--result_file", str(answer)]
    return [sys.executable, str(HERE / "peers" / "neuralsat.py"), *asked, "--verbosity", "0"]


def word_of(tool: str, out: str, answer: Path) -> str:
    """sat, unsat or whatever else the tool said in its own place for answers."""
    if tool == "neuralsat":
        out = answer.read_text() if answer.exists() else ""
        return (re.match(r"\w+", out) or [""])[0]
    if tool == "marabou":
        return (re.search(r"result: (\w+)", out) or ["", ""])[1]
    return out.strip()


def measure(tool: str, instance: Instance) -> dict[str, Any]:
    """One process."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        asked = command(tool, instance, answer)
        begun = time.perf_counter()
        try:
            done = subprocess.run(
                asked,
                capture_output=True,
                text=True,
                check=False,
                timeout=instance.seconds + GRACE,
                env=os.environ | ONE_THREAD,
                cwd=folder,
            )
            word, code, said = word_of(tool, done.stdout, answer), done.returncode, done.stderr
        except subprocess.TimeoutExpired:
            word, code, said = "timeout", -1, ""
        seconds = time.perf_counter() - begun
    row = {"tool": tool, "family": instance.family, "onnx": instance.onnx, "vnnlib": instance.vnnlib}
    row |= {"limit": instance.seconds, "truth": instance.truth, "word": word, "seconds": round(seconds, 3)}
    return row | {"code": code, "said": "" if word in ("sat", "unsat") else said.strip()[-300:]}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the table says of one tool."""
    solved = [r for r in rows if r["word"] == r["truth"]]
    return {
        "n": len(rows),
        "solved": len(solved),
        "wrong": sum(r["word"] in ("sat", "unsat") for r in rows) - len(solved),
        "par2": round(statistics.fmean(r["seconds"] if r["word"] == r["truth"] else 2 * r["limit"] for r in rows), 3),
        "median_seconds_of_solved": round(statistics.median(r["seconds"] for r in solved), 3) if solved else None,
    }


def beside(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Where both solved an instance: the ratio of times."""
    both = [k for k in ours if k in theirs and all(t[k]["word"] == t[k]["truth"] for t in (ours, theirs))]
    seconds = [[t[k]["seconds"] for k in both] for t in (ours, theirs)]
    medians = [statistics.median(s) if s else None for s in seconds]
    return {
        "both_solved": len(both),
        "median_seconds": medians,
        "ratio_of_medians": round(medians[0] / medians[1], 3) if both else None,
        "median_ratio": round(statistics.median(a / b for a, b in zip(*seconds, strict=True)), 3) if both else None,
        "only_ours": sum(ours[k]["word"] == ours[k]["truth"] != theirs[k]["word"] for k in ours if k in theirs),
        "only_theirs": sum(theirs[k]["word"] == theirs[k]["truth"] != ours[k]["word"] for k in ours if k in theirs),
    }


def main() -> None:
    """Measure what is missing, write the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tools", nargs="+", default=list(TOOLS), choices=TOOLS)
    options.add_argument("--limit", type=float, default=60.0)
    asked = options.parse_args()
    table: dict[str, dict[str, Any]] = {tool: {} for tool in TOOLS}
    for instance in chosen(asked.limit):
        for tool in TOOLS:
            file = ROWS / tool / instance.family / instance.file.name
            if not file.exists() and tool in asked.tools:
                row = measure(tool, instance)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(row, indent=1) + "\n")
                print(
                    tool, f"{instance.family}/{file.stem}", row["word"] or row["said"][-80:], row["seconds"], flush=True
                )
            if file.exists():
                table[tool][f"{instance.family}/{file.stem}"] = json.loads(file.read_text())
    result = {
        "what": f"complete verifiers, {COUNT} instances, one thread and one process each, limit min(own timeout, 60 s)",
        "tools": {tool: summary(list(rows.values())) for tool, rows in table.items() if rows},
        "beside": {tool: beside(table["saddlepoint"], table[tool]) for tool in TOOLS[1:] if table[tool]},
        "versions": {name: version(name) for name in ("neuralsat", "maraboupy", "torch", "onnxruntime")},
    }
    (RESULTS / "compare.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
