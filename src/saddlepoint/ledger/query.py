"""Reading: rows back into nouns, and the fold of a whole claim."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any

from torch import Tensor

from saddlepoint.core.errors import LedgerError
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


def evidence(
    db: sqlite3.Connection, model: str, threat: str, contents: Sequence[str] | None = None
) -> Iterator[Evidence]:
    """Rows about a model under a threat, ordered by sample and key; read as they are asked for."""
    sql = f"SELECT {_COLUMNS} FROM evidence WHERE model=? AND threat=?"
    if contents is None:
        found = db.execute(sql + " ORDER BY content, key", (model, threat))
    else:
        sql += " AND content IN (SELECT value FROM json_each(?)) ORDER BY content, key"
        found = db.execute(sql, (model, threat, json.dumps(list(contents))))
    return (_row(r) for r in found)


def brackets(
    db: sqlite3.Connection, model: str, threat: str, contents: Sequence[str], methods: Sequence[Method] | None = None
) -> dict[str, Bracket]:
    """The fold per sample, optionally over the evidence of some methods only."""
    crashed = {content for content, method in failures(db, model, threat) if methods is None or method in methods}
    rows = evidence(db, model, threat, contents)
    by_sample = {c: list(group) for c, group in itertools.groupby(rows, lambda e: e.subject.content)}
    return {
        c: fold((e for e in by_sample.get(c, ()) if methods is None or e.method in methods), failed=c in crashed)
        for c in contents
    }


def done(db: sqlite3.Connection, model: str, threat: str, method: Method) -> set[str]:
    """Content digests of the samples for which this method has a row. A refuted row counts: it is final, and the same
    computation would only give it again; another seed or ledger tries anew."""
    key = (model, threat, method.name, method.version, method.parameters, method.seed)
    sql = (
        "SELECT DISTINCT content FROM evidence WHERE model=? AND threat=? AND method=? AND version=?"
        " AND parameters=? AND seed=?"
    )
    return {row[0] for row in db.execute(sql, key)}


def claims(db: sqlite3.Connection) -> list[Claim]:
    """One claim per (model, threat)."""
    return [claim_of(db, model, threat) for model, threat in pairs(db)]


def claim_of(db: sqlite3.Connection, model: str, threat: str, contents: Set[str] | None = None) -> Claim:
    """Fold everything known of one model under one threat, optionally about some samples only.

    One sample's rows are in memory at a time. Raises LedgerError for a model or threat that was never asked about.
    """
    described = json.loads(threat)
    row = next((m for m in models(db) if m.digest == model), None)
    if row is None:
        raise LedgerError(f"the ledger knows no model {model[:12]}.", "See models().")
    header = Header(row, described, *label_of(described))
    sql = "SELECT content, sample, label FROM asked WHERE model=? AND threat=? ORDER BY position, content"
    asked = [r for r in db.execute(sql, (model, threat)) if contents is None or r[0] in contents]
    failed = failures(db, model, threat)
    crashed, wanted = {content for content, _ in failed}, {content: (s, label) for content, s, label in asked}
    tally, results, clean, risk = Tally(failed), {}, {}, 0.0
    for content, group in itertools.groupby(evidence(db, model, threat), lambda e: e.subject.content):
        if content in wanted:
            rows = list(group)
            bracket = fold(rows, failed=content in crashed)
            tally.add(_once(rows), bracket)
            results[content] = _sample(*wanted[content], bracket, [e for e in rows if e.status != "refuted"])
            risk += bracket.failure_probability
            clean.update((content, _right(e)) for e in rows if e.method.name == CLEAN and e.status == "checked")
    nothing = {c: fold((), failed=c in crashed) for c in wanted if c not in results}
    samples = [results.get(c) or _sample(s, label, nothing[c], []) for c, s, label in asked]
    return claim(header, samples, tally.rows(), list(clean.values()), risk)


def _once(rows: list[Evidence]) -> list[Evidence]:
    """One row per method: after an interrupted unit or a merge a method may stand twice, and was paid for once."""
    return list({row.method: row for row in reversed(rows)}.values())


def _right(row: Evidence) -> bool:
    """Whether the clean row says that the label is predicted; under a targeted goal its value says something else."""
    return bool(json.loads(row.details).get("right", row.value > 0))


def failures(db: sqlite3.Connection, model: str, threat: str) -> list[tuple[str, Method]]:
    """(content, method) of every crash that no retry has mended."""
    sql = "SELECT content, method, version, parameters, seed FROM failures WHERE model=? AND threat=?"
    return [(row[0], Method(*row[1:])) for row in db.execute(sql, (model, threat))]


def reasons(db: sqlite3.Connection, model: str, threat: str) -> list[tuple[str, str, int]]:
    """(method, message, samples) of the crashes, most frequent first."""
    sql = (
        "SELECT method, message, count(DISTINCT content) FROM failures WHERE model=? AND threat=?"
        " GROUP BY method, message ORDER BY 3 DESC, 1, 2"
    )
    return db.execute(sql, (model, threat)).fetchall()


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
    """A row of _COLUMNS as Evidence."""
    proof, row, failure_probability, arithmetic, status = r[12:17]
    return Evidence(
        quantity=r[0],
        side=r[1],
        value=r[2],
        subject=Subject(*r[3:7]),
        threat=r[7],
        method=Method(*r[8:12]),
        proof=proof,
        row=row,
        failure_probability=failure_probability,
        arithmetic=arithmetic,
        status=status,
        cost=Cost(*r[17:21]),
        details=r[21],
    )


def _sample(sample: str, label: int, bracket: Bracket, rows: list[Evidence]) -> SampleResult:
    cost = sum((row.cost for row in _once(rows)), Cost())
    gauges = [json.loads(row.details).get("gauge") for row in rows if row.side == "upper" and row.value <= 0]
    lower = bracket.lower.value if bracket.lower else None
    if bracket.tie and lower is not None and bracket.upper is not None:
        lower = min(lower, bracket.upper.value)  # weaker and still true: no reader meets lower > upper by rounding
    return SampleResult(
        id=sample,
        label=label,
        verdict=bracket.verdict,
        lower=lower,
        upper=bracket.upper.value if bracket.upper else None,
        by=CLEAN if bracket.verdict is Verdict.MISCLASSIFIED else bracket.by,
        seconds=cost.seconds,
        forwards=cost.forwards,
        backwards=cost.backwards,
        gauge=min((gauge for gauge in gauges if gauge is not None), default=None),
        tie=bracket.tie,
    )


class Tally:
    """Costs and yields per method, added up sample by sample."""

    def __init__(self, failed: list[tuple[str, Method]]) -> None:
        self._failed = Counter(method for _, method in failed)
        self._side = dict.fromkeys(self._failed, "")
        self._rows: Counter[Method] = Counter()
        self._decided: Counter[Method] = Counter()
        self._cost: dict[Method, Cost] = {}

    def add(self, rows: list[Evidence], bracket: Bracket) -> None:
        """Count the rows of one sample."""
        for row in rows:
            self._side[row.method] = row.side
            self._rows[row.method] += 1
            self._decided[row.method] += decides(row.method.name, bracket.by, bracket.verdict)
            self._cost[row.method] = self._cost.get(row.method, Cost()) + row.cost

    def rows(self) -> list[MethodRow]:
        """One row per method, cheapest first."""
        found = []
        for method, side in self._side.items():
            cost, given = self._cost.get(method, Cost()), json.loads(method.parameters)
            what = (method.name, method.version, given, method.seed, side, self._rows[method], self._decided[method])
            found.append(MethodRow(*what, cost.seconds, cost.forwards, cost.backwards, self._failed[method]))
        return sorted(found, key=lambda row: (row.seconds, row.name))
