"""Replay takes the ledger's blobs a few at a time, each about once."""

from __future__ import annotations

import gc
import weakref
from collections import Counter

import pytest

from saddlepoint.attack import PGD
from saddlepoint.bound import CROWN
from saddlepoint.data import load as load_data
from saddlepoint.evaluation import Plan, Request, Work, run
from saddlepoint.evaluation.replay import KEPT, replay
from saddlepoint.geometry import Linf
from saddlepoint.ledger import Ledger
from saddlepoint.spec import Threat
from tests_support import digits_model


def test_blobs_are_unpacked_in_runs_and_few_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 samples in batches of 4: over 30 blobs, of which no more than KEPT are alive at any time."""
    plan = Plan("memory", lambda threat: [PGD(steps=5), CROWN()])
    asked = Request(digits_model(), load_data("digits:test"), (Threat(Linf("0.06")),), plan, n=60, work=Work(batch=4))
    unpacked: Counter[str] = Counter()
    alive: list[weakref.ref] = []
    most = 0
    gc.freeze()  # what lives already is none of the blobs, and a collection that looks through it all takes a second

    with Ledger.temporary() as book:
        run(asked, book)
        fetch = book.blob

        def watched(name: str):
            nonlocal most
            blob = fetch(name)
            unpacked[name] += 1
            alive.append(weakref.ref(next(iter(blob.values()))))
            gc.collect()
            most = max(most, sum(ref() is not None for ref in alive))
            return blob

        monkeypatch.setattr(book, "blob", watched)
        (result,) = replay(book, lambda digest: digits_model())
    gc.unfreeze()
    assert result.holds > 100
    assert result.refuted == result.unchecked == 0
    assert len(unpacked) > 30
    assert most <= KEPT
    # inputs serve the clean, the attack's and the bound's rows; a proof or witness serves one batch
    assert sum(unpacked.values()) <= 4 * len(unpacked)
