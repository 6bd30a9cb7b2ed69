"""VNN-LIB file -> queries.

    file:  declarations, assertions.  It asks for a point where all assertions hold (a violation of the property).
    here:  ∨ over branches (box ∧ atoms)   ->   one Query per box, whose property says that no branch of it is reached

Limits and constants are decimals. A Query's box is the smallest float64 box around the decimals (lower limits rounded
down, upper ones up), so it never shrinks and a proof on it is one for the file; a witness must keep limits rounded the
other way (numbers.py). Where no float64 lies between two limits (both are 0.1, say), the witness's coordinate is the
float64 nearest to them, as every reader of the file takes it.

Whatever is not understood is refused with its line, never left out: a constraint that is skipped proves something else.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from saddlepoint.adapters.vnnlib.formula import ALWAYS, Branch, Limits, branches_of, conjunction, tighter
from saddlepoint.adapters.vnnlib.numbers import Rounded, plain_limit
from saddlepoint.adapters.vnnlib.second import forms_of_second, is_second
from saddlepoint.adapters.vnnlib.terms import Scope, atom_of
from saddlepoint.adapters.vnnlib.tokens import Declaration, Form, Limit, forms
from saddlepoint.core.errors import InputError, RefusedFile
from saddlepoint.spec.property import Atom, Property
from saddlepoint.spec.query import Query

SILENT = frozenset({"set-logic", "set-info", "set-option", "check-sat", "get-model", "exit"})  # constrain nothing
VIOLATED = Atom(b=-1.0)  # a branch without atoms is reached by every point of its box


@dataclass(frozen=True)
class Specification:
    """What a file asks about a network with `inputs` inputs and `outputs` outputs. It is `unsat` iff all hold."""

    inputs: int
    outputs: int
    queries: tuple[Query, ...]


def read_vnnlib(path: str | Path) -> Specification:
    """The queries of a `.vnnlib` file, also gzipped. Raises RefusedFile or InputError with the line."""
    path = Path(path)
    text = text_of(path)
    try:
        return parse(text)
    except InputError as error:
        raise type(error)(f"{path}, {error.what}", error.remedy) from error


def text_of(path: Path) -> str:
    """The file's text. Raises RefusedFile if it is missing, damaged or not text."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    except FileNotFoundError as error:
        raise RefusedFile(f"{path} does not exist.", "Check the path.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise RefusedFile(f"{path} cannot be read: {error}.", "Download the file again.") from error
    except UnicodeDecodeError as error:
        raise RefusedFile(f"{path} is not a text file ({error.reason}).", "Give the specification second.") from error


def parse(text: str) -> Specification:
    """The queries of a VNN-LIB text, of version 1.0 or, where the package `vnnlib` is installed, 2.0."""
    reader = _Reader(text)
    if is_second(text):
        reader.read_second()
        return reader.finish()
    for form in forms(text):
        reader.read(form)
    return reader.finish()


class _Reader:
    """Collects declarations, limits of the whole file, and branches."""

    def __init__(self, text: str) -> None:
        self.declared: dict[str, None] = {}
        self.scope = Scope(text, self.declared)
        self.shared: Limits = {}
        self.parts: list[tuple[Branch, ...]] = []
        self.closed = False

    def read(self, form: Form | Declaration | Limit) -> None:
        """Takes in one form."""
        if isinstance(form, Limit):
            if f"X_{form.input}" not in self.declared:
                raise self.scope.refuse(
                    form.at, f"'X_{form.input}' is not declared", "Declare it before its first use."
                )
            self._open(form.at)
            rounded = plain_limit(form.value, lower=form.op == ">=")
            if rounded is None:
                raise self.scope.refuse(form.at, f"the number {form.value} leaves the range of float64")
            self._limit((form.input, form.op == ">="), rounded)
        elif isinstance(form, Declaration):
            self._declare(form.name, form.at)
        elif not form.items or not isinstance(form.items[0], str):
            raise self.scope.refuse(form.at, "a command must begin with its name")
        else:
            self._command(form.items[0], form.items[1:], form.at)

    def read_second(self) -> None:
        """Takes in a text of version 2.0."""
        inputs, outputs, found = forms_of_second(self.scope.text)
        for side, size in (("X", inputs), ("Y", outputs)):
            for i in range(size):
                self._declare(f"{side}_{i}", 0)
        for formula in found:
            self._command("assert", [formula], formula.at)

    def finish(self) -> Specification:
        """All branches, grouped by their boxes."""
        inputs, outputs = (self._count(side) for side in ("X", "Y"))
        branches = conjunction(self.scope, self.parts, len(self.scope.text)) if self.parts else ALWAYS
        groups: dict[tuple[tuple[tuple[int, bool], Rounded], ...], list[Branch]] = {}
        for branch in branches:
            groups.setdefault(tuple(sorted(branch.limits.items())), []).append(branch)
        queries = (self._query(dict(limits), found, inputs, outputs) for limits, found in groups.items())
        return Specification(inputs, outputs, tuple(query for query in queries if query is not None))

    def _command(self, head: str, rest: list[str | Form], at: int) -> None:
        if head == "assert":
            if len(rest) != 1:
                raise self.scope.refuse(at, f"assert takes one formula, here are {len(rest)}")
            self._open(at)
            found = branches_of(self.scope, rest[0], at)
            if len(found) == 1 and not found[0].atoms:
                for key, rounded in found[0].limits.items():
                    self._limit(key, rounded)
            else:
                self.parts.append(found)
        elif head in ("declare-const", "declare-fun"):
            self._declaration(head, rest, at)
        elif head in SILENT:
            self.closed |= head in ("check-sat", "exit")
        else:
            raise self.scope.refuse(at, f"the command {head!r} is not supported", "Commands: declare-const, assert.")

    def _declaration(self, head: str, rest: list[str | Form], at: int) -> None:
        if head == "declare-fun" and len(rest) == 3 and isinstance(rest[1], Form) and not rest[1].items:
            rest = [rest[0], rest[2]]
        if len(rest) != 2 or not isinstance(rest[0], str) or rest[1] != "Real":
            raise self.scope.refuse(at, "a declaration is (declare-const X_0 Real)")
        side, _, index = rest[0].partition("_")
        if side not in ("X", "Y") or not (index.isascii() and index.isdigit()) or index != str(int(index)):
            raise self.scope.refuse(at, f"{rest[0]!r} is neither an input X_i nor an output Y_j")
        self._declare(rest[0], at)

    def _declare(self, name: str, at: int) -> None:
        if name in self.declared:
            raise self.scope.refuse(at, f"{name!r} is declared twice")
        self._open(at)
        self.declared[name] = None

    def _open(self, at: int) -> None:
        if self.closed:
            raise self.scope.refuse(at, "a command follows check-sat or exit", "Put it before.")

    def _limit(self, key: tuple[int, bool], rounded: Rounded) -> None:
        known = self.shared.get(key)
        self.shared[key] = rounded if known is None else tighter(known, rounded, key[1])

    def _count(self, side: str) -> int:
        """The number of inputs or outputs; their indices run from 0 without a gap."""
        indices = [int(name[2:]) for name in self.declared if name[0] == side]
        if not indices or max(indices) != len(indices) - 1:
            first = next((i for i in range(len(indices) + 1) if f"{side}_{i}" not in self.declared), 0)
            raise InputError(f"{side}_{first} is not declared.", f"Declare {side}_0, {side}_1, … without a gap.")
        return len(indices)

    def _query(self, limits: Limits, branches: Iterable[Branch], inputs: int, outputs: int) -> Query | None:
        """One box and its clauses; None for a box without points."""
        lower, upper = (self._side(limits, inputs, which) for which in (True, False))
        if bool((lower[0] > upper[0]).any()):
            return None  # the widest reading of the limits is empty, so is the box that was meant
        none_between = lower[1] > upper[1]
        inner = tuple(torch.where(none_between, side[2], side[1]) for side in (lower, upper))
        clauses = tuple(
            tuple(atom_of(a.term, inputs, outputs, a.strict) for a in branch.atoms) or (VIOLATED,)
            for branch in branches
        )
        return Query(lower[0], upper[0], Property(clauses), (inner[0], inner[1]))

    def _side(self, limits: Limits, inputs: int, lower: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Outer, inner and nearest limits, each (inputs,), of one side."""
        rows = []
        for index in range(inputs):
            found = [known[index, lower] for known in (self.shared, limits) if (index, lower) in known]
            if not found:
                side = "lower" if lower else "upper"
                raise InputError(f"X_{index} has no {side} limit.", "Bound every input on both sides, in every branch.")
            rows.append(found[0] if len(found) == 1 else tighter(found[0], found[1], lower))
        outer, inner, nearest = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
        return outer, inner, nearest
