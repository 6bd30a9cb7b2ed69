"""`saddlepoint replay`: re-check every witness and proof of a ledger."""

from __future__ import annotations

import json
from pathlib import Path

from saddlepoint.cli.options import ModelOptions, load_again
from saddlepoint.data import load as load_data
from saddlepoint.evaluation.replay import replay as re_check
from saddlepoint.ledger import Ledger
from saddlepoint.ledger.labels import label_of
from saddlepoint.spec import Model, Verdict


def replay(
    ledger: Path,
    *,
    model: str | None = None,
    data: str | None = None,
    options: ModelOptions = ModelOptions(),  # noqa: B008  # frozen
) -> int:
    """Re-check a ledger: set membership, margins in the deployed precision, proofs in float64.

    Exit code 3 if any row is refuted (it never counts again), 4 if some could not be checked, else 0.

    Parameters
    ----------
    ledger: written by `saddlepoint run`
    model: the model, if it lies elsewhere than when the ledger was written
    data: the data, for samples whose input the ledger does not hold
    """
    samples = load_data(data) if data else None
    refuted = unchecked = 0
    with Ledger(ledger, create=False) as book:
        rows = {row.digest: row for row in book.models()}
        loaded: dict[str, Model] = {}

        def model_of(digest: str) -> Model:
            if digest not in loaded:
                loaded[digest] = load_again(rows[digest], model, options)
            return loaded[digest]

        for result in re_check(book, model_of, samples):
            label = label_of(json.loads(result.threat))[0]
            name = rows[result.model].name
            print(
                f"{name}: {label}: {result.holds} rows hold, {result.refuted} refuted, {result.unchecked} not checked, "
                f"n = {result.holds + result.refuted + result.unchecked}"
            )
            for reason, count in result.reasons.most_common():
                print(f"  {count} × {reason}")
            refuted, unchecked = refuted + result.refuted, unchecked + result.unchecked
        contradiction = any(claim.counts[Verdict.CONTRADICTION] for claim in book.claims())
    return 3 if refuted or contradiction else 4 if unchecked else 0
