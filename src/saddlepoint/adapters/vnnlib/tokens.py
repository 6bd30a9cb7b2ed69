"""VNN-LIB text to forms, in one sweep.

A form is `(head …)`; words and forms are its items. The two forms that make up nearly all of a file, a declaration and
a limit of one input, are recognised whole, so that files of thousands of lines cost milliseconds. Every character
belongs to a piece: what fits none is refused with its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from saddlepoint.core.errors import InputError

DEPTH = 200  # nesting beyond this is refused, so that no reader below runs out of stack

_NUMBER = r"[-+]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][-+]?\d{1,3})?"
_PIECE = re.compile(
    rf"""
    (?P<limit>\(\s*assert\s+\(\s*(?P<op><=|>=)\s+X_(?P<index>0|[1-9]\d{{0,8}})\s+(?P<value>{_NUMBER})\s*\)\s*\))
  | (?P<declaration>\(\s*declare-const\s+(?P<name>[XY]_(?:0|[1-9]\d{{0,8}}))\s+Real\s*\))
  | (?P<space>\s+|;[^\n]*)
  | (?P<open>\()
  | (?P<close>\))
  | (?P<word>[^\s();"|]+)
    """,
    re.VERBOSE,
)


class Form(NamedTuple):
    """A parenthesised list; `at` is the offset of its opening bracket."""

    at: int
    items: list[str | Form]


class Declaration(NamedTuple):
    """`(declare-const name Real)`."""

    at: int
    name: str


class Limit(NamedTuple):
    """`(assert (op X_input value))`, the value as it was written."""

    at: int
    op: str
    input: int
    value: str


def forms(text: str) -> Iterator[Form | Declaration | Limit]:
    """The forms of a file from the top. Raises InputError with the line."""
    stack: list[Form] = []
    position, match = 0, _PIECE.match
    while position < len(text):
        found = match(text, position)
        if found is None:
            raise refusal(text, position, f"{text[position]!r} has no meaning in VNN-LIB")
        kind = found.lastgroup
        if kind == "open":
            if len(stack) == DEPTH:
                raise refusal(text, position, f"more than {DEPTH} forms are nested")
            stack.append(Form(position, []))
        elif kind == "close":
            if not stack:
                raise refusal(text, position, "a bracket is closed that was never opened")
            done = stack.pop()
            if stack:
                stack[-1].items.append(done)
            else:
                yield done
        elif kind == "word":
            if not stack:
                raise refusal(text, position, f"{found['word']!r} stands outside of any form")
            stack[-1].items.append(found["word"])
        elif kind != "space":
            if stack:
                raise refusal(text, position, "a command stands inside another form")
            if kind == "limit":
                yield Limit(position, found["op"], int(found["index"]), found["value"])
            else:
                yield Declaration(position, found["name"])
        position = found.end()
    if stack:
        raise refusal(text, stack[-1].at, "the bracket opened here is never closed")


def refusal(text: str, at: int, why: str, remedy: str = "") -> InputError:
    """The error for offset `at`, which names the line."""
    return InputError(f"line {text.count(chr(10), 0, at) + 1}: {why}.", remedy)
