"""Docstrings here are plain text: paragraphs, `code`, indented formulas, "Raises:" sections, doctests.

They are read in the editor far more often than in HTML, so they carry no markup. This turns them into what
Sphinx expects: indented blocks become literal blocks, `code` becomes code, everything else is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from textwrap import dedent
from typing import Any

_SECTION = re.compile(r"(Args|Arguments|Raises|Returns|Yields|Notes?|Source):")


def _inline(text: str) -> str:
    """Escape what reStructuredText would interpret, outside `code`."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(f"`{p}`" if p[:1] == "`" and len(p) > 2 else re.sub(r"([\\*`|_])", r"\\\1", p) for p in parts)


def _literal(lines: list[str]) -> Iterator[str]:
    yield from ("", "::", "", *("    " + line for line in dedent("\n".join(lines)).splitlines()), "")


def _paragraph(lines: list[str]) -> Iterator[str]:
    if lines[0].startswith(">>>"):
        yield from ("", *lines, "")
        return
    for indented, run in groupby(lines, key=lambda line: line.startswith("    ")):
        body = list(run)
        yield from _literal(body) if indented else _text(body)


def _text(lines: list[str]) -> Iterator[str]:
    """Prose and lists. A line with a shallow indent continues the list item above it."""
    hanging = ""
    yield ""
    for line in lines:
        mark = re.match(r"\s*([-*]|\d+\.) +", line)
        if mark:
            yield from ([] if hanging else [""])
            hanging = " " * len(mark.group().lstrip())
            yield mark.group().lstrip() + _inline(line[mark.end() :])
        elif hanging and line[0] == " ":
            yield hanging + _inline(line.strip())
        else:
            yield from ([""] if hanging else [])
            hanging = ""
            yield f"**{line[:-1]}**" if _SECTION.fullmatch(line) else _inline(line.strip())
    yield ""


def process(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Rewrite `lines` in place (the signature is Sphinx's)."""
    del app, what, name, obj, options
    new: list[str] = []
    for empty, run in groupby(dedent("\n".join(lines)).splitlines(), key=lambda line: not line.strip()):
        new.extend([""] if empty else _paragraph(list(run)))
    lines[:] = new


def setup(app: Any) -> dict[str, bool]:
    """Sphinx's entry point."""
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}
