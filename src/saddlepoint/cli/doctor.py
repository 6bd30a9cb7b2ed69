"""`saddlepoint doctor`: is this evaluation broken?"""

from __future__ import annotations

import json as json_module
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from saddlepoint.cli.files import write
from saddlepoint.cli.options import ModelOptions, load_again
from saddlepoint.cli.whole import whole
from saddlepoint.data import load as load_data
from saddlepoint.evaluation.adapt import cures_of
from saddlepoint.evaluation.cures import cured, draws_of
from saddlepoint.evaluation.doctor import Diagnosis, Effort, diagnose
from saddlepoint.evaluation.versions import versions
from saddlepoint.ledger import Ledger, ModelRow
from saddlepoint.ledger.labels import label_of
from saddlepoint.report.findings import finding_lines
from saddlepoint.spec import Model


def doctor(
    ledger: Path,
    *,
    json: Annotated[Path | None, Parameter(help="write the findings as JSON")] = None,
    model: str | None = None,
    data: str | None = None,
    samples: Annotated[int, Parameter(converter=whole, help="samples to attack again, for each model and threat")] = 32,
    seed: Annotated[int, Parameter(converter=whole, help="of all random numbers")] = 0,
    options: ModelOptions = ModelOptions(),  # noqa: B008  # frozen
) -> int:
    """Is this evaluation broken? Asks the ledger and, on a few of its samples, the model; names the remedies.

    Exit code 1 if a finding fails (the evaluation shows less than it seems to), 4 if something could not be asked,
    else 0; a warning alone is 0. The findings are kept in the ledger and shown in its report.

    Parameters
    ----------
    ledger: written by `saddlepoint run`
    model: the model, if it lies elsewhere than when the ledger was written
    data: the data, for samples whose input the ledger does not hold
    """
    begun = time.time()
    asked = datetime.fromtimestamp(begun, UTC).isoformat(timespec="milliseconds")
    known = load_data(data) if data else None
    told: list[dict[str, Any]] = []
    seen: set[str] = set()
    with Ledger(ledger, create=False) as book:
        rows = {row.digest: row for row in book.models()}
        loaded: dict[str, Model] = {}

        def model_of(digest: str) -> Model:
            if digest not in loaded:
                loaded[digest] = _as_attacked(book, rows[digest], model, options)
            return loaded[digest]

        for diagnosis in diagnose(book, model_of, known, Effort(samples=samples, seed=seed)):
            with book.transaction():
                book.add_findings(diagnosis.model, diagnosis.threat, asked, diagnosis.findings)
            name, label = rows[diagnosis.model].name, label_of(json_module.loads(diagnosis.threat))[0]
            for line in finding_lines(f"{name}: {label}", diagnosis.findings):
                print(line)
            told.append(_told(name, label, diagnosis))
            seen.update(finding.verdict for finding in diagnosis.findings)
    code = 1 if "fail" in seen else 4 if "unknown" in seen or not told else 0
    if json:
        words = {0: "pass", 1: "fail", 4: "unknown"}[code]
        top = {"schema": 1, "verdict": words, "threats": told, "findings": [f for t in told for f in t["findings"]]}
        rest = {"cost": {"seconds": time.time() - begun}, "versions": versions(), "seed": seed}
        write(json, json_module.dumps({**top, **rest}, indent=1, ensure_ascii=False) + "\n")
    return code


def _as_attacked(book: Ledger, row: ModelRow, given: str | None, options: ModelOptions) -> Model:
    """The model as the ledger's latest adapted run differentiated it, or as it is."""
    cures = cures_of(book.runs(), row.spec)
    if draws_of(cures) is not None:  # the cures average; loading must not do it before them
        row = replace(row, options={key: value for key, value in row.options.items() if key != "eot"})
    return cured(load_again(row, given, options), cures)


def _told(name: str, label: str, diagnosis: Diagnosis) -> dict[str, Any]:
    findings = [{"threat": label, **finding.described()} for finding in diagnosis.findings]
    return {"model": name, "digest": diagnosis.model, "threat": label, "findings": findings}
