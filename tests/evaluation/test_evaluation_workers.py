"""Workers: a killed one is said, and nothing committed is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import dataclass, replace

import pytest

from saddlepoint.adapters import LoadOptions, load
from saddlepoint.attack import PGD
from saddlepoint.core.errors import InputError, WorkerDied
from saddlepoint.data import load as load_data
from saddlepoint.evaluation import Plan, Request, Work, run
from saddlepoint.geometry import Linf
from saddlepoint.ledger import Ledger
from saddlepoint.spec import Model, Threat, Verdict
from tests_support import digits_model, digits_weights


@dataclass(frozen=True)
class Source:
    """Loads the model in a worker."""

    path: str

    def __call__(self) -> Model:
        return load(self.path, LoadOptions())


REQUEST = Request(
    digits_model(),
    load_data("digits:test"),
    (Threat(Linf("0.06")),),
    Plan("short", lambda threat: [PGD(steps=5)]),
    n=64,
    workers=2,
    work=Work(batch=4),
    source=Source(str(digits_weights())),
)


def test_a_killed_worker_is_said_and_nothing_is_lost(tmp_path):
    killed = []

    def kill(progress):
        children = multiprocessing.active_children()
        if progress.done and children and not killed:
            killed.append(children[0].pid)
            os.kill(children[0].pid, signal.SIGKILL)

    with Ledger(tmp_path / "a.ledger") as book:
        with pytest.raises(WorkerDied, match="run the same command again"):
            run(REQUEST, book, kill)
        claim = book.bracket()
        assert killed
        assert 64 - claim.counts[Verdict.NOT_RUN] > 0
        assert claim.counts[Verdict.ERROR] == 0  # the death of a worker is no fact about a sample
        run(replace(REQUEST, workers=1), book)
        assert book.bracket().counts[Verdict.NOT_RUN] == 0


def test_workers_need_a_model_that_they_can_load(tmp_path):
    with Ledger(tmp_path / "a.ledger") as book, pytest.raises(InputError, match=r"package\.module:factory"):
        run(replace(REQUEST, source=None), book)


def test_ray_is_an_extra(tmp_path):
    with Ledger(tmp_path / "a.ledger") as book, pytest.raises(InputError, match=r"saddlepoint\[ray\]"):
        run(replace(REQUEST, workers="ray"), book)
