"""Short names of threats, as a person types them: `linf:8/255`, `spatial:rot=30,shift=3`."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from saddlepoint.core.digests import canonical_json


def label_of(threat: dict[str, Any]) -> tuple[str, str, float]:
    """(label, family, size) of a canonical threat. Threats of one family lie on one curve over the size.

    >>> label_of({"set": {"kind": "linf", "size": "8/255"}, "goal": {"kind": "untargeted"}})
    ('linf:8/255', 'linf', 0.03137254901960784)
    """
    text, family, size = _set_label(threat["set"])
    goal = threat.get("goal", {})
    if goal.get("kind") == "targeted":
        text, family = f"{text}→{goal['label']}", f"{family}→{goal['label']}"
    if threat.get("access", "GRAPH") != "GRAPH":
        text, family = (
            f"{text} ({threat['access'].lower()} access)",
            f"{family} ({threat['access'].lower()} access)",
        )
    return text, family, size


def _set_label(described: dict[str, Any]) -> tuple[str, str, float]:
    kind = described["kind"]
    if kind in ("linf", "l2", "l1", "l0"):
        return f"{kind}:{_plain(described['size'])}", kind, float(Fraction(described["size"]))
    if kind == "spatial":
        scale = Fraction(described.get("size", "1"))
        rotation, shift = Fraction(described["rotation"]) * scale, Fraction(described["shift"]) * scale
        family = "spatial" if rotation or shift else "identity"
        return (
            f"spatial:rot={_plain(rotation)},shift={_plain(shift)}",
            family,
            float(rotation if rotation else shift),
        )
    if kind == "patch":
        at = described.get("at", "any")
        place = at if isinstance(at, str) else ",".join(str(i) for i in at)
        text = f"patch:{described['height']}x{described['width']}@{place}"
        return text, "patch", float(described["height"] * described["width"])
    if kind in ("union", "intersection"):
        parts = [_set_label(part)[0] for part in described["sets"]]
        text = (" ∪ " if kind == "union" else " ∩ ").join(parts)
        return text, text, 1.0
    return kind, canonical_json(described), float(Fraction(str(described.get("size", "1"))))


def _plain(size: str | Fraction) -> str:
    """Decimals where they are short and exact (0.1), a fraction otherwise (8/255)."""
    value = Fraction(size)
    decimal = f"{float(value):.10g}"
    return decimal if "e" not in decimal and Fraction(decimal) == value else str(value)
