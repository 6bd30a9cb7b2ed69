"""How a verification under a watchdog becomes one word and its reason."""

from __future__ import annotations

import time

from saddlepoint.cli.isolated import Ended
from saddlepoint.core import errors
from saddlepoint.core.errors import InputError

STARTED = time.monotonic()
SOFT = 0.3  # seconds before the limit at which the work is asked to be done
DEFAULT = 60.0
WORDS = ("sat", "unsat", "unknown", "timeout")


def told(ended: Ended, begun: float = STARTED) -> tuple[str, str]:
    """The word and its reason, with the seconds since `begun`. Raises the work's own error where the input is wrong."""
    if ended.how == "answer" and ended.answer.get("word") in WORDS:
        return ended.answer["word"], f"{ended.answer['reason']} ({_stages(ended.answer['seconds'], begun)})"
    if ended.how == "timeout":
        return "timeout", "the limit was reached"
    if ended.how == "error":
        raise getattr(errors, ended.kind, InputError)(ended.text)
    return "unknown", ended.text


def soft(until: float) -> float:
    """When the work should be done by itself: a little before the limit, so that it can say what it knows."""
    return until - min(SOFT, 0.1 * max(0.0, until - time.monotonic()))


def _stages(seconds: dict[str, float], begun: float) -> str:
    stages = [f"{stage} {value:.2f} s" for stage, value in seconds.items()]
    return ", ".join([*stages, f"in all {time.monotonic() - begun:.2f} s"])
