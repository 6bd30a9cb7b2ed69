"""Reading: rows back into nouns, and the fold of a whole claim."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from saddlepoint.ledger.claims import (
    Claim,
    Exhibit,
    Header,
    MethodRow,
    ModelRow,
    RunRow,
    SampleResult,
    claim,
    decides,
)
from saddlepoint.ledger.labels import label_of
from saddlepoint.spec.bracket import CLEAN, Bracket, Verdict, fold
from saddlepoint.spec.evidence import Cost, Evidence, Method, Subject

_COLUMNS = (
    "quantity, side, value, model, sample, label, content, threat, method, version, parameters, seed,"
    " proof, row, failure_probability, arithmetic, status, forwards, backwards, queries, seconds, details"
)


def models(db: sqlite3.Connection) -> list[ModelRow]:
    """All models, by name."""
    found = []
    for (text,) in db.execute("SELECT json FROM models"):
        row = json.loads(text)
        names = row["class_names"]
        tuples = {"shape": tuple(row["shape"]), "notes": tuple(row["notes"])}
        found.append(ModelRow(**{**row, **tuples, "class_names": tuple(names) if names else None}))
    return sorted(found, key=lambda row: (row.name, row.digest))


def pairs(db: sqlite3.Connection) -> list[tuple[str, str]]:
    """(model digest, canonical threat), in the order in which they were first asked for."""
    return db.execute("SELECT model, threat FROM asked GROUP BY model, threat ORDER BY min(rowid)").fetchall()


def evidence(db: sqlite3.Connection, model: str, threat: str, contents: Sequence[str] | None = None) -> list[Evidence]:
    """Rows about a model under a threat, ordered by sample and key."""
    sql = f"SELECT {_COLUMNS} FROM evidence WHERE model=? AND threat=?"
    if contents is None:
        return [_row(r) for r in db.execute(sql + " ORDER BY content, key", (model, threat))]
    chosen = json.dumps(list(contents))
    sql += " AND content IN (SELECT value FROM json_each(?)) ORDER BY content, key"
    return [_row(r) for r in db.execute(sql, (model, threat, chosen))]


def done(db: sqlite3.Connection, model: str, threat: str, method: Method) -> set[str]:
    """Content digests of the samples for which this method has a row."""
    key = (model, threat, method.name, method.version, method.parameters, method.seed)
    sql = (
        "SELECT DISTINCT content FROM evidence WHERE model=? AND threat=? AND method=? AND version=?"
        " AND parameters=? AND seed=?"
    )
    return {row[0] for row in db.execute(sql, key)}


def claims(db: sqlite3.Connection) -> list[Claim]:
    """One claim per (model, threat)."""
    return [claim_of(db, model, threat) for model, threat in pairs(db)]


def claim_of(db: sqlite3.Connection, model: str, threat: str) -> Claim:
    """Fold everything known of one model under one threat."""
    described = json.loads(threat)
    row = next(m for m in models(db) if m.digest == model)
    rows = evidence(db, model, threat)
    by_sample = {content: list(group) for content, group in itertools.groupby(rows, lambda e: e.subject.content)}
    failed = failures(db, model, threat)
    crashed = {content for content, _ in failed}
    asked = db.execute(
        "SELECT content, sample, label FROM asked WHERE model=? AND threat=? ORDER BY position, content",
        (model, threat),
    ).fetchall()
    folded = {c: fold(by_sample.get(c, ()), failed=c in crashed) for c, _, _ in asked}
    samples = [_sample(sample, label, folded[c], by_sample.get(c, [])) for c, sample, label in asked]
    clean = [any(e.method.name == CLEAN and e.value > 0 for e in by_sample.get(c, ())) for c, _, _ in asked]
    risk = sum(bracket.failure_probability for bracket in folded.values())
    header = Header(row, described, *label_of(described))
    return claim(header, samples, _methods(rows, folded, failed), clean, risk)


def failures(db: sqlite3.Connection, model: str, threat: str) -> list[tuple[str, Method]]:
    """(content, method) of every crash that no retry has mended."""
    sql = "SELECT content, method, version, parameters, seed FROM failures WHERE model=? AND threat=?"
    return [(row[0], Method(*row[1:])) for row in db.execute(sql, (model, threat))]


def exhibits(
    db: sqlite3.Connection, model: str, threat: str, blob: Callable[[str], dict[str, Tensor]]
) -> list[Exhibit]:
    """Failures to look at, nearest first."""
    sql = (
        "SELECT a.sample, a.label, e.gauge, e.blob, e.json FROM exhibits e JOIN asked a USING (model, threat, content)"
        " WHERE e.model=? AND e.threat=? ORDER BY e.gauge, a.position, e.blob"
    )
    found, seen = [], set()
    for sample, label, gauge, name, text in db.execute(sql, (model, threat)):
        if sample in seen:  # after a merge a sample may have two; the nearer one stands
            continue
        seen.add(sample)
        tensors, info = {key: t.numpy() for key, t in blob(name).items()}, json.loads(text)
        parameters = tuple(tensors["parameters"].tolist()) if "parameters" in tensors else None
        pictures = (tensors["x0"], tensors["adversarial"], tensors["random"], tensors["logits"])
        found.append(Exhibit(sample, label, *pictures, gauge, info.get("survives_8bit"), parameters))
    return found


def runs(db: sqlite3.Connection) -> list[RunRow]:
    """All calls of `run`, oldest first."""
    found = [RunRow(**json.loads(text)) for (text,) in db.execute("SELECT json FROM runs")]
    return sorted(found, key=lambda run: run.started)


def _row(r: Sequence[Any]) -> Evidence:
    return Evidence(r[0], r[1], r[2], Subject(*r[3:7]), r[7], Method(*r[8:12]), *r[12:17], Cost(*r[17:21]), r[21])


def _sample(sample: str, label: int, bracket: Bracket, rows: list[Evidence]) -> SampleResult:
    cost = sum((row.cost for row in rows), Cost())
    gauges = [json.loads(row.details).get("gauge") for row in rows if row.side == "upper" and row.value <= 0]
    return SampleResult(
        id=sample,
        label=label,
        verdict=bracket.verdict,
        lower=bracket.lower.value if bracket.lower else None,
        upper=bracket.upper.value if bracket.upper else None,
        by=CLEAN if bracket.verdict is Verdict.MISCLASSIFIED else bracket.by,
        seconds=cost.seconds,
        forwards=cost.forwards,
        backwards=cost.backwards,
        gauge=min((gauge for gauge in gauges if gauge is not None), default=None),
        tie=bracket.tie,
    )


def _methods(rows: list[Evidence], folded: dict[str, Bracket], failed: list[tuple[str, Method]]) -> list[MethodRow]:
    grouped: dict[Method, list[Evidence]] = {method: [] for _, method in failed}
    for row in rows:
        grouped.setdefault(row.method, []).append(row)
    found = []
    for method, group in grouped.items():
        cost = sum((row.cost for row in group), Cost())
        brackets = [(folded[row.subject.content]) for row in group if row.subject.content in folded]
        found.append(
            MethodRow(
                name=method.name,
                version=method.version,
                parameters=json.loads(method.parameters),
                seed=method.seed,
                side=group[0].side if group else "",
                rows=len(group),
                decided=sum(decides(method.name, bracket.by, bracket.verdict) for bracket in brackets),
                seconds=cost.seconds,
                forwards=cost.forwards,
                backwards=cost.backwards,
                failed=sum(1 for _, other in failed if other == method),
            )
        )
    return sorted(found, key=lambda row: (row.seconds, row.name))
