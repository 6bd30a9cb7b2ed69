"""Durations as people type them."""

from __future__ import annotations

import re

from saddlepoint.core.errors import InputError

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def seconds_of(text: str) -> float:
    """Seconds in "90", "90s", "10m", "1.5h", "1h30m".

    >>> seconds_of("10m"), seconds_of("1h30m")
    (600.0, 5400.0)
    """
    if not re.fullmatch(r"(\d+(\.\d+)?(s|m|min|h)?)+", text.strip()) or not text.strip():
        raise InputError(f"{text!r} is no duration.", "Write 90s, 10m or 1h30m.")
    parts = re.findall(r"(\d+(?:\.\d+)?)(min|s|m|h|)", text.strip())
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if total <= 0:
        raise InputError(f"{text!r} leaves no time.", "Write 90s, 10m or 1h30m.")
    return total
