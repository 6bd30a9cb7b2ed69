"""Decimals, and the float64 numbers around them.

A file states decimals; a box and an atom are kept in float64. A decimal that no float64 equals has a float64 below and
one above it. Proofs use the neighbour that makes the question harder (a wider box, a smaller constant), witnesses the
one that makes it stricter (a narrower box), so both answers are about the decimals.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

LENGTH = 1_000  # of a numeral
EXPONENT = 400  # float64 ends at 1.8e308 and 4.9e-324

NUMERAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


class Rounded(NamedTuple):
    """One limit of an input: `outer` makes the box wider, `inner` narrower, `nearest` is the usual reading."""

    outer: float
    inner: float
    nearest: float


def number(text: str) -> Fraction | None:
    """The exact value of a numeral; None if it is too long or leaves float64 by far."""
    if len(text) > LENGTH:
        return None
    mantissa, _, exponent = text.lower().partition("e")
    if exponent and (len(exponent) > 6 or abs(int(exponent)) > EXPONENT):
        return None
    return Fraction(Decimal(mantissa)) * Fraction(10) ** int(exponent or 0)


def below(value: Fraction) -> float:
    """The largest float64 ≤ value. Raises OverflowError beyond the largest float64."""
    nearest = float(value)
    return nearest if Fraction(nearest) <= value else math.nextafter(nearest, -math.inf)


def above(value: Fraction) -> float:
    """The smallest float64 ≥ value."""
    return -below(-value)


def limit(value: Fraction, *, lower: bool, strict: bool) -> Rounded:
    """A lower (or upper) limit. A strict one excludes its own value, so a witness keeps off it."""
    under, over = below(value), above(value)
    outer, inner = (under, over) if lower else (over, under)
    if strict and Fraction(inner) == value:
        inner = math.nextafter(inner, math.inf if lower else -math.inf)
    return Rounded(outer, inner, inner if strict else float(value))


def plain_limit(text: str, *, lower: bool) -> Rounded | None:
    """The same for a short numeral that is not strict, without rational arithmetic; None beyond float64."""
    nearest, value = float(text), Decimal(text)
    if math.isinf(nearest):
        return None
    kept = Decimal(nearest)  # exact, as every float64 is a finite decimal
    if kept == value:
        return Rounded(nearest, nearest, nearest)
    other = math.nextafter(nearest, math.inf if kept < value else -math.inf)
    under, over = (nearest, other) if kept < value else (other, nearest)
    return Rounded(under, over, nearest) if lower else Rounded(over, under, nearest)
