"""Progress for people: a live line on a terminal, plain lines in a log. Written to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from saddlepoint.evaluation import Progress
from saddlepoint.evaluation.schedule import Watch
from saddlepoint.ledger.labels import label_of
from saddlepoint.spec import Verdict

_EVERY = 10.0  # seconds between two plain lines of one stage
_WIDTH = 28
_PARTS = (  # what the running bar is made of: certified | undecided | broken
    ("█", "green", (Verdict.CERTIFIED,)),
    ("▒", "yellow", (Verdict.OPEN, Verdict.NOT_RUN, Verdict.ERROR, Verdict.CONTRADICTION)),
    ("░", "red", (Verdict.BROKEN, Verdict.MISCLASSIFIED)),
)


@contextmanager
def follow() -> Iterator[Watch]:
    """A watcher for `run`: live where stderr is a terminal, plain lines otherwise."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Plain()
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield _Table(live)


class _Plain:
    """One line when a stage ends, and every ten seconds while it runs."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.total == 0 or (progress.done < progress.total and now - self._last < _EVERY):
            return
        self._last = now
        print(f"{_label(progress)}  {_words(progress)}", file=sys.stderr, flush=True)


class _Table:
    """One row per threat: the running bracket as a bar, the stage under way, the time it still needs."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._rows: dict[str, Progress] = {}

    def __call__(self, progress: Progress) -> None:
        self._rows[_label(progress)] = progress
        table = Table.grid(padding=(0, 2))
        for label, row in self._rows.items():
            table.add_row(label, _bar(row), _words(row))
        self._live.update(table)


def _label(progress: Progress) -> str:
    return label_of(json.loads(progress.threat.canonical()))[0]


def _words(progress: Progress) -> str:
    counts, n = progress.counts, sum(progress.counts.values())
    certified = counts[Verdict.CERTIFIED] / n
    attacked = 1 - (counts[Verdict.BROKEN] + counts[Verdict.MISCLASSIFIED]) / n
    eta = "" if progress.eta is None or progress.done == progress.total else f"  ETA {_clock(progress.eta)}"
    return f"[{certified:.3f}, {attacked:.3f}] n = {n}  {progress.stage} {progress.done}/{progress.total}{eta}"


def _bar(progress: Progress) -> str:
    n = max(1, sum(progress.counts.values()))
    cells = [round(_WIDTH * sum(progress.counts[v] for v in group) / n) for _, _, group in _PARTS]
    cells[1] = max(0, _WIDTH - cells[0] - cells[2])
    return "".join(f"[{colour}]{sign * k}[/]" for (sign, colour, _), k in zip(_PARTS, cells, strict=True))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
