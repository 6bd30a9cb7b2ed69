"""The tables, their version, and how older files are brought up to it.

Evidence, failures and blobs are append-only. Everything is keyed by content, so a union of two files is a
merge. SQLite in WAL mode: a killed process loses at most the transaction that it had not committed.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from saddlepoint.core.errors import LedgerError

VERSION = 2
APPLICATION_ID = 0x5ADD1E  # marks the file as ours in SQLite's own header

_TABLES = """
CREATE TABLE models (digest TEXT PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE bindings (kind TEXT, spec TEXT, digest TEXT, PRIMARY KEY (kind, spec, digest));
CREATE TABLE asked (
    model TEXT, threat TEXT, content TEXT, sample TEXT, label INTEGER, position INTEGER,
    PRIMARY KEY (model, threat, content));
CREATE TABLE evidence (
    key TEXT PRIMARY KEY, quantity TEXT, side TEXT, value REAL,
    model TEXT, sample TEXT, label INTEGER, content TEXT, threat TEXT,
    method TEXT, version TEXT, parameters TEXT, seed INTEGER,
    proof TEXT, row INTEGER, failure_probability REAL, arithmetic TEXT, status TEXT,
    forwards INTEGER, backwards INTEGER, queries INTEGER, seconds REAL, details TEXT);
CREATE INDEX evidence_subject ON evidence (model, threat, content);
CREATE TABLE failures (
    model TEXT, threat TEXT, content TEXT, method TEXT, version TEXT, parameters TEXT, seed INTEGER, message TEXT,
    PRIMARY KEY (model, threat, content, method, version, parameters, seed));
CREATE TABLE blobs (digest TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE inputs (content TEXT PRIMARY KEY, blob TEXT, row INTEGER);
CREATE TABLE exhibits (model TEXT, threat TEXT, content TEXT, gauge REAL, blob TEXT, json TEXT,
    PRIMARY KEY (model, threat, content, blob));
CREATE TABLE events (digest TEXT PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE runs (id TEXT PRIMARY KEY, json TEXT NOT NULL);
"""
_FINDINGS = """
CREATE TABLE findings (digest TEXT PRIMARY KEY, model TEXT, threat TEXT, asked TEXT, json TEXT NOT NULL)
"""
TABLES = (
    "models",
    "bindings",
    "asked",
    "evidence",
    "failures",
    "blobs",
    "inputs",
    "exhibits",
    "events",
    "runs",
    "findings",
)


def connect(path: Path, *, create: bool = True) -> sqlite3.Connection:
    """Open a ledger, creating it if allowed.

    Raises LedgerError for a missing file, a file that is not a ledger, a damaged one, a newer schema.
    """
    if not create and not path.is_file():
        raise LedgerError(f"there is no ledger at {path}.", "`saddlepoint run` writes one.")
    if path.is_file() and not _looks_like_sqlite(path):
        raise LedgerError(f"{path} is not a ledger.", "Give another --ledger path; this file stays as it is.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        _prepare(connection, path)
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(
            f"{path} cannot be opened as a ledger: {error}.", "Is it damaged, its folder read-only, or the disk full?"
        ) from error
    return connection


def _looks_like_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(16)
    return head in (b"", b"SQLite format 3\x00")  # an empty file is a ledger that was never written to


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")  # in WAL mode a crash of the process loses nothing
    connection.execute("BEGIN IMMEDIATE")  # two processes may open a new file at once
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    ours = connection.execute("PRAGMA application_id").fetchone()[0]
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        for statement in (*_TABLES.split(";"), _FINDINGS):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
    elif ours != APPLICATION_ID:
        raise LedgerError(f"{path} is an SQLite file, but not a ledger.", "Give another --ledger path.")
    elif version > VERSION:
        raise LedgerError(f"{path} has schema {version}, this version reads up to {VERSION}.", "Upgrade saddlepoint.")
    elif version == 1:  # one step per version
        connection.execute(_FINDINGS)
        connection.execute(f"PRAGMA user_version={VERSION}")
    connection.execute("COMMIT")
