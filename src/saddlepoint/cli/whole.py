"""Whole numbers on the command line: 1.5 is refused, not rounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token


def whole(kind: Any, tokens: Sequence[Token]) -> int:
    """The number that was typed. Raises ValueError, which the command line turns into its message."""
    del kind
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text} is no whole number.") from None


Whole = Annotated[int, Parameter(converter=whole)]
