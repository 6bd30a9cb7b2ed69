"""policy.toml: what a model must show before it is let through.

    [[require]]
    threat   = "linf:2/255"                # as on the command line
    metric   = "robust_accuracy"           # or clean_accuracy, worst_class_robust_accuracy, or a finding's id
    at_least = 0.6                         # or at_most
    samples  = 500                         # fewer samples than this settle nothing
    open     = "fail"                      # or "allow": open samples are counted as if they held
    id, model                              # optional: a name for the requirement, the one model it is about

Every key is typed, unknown keys are errors, and every error names its line: a policy that is misread is worse
than none. TOML positions are not in tomllib's result, so a small scan of the text finds them.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saddlepoint.core.arithmetic import exact
from saddlepoint.core.errors import InputError

ACCURACIES = ("robust_accuracy", "clean_accuracy", "worst_class_robust_accuracy")
_SIZED = ("linf", "l2", "l1", "l0", "spatial", "patch")
_KEYS = ("threat", "metric", "at_least", "at_most", "samples", "open", "id", "model")


@dataclass(frozen=True)
class Requirement:
    """One `[[require]]`. `line` is where its threshold stands in the file, counted from 1."""

    id: str
    metric: str
    threshold: float
    at_least: bool
    line: int
    threat: str | None = None
    samples: int = 0
    allow_open: bool = False
    model: str | None = None

    @property
    def title(self) -> str:
        """The requirement in one phrase."""
        where = f" at {self.threat}" if self.threat else ""
        return f"{self.id}: {self.metric}{where} {'≥' if self.at_least else '≤'} {self.threshold:g}"


@dataclass(frozen=True)
class Policy:
    """What must hold, in the order of the file."""

    requirements: tuple[Requirement, ...]


def parse_policy(text: str) -> Policy:
    """Read and check a policy. Raises InputError with key, line and remedy for anything that is not in the schema."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the policy is not TOML: {error}.", "See [[require]] in the documentation.") from error
    lines = _Lines(text)
    for key in document:
        if key != "require":
            raise InputError(
                f"line {lines.of_key(-1, key)}: unknown key {key!r}{_meant(key, ('require',))}.",
                "A policy is a list of [[require]] tables.",
            )
    tables = document.get("require", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InputError("the policy requires nothing.", "Write at least one [[require]] table.")
    requirements = tuple(_requirement(index, table, lines) for index, table in enumerate(tables))
    names = [requirement.id for requirement in requirements]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InputError(
                f"line {lines.of_key(index, 'id')}: the id {name!r} is used twice.", "Ids are names: give each its own."
            )
    return Policy(requirements)


def threat_key(label: str) -> tuple[str, Any]:
    """What a threat's text means, however it is written: sizes as rationals, options in any order.

    >>> threat_key("linf:0.1") == threat_key("linf: 1/10")
    True
    >>> threat_key("spatial:shift=3,rot=30") == threat_key("spatial:rot=30.0,shift=3")
    True
    """
    kind, _, rest = label.replace(" ", "").partition(":")
    return kind.lower(), frozenset(_option(part) for part in rest.split(","))


def _option(part: str) -> tuple[str, Any]:
    name, _, value = part.rpartition("=")
    try:
        return name, exact(value)
    except InputError:
        return name, value.lower()  # "5x5@any" is no number; it is compared as text


def _requirement(index: int, table: Mapping[str, Any], lines: _Lines) -> Requirement:
    for key in table:
        if key not in _KEYS:
            raise InputError(
                f"line {lines.of_key(index, key)}: unknown key {key!r}{_meant(key, _KEYS)}.",
                f"Known keys: {', '.join(_KEYS)}.",
            )
    read = _Reader(index, table, lines)
    metric = read.text("metric")
    if metric is None:
        raise InputError(
            f"line {lines.of_table(index)}: a requirement has no metric.",
            f"Write metric = one of {', '.join(ACCURACIES)}, or a finding's id.",
        )
    if metric not in ACCURACIES and (near := _meant(metric, ACCURACIES)):
        raise InputError(
            f"line {lines.of_key(index, 'metric')}: unknown metric {metric!r}{near}.",
            f"Accuracies: {', '.join(ACCURACIES)}.",
        )
    threat = read.text("threat")
    if threat is not None and threat.strip().rstrip(":").lower() in _SIZED:
        raise InputError(
            f"line {lines.of_key(index, 'threat')}: {threat!r} is a threat without a size.",
            'Write it as on the command line, "linf:2/255".',
        )
    if threat is None and metric in ACCURACIES and metric != "clean_accuracy":
        raise InputError(f"line {lines.of_table(index)}: {metric} needs a threat.", 'Add threat = "linf:2/255".')
    bounds = [key for key in ("at_least", "at_most") if key in table]
    if len(bounds) != 1:
        raise InputError(
            f"line {lines.of_table(index)}: {len(bounds)} of at_least and at_most are given.", "Give exactly one."
        )
    return Requirement(
        id=read.text("id") or f"R{index + 1}",
        metric=metric,
        threshold=read.threshold(bounds[0], metric in ACCURACIES),
        at_least=bounds[0] == "at_least",
        line=lines.of_key(index, bounds[0]),
        threat=threat,
        samples=read.count("samples"),
        allow_open=read.choice("open", ("fail", "allow")) == "allow",
        model=read.text("model"),
    )


@dataclass(frozen=True)
class _Reader:
    """Typed reading of one table; each complaint names key, line and value."""

    index: int
    table: Mapping[str, Any]
    lines: _Lines

    def text(self, key: str) -> str | None:
        value = self.table.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise self._wrong(key, "a text that is not empty")
        return value

    def threshold(self, key: str, share: bool) -> float:
        value = self.table[key]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or value != value or (share and not 0 <= value <= 1):
            raise self._wrong(key, "a number between 0 and 1" if share else "a number")
        return float(value)

    def count(self, key: str) -> int:
        value = self.table.get(key, 0)
        if not isinstance(value, int) or isinstance(value, bool) or (key in self.table and value < 1):
            raise self._wrong(key, "a whole number, at least 1")
        return value

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        value = self.table.get(key, allowed[0])
        if value not in allowed:
            raise self._wrong(key, " or ".join(f'"{item}"' for item in allowed))
        return value

    def _wrong(self, key: str, wanted: str) -> InputError:
        line = self.lines.of_key(self.index, key)
        return InputError(f"line {line}: {key} = {self.table[key]!r} is not {wanted}.", "Change it and ask again.")


class _Lines:
    """Where the tables and keys of a TOML text stand, line numbers from 1."""

    def __init__(self, text: str) -> None:
        self._tables: list[int] = []
        self._keys: dict[tuple[int, str], int] = {}
        inside = ""  # the delimiter of the multi-line string that we are in
        for number, line in enumerate(text.splitlines(), start=1):
            if not inside:
                self._read(number, line)
            for quote in re.findall(r'"""|\'\'\'', line):
                inside = quote if not inside else "" if inside == quote else inside

    def _read(self, number: int, line: str) -> None:
        if re.match(r"\s*\[\[\s*[\"']?require[\"']?\s*\]\]", line):
            self._tables.append(number)
        elif match := re.match(r"\s*(\[*)\s*[\"']?([\w-]+)[\"']?\s*[\].=]", line):
            table = -1 if match[1] else len(self._tables) - 1  # another table's header stands at the top level
            self._keys.setdefault((table, match[2]), number)

    def of_table(self, index: int) -> int:
        """The line of the table's header; for inline tables the line of `require`."""
        return self._tables[index] if index < len(self._tables) else self._keys.get((-1, "require"), 1)

    def of_key(self, index: int, key: str) -> int:
        """The line of a key of table `index` (−1: the top level), or of its table."""
        return self._keys.get((index, key), self.of_table(max(index, 0)))


def _meant(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, 1, 0.75)
    return f" (did you mean {near[0]!r}?)" if near else ""
