"""The ledger: what goes in comes out, merging is a union, and files that are no ledgers are left as they are."""

from __future__ import annotations

import itertools
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saddlepoint.core.errors import LedgerError, SubjectChanged
from saddlepoint.geometry import Box, Linf, Patch, RotationTranslation
from saddlepoint.ledger import Ledger, ModelRow, RunRow
from saddlepoint.ledger.labels import label_of
from saddlepoint.ledger.merge import merge
from saddlepoint.ledger.schema import VERSION
from saddlepoint.spec import Cost, Evidence, Finding, Method, Subject, Threat, Verdict

THREAT = Threat(Linf("8/255", Box(0, 1))).canonical()
MODEL = ModelRow("m" * 64, "net", "net.onnx", "GRAPH", 3, {"kind": "box"}, (2,), ("a note",), ("a", "b", "c"))


def subject(i, label=0):
    return Subject(MODEL.digest, str(i), label, f"content{i}")


def upper(i, value, method="pgd", **more):
    return Evidence("margin", "upper", value, subject(i), THREAT, Method(method), status="checked", **more)


def lower(i, value, **more):
    return Evidence("margin", "lower", value, subject(i), THREAT, Method("crown"), status="checked", **more)


def fill(path: Path, rows, n=4, failed=()):
    with Ledger(path) as book, book.transaction():
        book.add_model(MODEL)
        book.ask(THREAT, [(subject(i), i) for i in range(n)])
        book.add(rows)
        book.add_failures(THREAT, Method("pgd"), [(subject(i), "boom") for i in failed])
    return path


def test_evidence_comes_back_as_it_went_in(tmp_path):
    rows = [
        upper(0, -0.25, proof="blob", row=3, cost=Cost(3, 2, 1, 0.5), details='{"gauge":0.01}'),
        lower(1, 0.5, arithmetic="outward", failure_probability=0.001),
        upper(2, float("inf")),
    ]
    with Ledger(fill(tmp_path / "a.ledger", rows)) as book:
        assert sorted(book.evidence(MODEL.digest, THREAT), key=lambda e: e.key) == sorted(rows, key=lambda e: e.key)
        assert book.models() == [MODEL]
        assert book.done(MODEL.digest, THREAT, Method("pgd")) == {"content0", "content2"}
        assert book.threats() == [(MODEL.digest, THREAT)]


def test_claim_counts_and_bracket(tmp_path):
    rows = [upper(0, -0.2), upper(1, 0.3, "clean"), lower(1, 0.1), upper(2, -1.0, "clean"), upper(0, 0.4, "clean")]
    with Ledger(fill(tmp_path / "a.ledger", rows, n=5, failed=[3])) as book:
        claim = book.bracket()
    counts = {v: claim.counts[v] for v in Verdict if claim.counts[v]}
    assert counts == {
        Verdict.BROKEN: 1,
        Verdict.CERTIFIED: 1,
        Verdict.MISCLASSIFIED: 1,
        Verdict.ERROR: 1,
        Verdict.NOT_RUN: 1,
    }
    assert (claim.n, claim.certified, claim.attacked) == (5, 1 / 5, 3 / 5)  # an error is never robust, nor broken
    assert (claim.clean_k, claim.clean_n) == (2, 3)  # of those whose clean answer was seen
    assert claim.ci95[0] < claim.certified
    assert claim.attacked < claim.ci95[1]
    assert [s.id for s in claim.samples] == ["0", "1", "2", "3", "4"]
    assert claim.samples[0].by == "pgd"
    assert claim.samples[4].upper is None
    assert claim.label == "linf:8/255"
    assert "n = 5" in repr(claim)
    methods = {m.name: m for m in claim.methods}
    assert (methods["pgd"].decided, methods["pgd"].failed, methods["crown"].decided) == (1, 1, 1)


def test_claim_about_some_samples_only(tmp_path):
    with Ledger(fill(tmp_path / "a.ledger", [upper(0, -0.2)])) as book:
        assert book.claim(MODEL.digest, THREAT, frozenset({"content0", "content1"})).n == 2


def test_a_method_that_stands_twice_is_paid_for_once(tmp_path):
    twice = [upper(0, -0.2, proof=name, cost=Cost(3, 2, 0, 0.5)) for name in ("blob", "other blob")]
    with Ledger(fill(tmp_path / "a.ledger", twice)) as book:
        claim = book.bracket()
    assert (claim.samples[0].forwards, claim.methods[0].rows, claim.methods[0].forwards) == (3, 1, 3)


def test_a_retry_clears_the_crash(tmp_path):
    with Ledger(fill(tmp_path / "a.ledger", [], failed=[0])) as book:
        assert book.bracket().counts[Verdict.ERROR] == 1
        with book.transaction():
            book.clear_failures(THREAT, Method("pgd"), [subject(0)])
        assert book.bracket().counts[Verdict.ERROR] == 0


def test_transactions_are_all_or_nothing(tmp_path):
    book = Ledger(fill(tmp_path / "a.ledger", []))

    def broken_off():
        with book.transaction():
            book.add([upper(0, -0.2)])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken_off()
    assert list(book.evidence(MODEL.digest, THREAT)) == []
    book.close()


def test_blobs_are_named_by_content_and_damage_is_seen(tmp_path):
    path = tmp_path / "a.ledger"
    with Ledger(path) as book, book.transaction():
        name = book.add_blob({"witness": torch.arange(6.0).reshape(2, 3)})
        assert name == book.add_blob({"witness": torch.arange(6.0).reshape(2, 3)})
    raw = sqlite3.connect(path)
    raw.execute("UPDATE blobs SET data=zeroblob(80)")
    raw.commit()
    raw.close()
    with Ledger(path) as book:
        with pytest.raises(LedgerError, match="damaged"):
            book.blob(name)
        with pytest.raises(LedgerError, match="missing"):
            book.blob("0" * 64)


def test_a_changed_subject_is_refused(tmp_path):
    with Ledger(tmp_path / "a.ledger") as book:
        book.bind("model", "net.onnx", "a" * 64)
        book.bind("model", "net.onnx", "a" * 64)
        with pytest.raises(SubjectChanged, match="another --ledger"):
            book.bind("model", "net.onnx", "b" * 64)


PARTS = (
    [upper(0, -0.2), upper(1, 0.3, "clean")],
    [lower(1, 0.1), upper(2, -1.0, "clean"), upper(0, -0.2)],
    [replace(lower(3, 0.1), status="refuted")],
)


def told(path):
    with Ledger(path, create=False) as book:
        claim = book.bracket()
        rows = sorted((e.key, e.status) for e in book.evidence(MODEL.digest, THREAT))
        return rows, claim.samples, claim.ci95


def test_merge_is_commutative_associative_and_idempotent(tmp_path):
    paths = [fill(tmp_path / f"{i}.ledger", rows) for i, rows in enumerate(PARTS)]
    results = []
    for i, order in enumerate(itertools.permutations(paths)):
        target = tmp_path / f"m{i}.ledger"
        merge([*order, order[0]], target)
        results.append(told(target))
    merge([paths[0], paths[1]], tmp_path / "left.ledger")
    merge([tmp_path / "left.ledger", paths[2]], tmp_path / "nested.ledger")
    results.append(told(tmp_path / "nested.ledger"))
    assert all(result == results[0] for result in results)


def test_a_refuted_row_stays_refuted_in_a_merge(tmp_path):
    a = fill(tmp_path / "a.ledger", [lower(0, 0.1)])
    b = fill(tmp_path / "b.ledger", [replace(lower(0, 0.1), status="refuted")])
    for i, order in enumerate(([a, b], [b, a])):
        merge(order, tmp_path / f"m{i}.ledger")
        assert told(tmp_path / f"m{i}.ledger")[0][0][1] == "refuted"


def test_merge_finds_contradictions_that_neither_side_sees(tmp_path):
    a, b = fill(tmp_path / "a.ledger", [lower(0, 0.1)]), fill(tmp_path / "b.ledger", [upper(0, -0.1)])
    merge([a, b], tmp_path / "m.ledger")
    with Ledger(tmp_path / "m.ledger") as book:
        assert book.bracket().counts[Verdict.CONTRADICTION] == 1


def test_merge_refuses_to_overwrite_and_to_read_what_is_no_ledger(tmp_path):
    a = fill(tmp_path / "a.ledger", [])
    (tmp_path / "text").write_text("hello")
    with pytest.raises(LedgerError, match="exists already"):
        merge([a], a)
    with pytest.raises(LedgerError, match="not a ledger"):
        merge([a, tmp_path / "text"], tmp_path / "m.ledger")
    with pytest.raises(LedgerError, match="no ledger"):
        merge([tmp_path / "missing"], tmp_path / "m.ledger")
    assert not (tmp_path / "m.ledger").exists()


def test_files_that_are_no_ledgers_are_left_as_they_are(tmp_path):
    text, other = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("hello")
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE mine (x)")
    db.commit()
    db.close()
    before = other.read_bytes()
    for path in (text, other):
        with pytest.raises(LedgerError, match="not a ledger"):
            Ledger(path)
    assert text.read_text() == "hello"
    assert other.read_bytes()[100:] == before[100:]


def test_newer_schemas_and_cut_files_are_refused(tmp_path):
    path = fill(tmp_path / "a.ledger", [upper(i, -0.1) for i in range(4)])
    newer = tmp_path / "newer.ledger"
    newer.write_bytes(path.read_bytes())
    db = sqlite3.connect(newer)
    db.execute(f"PRAGMA user_version={VERSION + 1}")
    db.close()
    with pytest.raises(LedgerError, match="Upgrade"):
        Ledger(newer)
    cut = tmp_path / "cut.ledger"
    cut.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(LedgerError), Ledger(cut) as book:
        book.claims()


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path):
    path = fill(tmp_path / "a.ledger", [upper(0, -0.1)])
    with Ledger(path) as book:
        pages = book._db.execute("PRAGMA page_count").fetchone()[0]
        book._db.execute(f"PRAGMA max_page_count={pages}")  # what SQLite reports as a full disk

        def too_much():
            with book.transaction():
                book.add([upper(1, -0.1)])
                book.add_blob({"w": torch.zeros(100_000)})

        with pytest.raises(LedgerError, match=r"full.*run the same command again"):
            too_much()
    with Ledger(path) as book:
        assert [e.subject.sample for e in book.evidence(MODEL.digest, THREAT)] == ["0"]


def test_bracket_is_about_one_claim(tmp_path):
    with Ledger(tmp_path / "a.ledger") as book, pytest.raises(LedgerError, match="holds 0 claims"):
        book.bracket()


def test_runs_events_and_temporary_ledgers():
    run = RunRow({"n": 3}, "2020-01-01T00:00:00", 1.0, False, {"torch": "2"}, ["l2"])
    with Ledger.temporary() as book:
        book.put_run("a", replace(run, interrupted=True))
        book.put_run("a", run)
        book.add_event({"kind": "epoch", "epoch": 1})
        assert book.runs() == [run]
        assert book.events() == [{"kind": "epoch", "epoch": 1}]
        folder = book.path.parent
    assert not folder.exists()


@pytest.mark.parametrize(
    ("threat", "label"),
    [
        (Linf("8/255"), "linf:8/255"),
        (Linf(0.1), "linf:0.1"),
        (RotationTranslation("30", "3"), "spatial:rot=30,shift=3"),
        (Patch(5, 5), "patch:5x5@any"),
        (Patch(5, 4, (1, 2)), "patch:5x4@1,2"),
    ],
)
def test_labels_are_what_people_type(threat, label):
    assert label_of(json.loads(Threat(threat).canonical()))[0] == label


def test_findings_are_kept_per_examination_and_older_files_are_brought_up(tmp_path):
    good = Finding("a", "A", "pass", 0.5, "n = 4", ci95=(0.1, 0.9))
    bad = Finding("a", "A", "fail", 1.0, "n = 4", "do it", cures=("eot:32",))
    path = fill(tmp_path / "a.ledger", [upper(0, -0.1)])
    db = sqlite3.connect(path)
    db.execute("DROP TABLE findings")
    db.execute("PRAGMA user_version=1")
    db.close()
    with Ledger(path) as book:
        assert book.findings(MODEL.digest, THREAT) == []
        with book.transaction():
            book.add_findings(MODEL.digest, THREAT, "2026-01-02T00:00:00", [bad])
            book.add_findings(MODEL.digest, THREAT, "2026-01-01T00:00:00", [good])
        assert book.findings(MODEL.digest, THREAT) == [bad]  # the latest examination speaks
        assert [e.subject.sample for e in book.evidence(MODEL.digest, THREAT)] == ["0"]
    merge([path, path], tmp_path / "m.ledger")
    with Ledger(tmp_path / "m.ledger") as book:
        assert book.findings(MODEL.digest, THREAT) == [bad]
