"""The ledger: append rows and blobs, ask what is there.

One SQLite file, so it can be copied, mailed and merged. Rows of one unit of work and their blobs go in with one
transaction: after a kill −9 a unit is there whole or not at all.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any

from torch import Tensor

from saddlepoint.core.digests import canonical_json, digest_json
from saddlepoint.core.errors import LedgerError, SubjectChanged
from saddlepoint.ledger import blobs, query
from saddlepoint.ledger.claims import Claim, Exhibit, ModelRow, RunRow
from saddlepoint.ledger.schema import connect
from saddlepoint.spec.bracket import Bracket
from saddlepoint.spec.evidence import Evidence, Method, Subject
from saddlepoint.spec.finding import Finding, finding_of

_INSERT = "INSERT OR IGNORE INTO evidence VALUES (" + ",".join("?" * 23) + ")"


class Ledger:
    """Evidence on disk. Use it as a context manager, or call `close()`.

    Raises LedgerError when the file cannot be opened or written (not a ledger, newer schema, full disk).
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        self.path = Path(path)
        self._db = connect(self.path, create=create)
        self._remove: Callable[[], object] = lambda: None

    @classmethod
    def temporary(cls) -> Ledger:
        """A ledger that goes when it is closed or no longer used."""
        folder = Path(mkdtemp(prefix="saddlepoint-"))
        ledger = cls(folder / "evidence.ledger")
        ledger._remove = weakref.finalize(ledger, shutil.rmtree, folder, ignore_errors=True)
        return ledger

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Write the log back into the one file and let go of it."""
        with suppress(sqlite3.Error):  # else the log stays beside the file and is read back at the next opening
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()
        self._remove()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, whatever ends it: an error, a full disk (LedgerError), Ctrl-C."""
        try:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise LedgerError(
                f"{self.path} cannot be written: {error}.",
                "What was committed before is kept; free some space and run the same command again.",
            ) from error

    # ------------------------------------------------------------------ writing
    def bind(self, kind: str, spec: str, digest: str) -> None:
        """Remember what a MODEL or DATA text stood for. Raises SubjectChanged if it stood for something else."""
        rows = self._db.execute("SELECT digest FROM bindings WHERE kind=? AND spec=?", (kind, spec)).fetchall()
        if rows and (digest,) not in rows:
            raise SubjectChanged(
                f"{kind} {spec!r} has digest {digest[:12]}, but this ledger knows it as {rows[0][0][:12]}.",
                "Evidence about other content does not carry over: use another --ledger, or bring the old file back.",
            )
        self._db.execute("INSERT OR IGNORE INTO bindings VALUES (?,?,?)", (kind, spec, digest))

    def add_model(self, model: ModelRow) -> None:
        """Register a model."""
        self._db.execute("INSERT OR IGNORE INTO models VALUES (?,?)", (model.digest, canonical_json(asdict(model))))

    def ask(self, threat: str, subjects: Iterable[tuple[Subject, int]]) -> None:
        """State which samples, at which positions of the data, a claim is about: NOT_RUN until evidence comes."""
        rows = [(s.model, threat, s.content, s.sample, s.label, position) for s, position in subjects]
        self._db.executemany("INSERT OR IGNORE INTO asked VALUES (?,?,?,?,?,?)", rows)

    def add(self, rows: Iterable[Evidence]) -> None:
        """Append evidence; rows already there are left as they are."""
        self._db.executemany(_INSERT, [_flat(row) for row in rows])

    def add_blob(self, tensors: Mapping[str, Tensor]) -> str:
        """Store named tensors under their content's digest, and return it."""
        name, data = blobs.pack(tensors)
        self.add_packed(name, data)
        return name

    def add_packed(self, name: str, data: bytes) -> None:
        """Store a blob that a worker packed."""
        self._db.execute("INSERT OR IGNORE INTO blobs VALUES (?,?)", (name, data))

    def add_inputs(self, contents: Sequence[str], blob: str) -> None:
        """Say in which row of a blob ("x0") the input of each sample lies."""
        rows = [(content, blob, i) for i, content in enumerate(contents)]
        self._db.executemany("INSERT OR IGNORE INTO inputs VALUES (?,?,?)", rows)

    def add_failures(self, threat: str, method: Method, failed: Iterable[tuple[Subject, str]]) -> None:
        """A method crashed on these samples. Not evidence, never "robust"; the next run tries again."""
        key = (method.name, method.version, method.parameters, method.seed)
        rows = [(s.model, threat, s.content, *key, message[:2000]) for s, message in failed]
        self._db.executemany("INSERT OR REPLACE INTO failures VALUES (?,?,?,?,?,?,?,?)", rows)

    def clear_failures(self, threat: str, method: Method, subjects: Iterable[Subject]) -> None:
        """A retry succeeded: the crash is no longer the last word."""
        key = (method.name, method.version, method.parameters, method.seed)
        rows = [(s.model, threat, s.content, *key) for s in subjects]
        self._db.executemany(
            "DELETE FROM failures WHERE model=? AND threat=? AND content=? AND method=? AND version=?"
            " AND parameters=? AND seed=?",
            rows,
        )

    def add_exhibit(self, threat: str, subject: Subject, gauge: float, blob: str, info: dict[str, Any]) -> None:
        """Keep a failure to look at."""
        row = (subject.model, threat, subject.content, gauge, blob, canonical_json(info))
        self._db.execute("INSERT OR IGNORE INTO exhibits VALUES (?,?,?,?,?,?)", row)

    def add_event(self, event: dict[str, Any]) -> None:
        """Append an event (a learning curve's point)."""
        self._db.execute("INSERT OR IGNORE INTO events VALUES (?,?)", (digest_json(event), canonical_json(event)))

    def add_findings(self, model: str, threat: str, asked: str, findings: Iterable[Finding]) -> None:
        """Append an examination's findings about a model under a threat; `asked` is its date (ISO 8601)."""
        for finding in findings:
            told = canonical_json(finding.described())
            row = (digest_json([model, threat, asked, told]), model, threat, asked, told)
            self._db.execute("INSERT OR IGNORE INTO findings VALUES (?,?,?,?,?)", row)

    def put_run(self, name: str, run: RunRow) -> None:
        """Insert or update the record of one call of `run`."""
        self._db.execute("INSERT OR REPLACE INTO runs VALUES (?,?)", (name, canonical_json(asdict(run))))

    # ------------------------------------------------------------------ asking
    def models(self) -> list[ModelRow]:
        """All models, by name."""
        return query.models(self._db)

    def threats(self) -> list[tuple[str, str]]:
        """All (model digest, canonical threat) that were asked for."""
        return query.pairs(self._db)

    def claims(self) -> list[Claim]:
        """One claim per (model, threat)."""
        return query.claims(self._db)

    def claim(self, model: str, threat: str, contents: Set[str] | None = None) -> Claim:
        """The claim about one model under one threat, optionally about some samples (content digests) only."""
        return query.claim_of(self._db, model, threat, contents)

    def bracket(self) -> Claim:
        """The only claim of this ledger. Raises LedgerError if it holds none or several."""
        claims = self.claims()
        if len(claims) != 1:
            known = ", ".join(f"{c.model.name} under {c.label}" for c in claims) or "none"
            raise LedgerError(f"{self.path} holds {len(claims)} claims ({known}), not one.", "Choose from claims().")
        return claims[0]

    def evidence(self, model: str, threat: str, contents: Sequence[str] | None = None) -> Iterator[Evidence]:
        """Rows about a model under a threat, optionally about some samples only, ordered by sample."""
        return query.evidence(self._db, model, threat, contents)

    def brackets(
        self, model: str, threat: str, contents: Sequence[str], methods: Sequence[Method] | None = None
    ) -> dict[str, Bracket]:
        """The fold per sample, optionally over the evidence of some methods only."""
        return query.brackets(self._db, model, threat, contents, methods)

    def failures(self, model: str, threat: str) -> list[tuple[str, str, int]]:
        """(method, message, samples) of every crash that no retry has mended, most frequent first."""
        return query.reasons(self._db, model, threat)

    def done(self, model: str, threat: str, method: Method) -> set[str]:
        """The samples (content digests) for which this method's rows are there."""
        return query.done(self._db, model, threat, method)

    def blob(self, name: str) -> dict[str, Tensor]:
        """The tensors of a blob."""
        row = self._db.execute("SELECT data FROM blobs WHERE digest=?", (name,)).fetchone()
        if row is None:
            raise LedgerError(f"blob {name[:12]} is missing.", "The ledger was cut; use a complete copy.")
        return blobs.unpack(name, row[0])

    def input(self, content: str) -> tuple[str, int] | None:
        """(blob, row) of a witnessed sample's x0, or None if no witness needed it."""
        return self._db.execute("SELECT blob, row FROM inputs WHERE content=?", (content,)).fetchone()

    def bindings(self, kind: str) -> list[tuple[str, str]]:
        """(spec, digest) of every MODEL ("model") or DATA ("data") text used."""
        return self._db.execute("SELECT spec, digest FROM bindings WHERE kind=? ORDER BY 1", (kind,)).fetchall()

    def exhibits(self, model: str, threat: str) -> list[Exhibit]:
        """Failures to look at, nearest first."""
        return query.exhibits(self._db, model, threat, self.blob)

    def events(self) -> list[dict[str, Any]]:
        """All events."""
        return [json.loads(row[0]) for row in self._db.execute("SELECT json FROM events ORDER BY rowid")]

    def findings(self, model: str, threat: str) -> list[Finding]:
        """What the latest examination of a model under a threat found; [] if there was none."""
        sql = (
            "SELECT json FROM findings WHERE model=? AND threat=? AND asked="
            "(SELECT max(asked) FROM findings WHERE model=? AND threat=?) ORDER BY rowid"
        )
        return [finding_of(json.loads(row[0])) for row in self._db.execute(sql, (model, threat, model, threat))]

    def runs(self) -> list[RunRow]:
        """All calls of `run`, oldest first."""
        return query.runs(self._db)

    def refute(self, keys: Iterable[str]) -> None:
        """Mark rows that a later check refused; a refuted row never counts again."""
        self._db.executemany("UPDATE evidence SET status='refuted' WHERE key=?", [(key,) for key in keys])


def _flat(e: Evidence) -> tuple[Any, ...]:
    subject, method, cost = e.subject, e.method, e.cost
    return (
        e.key, e.quantity, e.side, e.value,
        subject.model, subject.sample, subject.label, subject.content, e.threat,
        method.name, method.version, method.parameters, method.seed,
        e.proof, e.row, e.failure_probability, e.arithmetic, e.status,
        cost.forwards, cost.backwards, cost.queries, cost.seconds, e.details,
    )  # fmt: skip
