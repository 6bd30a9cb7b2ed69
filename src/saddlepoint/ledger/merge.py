"""The union of ledgers. It is commutative, associative and idempotent, as the fold is."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from saddlepoint.core.errors import LedgerError
from saddlepoint.ledger.schema import TABLES, connect


def merge(sources: Sequence[Path], target: Path) -> None:
    """Write the union of `sources` to a new file `target`.

    A row that anyone's check refuted stays refuted. Raises LedgerError if the target exists, a source is no
    ledger, or the disk is full (the target is then removed, the sources are never touched).
    """
    if target.exists():
        raise LedgerError(f"{target} exists already.", "Merging writes a new file: choose another -o.")
    for source in sources:
        connect(source, create=False).close()
    try:
        db = connect(target)
        for source in sources:
            _absorb(db, source)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
    except sqlite3.Error as error:
        for leftover in (
            target,
            target.with_name(target.name + "-wal"),
            target.with_name(target.name + "-shm"),
        ):
            leftover.unlink(missing_ok=True)
        raise LedgerError(f"{target} cannot be written: {error}.", "Free some space and merge again.") from error


def _absorb(db: sqlite3.Connection, source: Path) -> None:
    db.execute("ATTACH DATABASE ? AS other", (str(source),))
    db.execute("BEGIN IMMEDIATE")
    for table in TABLES:
        db.execute(f"INSERT OR IGNORE INTO main.{table} SELECT * FROM other.{table}")
    # statuses are ordered refuted > checked > claimed, so the result does not depend on who came first
    for status in ("checked", "refuted"):
        db.execute(
            "UPDATE main.evidence SET status=? WHERE status<>'refuted' AND key IN"
            " (SELECT key FROM other.evidence WHERE status=?)",
            (status, status),
        )
    # a crash that somebody else's run got past is no longer the last word
    db.execute(
        "DELETE FROM main.failures WHERE EXISTS (SELECT 1 FROM main.evidence e WHERE e.model=failures.model"
        " AND e.threat=failures.threat AND e.content=failures.content AND e.method=failures.method"
        " AND e.version=failures.version AND e.parameters=failures.parameters AND e.seed=failures.seed)"
    )
    db.execute("COMMIT")
    db.execute("DETACH DATABASE other")
