"""THREAT as people type it: `linf:8/255`, `l2:0.5`, `l1:10`, `l0:20`, `spatial:rot=30,shift=3`, `patch:5x5@any`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from saddlepoint.core.arithmetic import exact
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import L0, L1, L2, Linf, Patch, PerturbationSet, RotationTranslation
from saddlepoint.spec import Threat

_FORMS = "Write linf:8/255, l2:0.5, l1:10, l0:20, spatial:rot=30,shift=3 or patch:5x5@any."
_BALLS: dict[str, Callable[..., PerturbationSet]] = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}


def parse_threat(text: str) -> Threat:
    """One threat. Raises InputError with the forms for anything else, and for sizes that are negative.

    >>> parse_threat("linf:8/255").set.size
    Fraction(8, 255)
    """
    kind, colon, rest = text.strip().partition(":")
    kind = kind.lower()
    if not colon or not rest:
        raise InputError(f"{text!r} is no threat.", _FORMS)
    if kind in _BALLS:
        size = exact(rest)
        if size < 0:
            raise InputError(f"{text!r} has a negative size.", "Sizes are in raw input units, from 0.")
        return Threat(_BALLS[kind](size))
    if kind == "spatial":
        return Threat(_spatial(text, rest))
    if kind == "patch":
        return Threat(_patch(text, rest))
    raise InputError(f"{text!r}: there is no threat {kind!r}.", _FORMS)


def parse_threats(texts: Sequence[str]) -> tuple[Threat, ...]:
    """Several threats, each given once. Raises InputError when none or one twice is given."""
    if not texts:
        raise InputError("no --threat was given.", _FORMS)
    threats = tuple(parse_threat(text) for text in texts)
    known = [threat.canonical() for threat in threats]
    twice = next((text for text, name in zip(texts, known, strict=True) if known.count(name) > 1), None)
    if twice:
        raise InputError(f"the threat {twice!r} is given twice.", "Give each threat once.")
    return threats


def _spatial(text: str, rest: str) -> PerturbationSet:
    values = {"rot": exact(0), "shift": exact(0)}
    for part in rest.split(","):
        name, equals, value = part.partition("=")
        if not equals or name.strip() not in values:
            raise InputError(f"{text!r}: {part!r} is neither rot=DEGREES nor shift=PIXELS.", _FORMS)
        values[name.strip()] = exact(value)
    if min(values.values()) < 0:
        raise InputError(f"{text!r} has a negative size.", "Write the largest turn and shift, both ways are meant.")
    return RotationTranslation(values["rot"], values["shift"])


def _patch(text: str, rest: str) -> PerturbationSet:
    found = re.fullmatch(r"(\d+)x(\d+)(?:@(any|\d+,\d+))?", rest.strip())
    if not found:
        raise InputError(f"{text!r} is no patch.", "Write patch:5x5@any, or patch:5x5@ROW,COLUMN.")
    height, width, at = int(found[1]), int(found[2]), found[3] or "any"
    if at == "any":
        return Patch(height, width)
    row, column = (int(number) for number in at.split(","))
    return Patch(height, width, (row, column))
