"""`saddlepoint verify --batch`: many instances in one process, one row each, resumable.

The libraries are loaded once; every instance then runs in a fork of this process under its own limit, so a crash is one
row's `unknown` and nothing more. A row is on disk before the next instance starts.
"""

from __future__ import annotations

import csv
import gc
import io
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from saddlepoint.cli.isolated import isolated
from saddlepoint.cli.words import DEFAULT, soft, told
from saddlepoint.core.errors import InputError, RefusedFile, SaddlepointError

FIELDS = ("onnx", "vnnlib", "verdict", "seconds", "reason")
TIMES = ("timeout", "timeout_s")


@dataclass(frozen=True)
class Row:
    """One line of instances.csv; `wrong` says why it cannot be run."""

    onnx: str
    vnnlib: str
    seconds: float | None
    wrong: str = ""


def verify_batch(instances: Path, output: Path, timeout: float | None, threads: int) -> int:
    """Run the rows that `output` does not hold yet. Returns 0."""
    rows = read_instances(instances)
    done = _resumed(output)
    left = [row for row in rows if (row.onnx, row.vnnlib) not in done]
    _load()
    counts: Counter[str] = Counter(done.values())
    with _progress() as progress:
        task = progress.add_task("verify", total=len(rows), completed=len(rows) - len(left), counts="")
        for row in left:
            limit = min(t for t in (timeout, row.seconds, None if timeout or row.seconds else DEFAULT) if t)
            begun = time.monotonic()
            word, reason = ("unknown", row.wrong) if row.wrong else _one(instances.parent, row, begun + limit, threads)
            _append(output, row, word, time.monotonic() - begun, reason)
            counts[word] += 1
            progress.update(task, advance=1, counts=_counted(counts), refresh=True)
    print(_counted(counts), file=sys.stderr)
    return 0


def read_instances(path: Path) -> list[Row]:
    """The rows: network, specification and seconds, by position or under a header's names. Raises InputError."""
    try:
        lines = [line for line in csv.reader(io.StringIO(path.read_text())) if line]
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{path} is not a file.", "Check the path.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise RefusedFile(f"{path} is no CSV file: {error}.") from error
    if not lines:
        raise InputError(f"{path} has no rows.", "A row is: net.onnx,spec.vnnlib,seconds.")
    head = [name.strip().lower() for name in lines[0]]
    if "onnx" in head and "vnnlib" in head:
        places = (head.index("onnx"), head.index("vnnlib"), next((head.index(t) for t in TIMES if t in head), None))
        return [_row(line, *places) for line in lines[1:]]
    return [_row(line, 0, 1, 2) for line in lines]


def _row(line: list[str], onnx: int, vnnlib: int, seconds: int | None) -> Row:
    cells = [cell.strip() for cell in line]

    def cell(place: int | None) -> str:
        return cells[place] if place is not None and place < len(cells) else ""

    if not cell(onnx) or not cell(vnnlib):
        return Row(cell(onnx), cell(vnnlib), None, "the row does not name a network and a specification")
    try:
        limit = float(cell(seconds)) if cell(seconds) else None
    except ValueError:
        limit = -1.0
    if limit is not None and not 0 < limit < 1e7:
        return Row(cell(onnx), cell(vnnlib), None, f"{cell(seconds)!r} is not a time in seconds")
    return Row(cell(onnx), cell(vnnlib), limit)


def _one(folder: Path, row: Row, until: float, threads: int) -> tuple[str, str]:
    network, specification = folder / row.onnx, folder / row.vnnlib

    begun = time.monotonic()

    def work() -> dict[str, object]:
        from saddlepoint.cli.solving import Instance, solve

        return solve(Instance(network, specification, soft(until), threads))

    try:
        return told(isolated(work, until), begun)
    except SaddlepointError as error:
        return "unknown", f"{type(error).__name__}: {error}"


def _load() -> None:
    """Everything an instance needs, once; no arithmetic is done here, so that no thread exists to be lost in a fork."""
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

    import saddlepoint.cli.solving  # noqa: F401

    gc.freeze()  # forks share these objects as long as nobody touches them


def _resumed(output: Path) -> dict[tuple[str, str], str]:
    """Instance -> verdict of the rows that are there; a line that was cut off is removed."""
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(",".join(FIELDS) + "\n")
        return {}
    text = output.read_text()
    whole = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(whole))
    if tuple(reader.fieldnames or ()) != FIELDS:
        raise InputError(f"{output} holds something else than results.", "Give another file with -o.")
    if whole != text:
        part = output.with_name(f"{output.name}.part")
        part.write_text(whole)
        os.replace(part, output)
    return {(row["onnx"], row["vnnlib"]): row["verdict"] for row in reader}


def _append(output: Path, row: Row, word: str, seconds: float, reason: str) -> None:
    line = io.StringIO()
    flat = " ".join(reason.split())
    csv.writer(line, lineterminator="\n").writerow([row.onnx, row.vnnlib, word, f"{seconds:.3f}", flat])
    with output.open("a") as file:
        file.write(line.getvalue())


def _counted(counts: Counter[str]) -> str:
    return "  ".join(f"{word} {count}" for word, count in sorted(counts.items()))


def _progress() -> Progress:
    """Redrawn after every row: a thread that draws by itself could hold a lock while this process forks."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(
        *columns,
        TextColumn("{task.fields[counts]}"),
        console=console,
        auto_refresh=False,
        disable=not console.is_terminal,
    )
