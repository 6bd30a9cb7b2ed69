"""Do the numbers depend on how a run is carried out? Batch 1, 7, 128; one and two workers; resumed.

    python benchmarks/attacks/invariance.py [--n 500]

The same attacks (PGD-10, Auto-PGD on two losses, Square) on two robust reference models, through `evaluation.run`. By
default, verdicts that differ from the first run's (batch 128, one worker) are counted; under `--deterministic` what the
ledger holds is compared bit by bit: every row's value, witness and cost in passes. "Resumed" is stopped in its middle
and run again. Floors: bitwise equal under --deterministic; otherwise at most 0.2 % of the verdicts differ.
Writes benchmarks/results/attacks/invariance.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reference import RESULTS, ROBUST, Reference, machine

from saddlepoint.attack import APGD, PGD, APGDTargeted, Square
from saddlepoint.data import load as load_data
from saddlepoint.evaluation import Plan, Request, Work, run
from saddlepoint.evaluation.versions import versions
from saddlepoint.geometry import Linf
from saddlepoint.ledger import Ledger
from saddlepoint.spec import Model, Threat

ATTACKS = [PGD(steps=10), APGD(steps=20), APGDTargeted(steps=20, count=3), Square(queries=100)]
WAYS: dict[str, dict[str, Any]] = {
    "batch 128": {},
    "batch 7": {"batch": 7},
    "batch 1": {"batch": 1},
    "two workers": {"workers": 2},
    "resumed": {"resumed": True},
}


@dataclass(frozen=True)
class Source:
    """Loads the model in a worker."""

    reference: Reference

    def __call__(self) -> Model:
        return self.reference.model()


class Stop(Exception):
    """Raised by the watcher of the run that is to be resumed."""


def carry_out(request: Request, path: Path, resumed: bool) -> dict[str, Any]:
    """Verdicts and rows of one way."""
    seen: list[int] = []

    def watch(progress: object) -> None:
        seen.append(1)
        if resumed and len(seen) == 12:
            raise Stop

    with Ledger(path) as book:
        try:
            run(request, book, watch)
        except Stop:
            run(request, book)
        claim = book.claims()[0]
        rows = {
            f"{s.subject.content} {s.method.name}": [
                repr(s.value),
                s.proof and blob(book, s),
                s.cost.forwards,
                s.cost.backwards,
            ]
            for s in book.evidence(*book.threats()[0])
        }
    return {"verdicts": {s.id: s.verdict.value for s in claim.samples}, "rows": rows}


def blob(book: Ledger, row: Any) -> str:
    """The witness's own bytes: the blob's name depends on who shares it."""
    return book.blob(row.proof)["witness"][row.row].numpy().tobytes().hex()


def measure(reference: Reference, n: int, deterministic: bool) -> dict[str, Any]:
    """All ways on one model, against the first."""
    model = reference.model()
    base = Request(
        model,
        load_data(reference.data),
        (Threat(Linf(reference.size)),),
        Plan("invariance", lambda threat: list(ATTACKS)),
        n=n,
        work=Work(deterministic=deterministic),
        source=Source(reference),
    )
    found: dict[str, Any] = {}
    table: dict[str, Any] = {}
    for way, how in WAYS.items():
        request = replace(base, workers=how.get("workers", 1), work=replace(base.work, batch=how.get("batch", 128)))
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found[way] = carry_out(request, Path(folder) / "run.ledger", "resumed" in how)
        first = found["batch 128"]
        pairs = [(first["verdicts"][i], v) for i, v in found[way]["verdicts"].items()]
        table[way] = {
            "seconds": round(time.perf_counter() - began, 1),
            "verdicts_that_differ": sum(a != b for a, b in pairs),
            "broken": sum(v == "BROKEN" for _, v in pairs),
            "bitwise_equal": found[way]["rows"] == first["rows"],
        }
    holds = all(
        row["bitwise_equal"] if deterministic else row["verdicts_that_differ"] <= 0.002 * n for row in table.values()
    )
    return {"model": reference.name, "size": reference.size, "n": n, "deterministic": deterministic, "holds": holds} | {
        "ways": table
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--deterministic-n", type=int, default=100)
    arguments = parser.parse_args()
    references = (ROBUST[1], ROBUST[5])
    tables = [measure(r, arguments.n, False) for r in references]
    tables += [measure(r, arguments.deterministic_n, True) for r in references]
    result = {
        "what": "how verdicts depend on batch, workers and resuming",
        "holds": all(t["holds"] for t in tables),
        "tables": tables,
        "versions": versions(),
        "machine": machine(),
    }
    (RESULTS / "attacks").mkdir(parents=True, exist_ok=True)
    (RESULTS / "attacks" / "invariance.json").write_text(json.dumps(result, indent=1) + "\n")
    for table in tables:
        print(json.dumps(table))
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
