"""`saddlepoint replay`: re-check every witness and proof of a ledger, or a certificate of `verify`."""

from __future__ import annotations

import json
from pathlib import Path

from saddlepoint.check.certificate import Ruling, judge
from saddlepoint.cli.options import ModelOptions, load_again
from saddlepoint.core.errors import InputError
from saddlepoint.data import load as load_data
from saddlepoint.evaluation.replay import replay as re_check
from saddlepoint.ledger import Ledger
from saddlepoint.ledger.labels import label_of
from saddlepoint.spec import Model, Verdict
from saddlepoint.spec.certificate import Certificate
from saddlepoint.spec.certificate import load as load_certificates
from saddlepoint.spec.query import Query

_SQLITE = b"SQLite format 3"


def replay(
    ledger: Path,
    *,
    model: str | None = None,
    data: str | None = None,
    options: ModelOptions = ModelOptions(),  # noqa: B008  # frozen
) -> int:
    """Re-check a ledger (set membership, margins in the deployed precision, proofs in float64), or a certificate.

    Exit code 3 if any row is refuted (it never counts again), 4 if some could not be checked, else 0. A certificate
    that is not accepted gives 4: it shows nothing, which does not make the property false.

    Parameters
    ----------
    ledger: written by `saddlepoint run`, or the file of `saddlepoint verify --proof`
    model: the model, if it lies elsewhere than when the ledger was written; of a certificate, its network (.onnx)
    data: the data, for samples whose input the ledger does not hold; of a certificate, the property (.vnnlib) it is for
    """
    if ledger.is_file() and ledger.read_bytes()[: len(_SQLITE)] != _SQLITE:
        return _certificates(ledger, model, data)
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


def _certificates(path: Path, model: str | None, data: str | None) -> int:
    """Judge every certificate of a file, with nothing of the search that found it."""
    from saddlepoint.graph.onnx_reader import read_onnx

    certificates, digest = load_certificates(path)
    if model is None:
        raise InputError(f"{path} is a certificate, which does not hold its network.", "Pass --model NET.onnx.")
    graph = read_onnx(model)
    if graph.digest != digest:
        print(f"not accepted: the certificate is of another network than {model}.")
        return 4
    queries = _queries(certificates, data)
    if len(queries) != len(certificates):
        print(f"not accepted: {data} asks {len(queries)} boxes, the certificate covers {len(certificates)}.")
        return 4
    rulings = [judge(graph, q, c) for q, c in zip(queries, certificates, strict=True)]
    for k, ruling in enumerate(rulings):
        print(f"box {k}: {_told(ruling)}")
    whose = f"that {data} asks for" if data else "that the certificate states"
    print(f"the real-valued network, on the boxes {whose}: {sum(r.accepted for r in rulings)} of {len(rulings)} hold.")
    return 0 if all(r.accepted for r in rulings) else 4


def _queries(certificates: tuple[Certificate, ...], data: str | None) -> tuple[Query, ...]:
    if data is None:
        return tuple(Query(c.lower, c.upper, c.property) for c in certificates)
    from saddlepoint.adapters.vnnlib import read_vnnlib

    return tuple(read_vnnlib(data).queries)


def _told(ruling: Ruling) -> str:
    if ruling.accepted:
        return f"accepted, {ruling.leaves} leaves, the smallest margin {ruling.lowest:.3g}"
    return f"not accepted: {ruling.reason}"
