"""A piece of work in a process of its own, with a watchdog that always answers.

    parent: waits on a pipe until the limit, then kills     child: works, writes one JSON object, exits

Nothing that the child does can keep the parent from answering: not a C function that holds the interpreter, not a
crash, not memory running out. The child's standard output goes to standard error, so that no library writes into the
answer. A child whose parent has died ends itself.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from saddlepoint.core.errors import SaddlepointError

GRACE = 0.05  # seconds past the limit: an answer that is being written may arrive


@dataclass(frozen=True)
class Ended:
    """How the work ended: with an answer, with a typed error (`kind`, `text`), by a crash (`text`), or at the limit."""

    how: Literal["answer", "error", "crash", "timeout"]
    answer: dict[str, Any]
    text: str = ""
    kind: str = ""


def isolated(work: Callable[[], dict[str, Any]], until: float) -> Ended:
    """Run `work` in a forked process until the time `until` of time.monotonic()."""
    sys.stdout.flush()
    sys.stderr.flush()
    answers, writing = os.pipe()
    waiting, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(answers)
        os.close(held)
        _work(work, writing, waiting)
    os.close(writing)
    os.close(waiting)
    raw = b""
    try:
        raw, late = _read(answers, until + GRACE)
        if late:
            return Ended("timeout", {})
    finally:
        os.close(answers)
        status = _end(child, at_once=not raw.endswith(b"\n"))
        os.close(held)
    return _ended(raw, status)


def _read(answers: int, until: float) -> tuple[bytes, bool]:
    """All that arrives until the pipe is closed, and whether the time ran out first."""
    raw = b""
    while not raw.endswith(b"\n"):
        ready, _, _ = select.select([answers], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return raw, True
        part = os.read(answers, 1 << 16)
        if not part:
            break
        raw += part
    return raw, False


def _end(child: int, *, at_once: bool) -> int:
    """Wait for the child, which is killed where it has not answered; its exit status."""
    deadline = time.monotonic() + (0.0 if at_once else 0.2)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        time.sleep(0.002)


def _ended(raw: bytes, status: int) -> Ended:
    if raw.endswith(b"\n"):
        told = json.loads(raw)
        return Ended(told["how"], told["answer"], told["text"], told.get("kind", ""))
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        more = " (out of memory?)" if name == "SIGKILL" else ""
        return Ended("crash", {}, f"the process was ended by {name}{more}")
    return Ended("crash", {}, f"the process ended with status {os.waitstatus_to_exitcode(status)} and no answer")


def _work(work: Callable[[], dict[str, Any]], writing: int, waiting: int) -> None:
    """The child's life; does not return."""
    code = 1
    try:
        os.setpgid(0, 0)  # Ctrl-C on the terminal is the parent's to handle
        os.dup2(2, 1)
        threading.Thread(target=_end_with_parent, args=(waiting,), daemon=True).start()
        told = _told(work)
        data = json.dumps(told).encode() + b"\n"
        while data:
            data = data[os.write(writing, data) :]
        code = 0
    finally:
        os._exit(code)  # no clean-up of what belongs to the parent


def _told(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"how": "answer", "answer": work(), "text": ""}
    except SaddlepointError as error:
        return {"how": "error", "answer": {}, "text": str(error), "kind": type(error).__name__}
    except MemoryError:
        return {"how": "crash", "answer": {}, "text": "memory ran out"}
    except Exception as error:  # reported as a crash, never as a verdict
        traceback.print_exc()
        return {"how": "crash", "answer": {}, "text": f"{type(error).__name__}: {error}"}


def _end_with_parent(waiting: int) -> None:
    os.read(waiting, 1)  # returns when the parent's end is closed, by its death if not by itself
    os._exit(1)
