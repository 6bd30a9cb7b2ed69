"""Hyper-parameters are checked where an objective is made, not in the middle of an epoch."""

from __future__ import annotations

import math
import numbers

from saddlepoint.core.errors import InputError


def check(name: str, value: float | int, least: float | int = 0.0, most: float | int = math.inf) -> None:
    """Raises InputError unless least ≤ value ≤ most and value is finite."""
    if not (math.isfinite(value) and least <= value <= most):
        limits = f"at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
        raise InputError(f"{name}={value}.", f"Give {name} {limits}.")


def check_above(name: str, value: float | int, limit: float | int = 0.0) -> None:
    """Raises InputError unless value > limit and finite."""
    if not (math.isfinite(value) and value > limit):
        raise InputError(f"{name}={value}.", f"Give {name} above {limit:g}.")


def check_count(name: str, value: float | int, most: float | int = math.inf) -> None:
    """Raises InputError unless value is a whole number from 1 to most."""
    if not isinstance(value, numbers.Integral) or not 1 <= value <= most:
        limits = "at least 1" if most == math.inf else f"from 1 to {most:g}"
        raise InputError(f"{name}={value!r}.", f"Give {name} as a whole number, {limits}.")
