"""beartype as jaxtyping's import hook calls it: function by function."""

from __future__ import annotations

from typing import Any, Self

from beartype import beartype


def checked(thing: Any) -> Any:
    """beartype, without the annotation `Self`: it has a meaning only where a whole class is decorated."""
    annotations = getattr(thing, "__annotations__", {})
    if not isinstance(thing, type) and any(hint in ("Self", Self) for hint in annotations.values()):
        thing.__annotations__ = {n: hint for n, hint in annotations.items() if hint not in ("Self", Self)}
    return beartype(thing)
