"""Linear terms over inputs X_i and outputs Y_j, with exact coefficients.

    term = Σ a_i X_i + Σ c_j Y_j + b,      a, c, b rational

`+`, `-`, `*` and `/` are understood as far as the result is linear; a product of two variables is refused.
"""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass, field
from fractions import Fraction

from saddlepoint.adapters.vnnlib.numbers import NUMERAL, below, number
from saddlepoint.adapters.vnnlib.tokens import Form, refusal
from saddlepoint.core.errors import InputError
from saddlepoint.spec.property import Atom

Variable = tuple[str, int]  # ("X", 3)


@dataclass(frozen=True)
class Term:
    """Σ coefficients[v] · v + constant; no coefficient is 0."""

    coefficients: dict[Variable, Fraction] = field(default_factory=dict)
    constant: Fraction = Fraction(0)

    def plus(self, other: Term, times: Fraction = Fraction(1)) -> Term:
        """self + times · other."""
        total = dict(self.coefficients)
        for name, value in other.coefficients.items():
            total[name] = total.get(name, Fraction(0)) + times * value
        kept = {name: value for name, value in total.items() if value}
        return Term(kept, self.constant + times * other.constant)

    def times(self, factor: Fraction) -> Term:
        """factor · self."""
        return Term().plus(self, factor)


@dataclass(frozen=True)
class Scope:
    """The text, for messages, and the declared variables."""

    text: str
    declared: Container[str]

    def refuse(self, at: int, why: str, remedy: str = "") -> InputError:
        """The error for offset `at`."""
        return refusal(self.text, at, why, remedy)


def term_of(scope: Scope, item: str | Form, at: int) -> Term:
    """The linear term that a word or form stands for; `at` is the offset of the form around it."""
    if isinstance(item, str):
        return _word(scope, item, at)
    if not item.items or not isinstance(item.items[0], str):
        raise scope.refuse(item.at, "a term must begin with +, -, * or /")
    head, rest = item.items[0], item.items[1:]
    if head not in ("+", "-", "*", "/"):
        raise scope.refuse(item.at, f"{head!r} is not a term", "Terms are numbers, X_i, Y_j, +, -, * and /.")
    if not rest:
        raise scope.refuse(item.at, f"({head}) has nothing to work on")
    values = [term_of(scope, part, item.at) for part in rest]
    if head == "-" and len(values) == 1:
        return values[0].times(Fraction(-1))
    total = values[0]
    for value in values[1:]:
        total = _combine(scope, head, total, value, item.at)
    return total


def atom_of(term: Term, inputs: int, outputs: int, strict: bool) -> Atom:
    """The atom that holds iff the term is > 0 (≥ 0 if strict).

    A sign does not change under multiplication with a positive number, so coefficients that no float64 equals are
    made whole. Raises InputError for coefficients that need more than 53 bits even then.
    """
    if not all(_held(value) for value in term.coefficients.values()):
        term = term.times(Fraction(math.lcm(*(value.denominator for value in term.coefficients.values()))))
        if not all(_held(value) for value in term.coefficients.values()):
            raise InputError("a coefficient needs more than 53 bits.", "Write coefficients that float64 can hold.")
    weights: dict[str, list[float]] = {}
    for (side, index), value in term.coefficients.items():
        weights.setdefault(side, [0.0] * (inputs if side == "X" else outputs))[index] = float(value)
    try:
        b = below(term.constant)
    except OverflowError as error:
        raise InputError("a constant exceeds the largest float64.", "Scale the constraint.") from error
    exact = None if Fraction(b) == term.constant else term.constant
    return Atom(tuple(weights.get("Y", ())), tuple(weights.get("X", ())), b, strict, exact)


def _word(scope: Scope, word: str, at: int) -> Term:
    if NUMERAL.fullmatch(word):
        value = number(word)
        if value is None:
            raise scope.refuse(at, f"the number {word[:40]} leaves the range of float64")
        return Term({}, value)
    if word not in scope.declared:
        raise scope.refuse(at, f"{word[:40]!r} is neither a number nor declared", "Declare it before its first use.")
    side, _, index = word.partition("_")
    return Term({(side, int(index)): Fraction(1)})


def _combine(scope: Scope, head: str, left: Term, right: Term, at: int) -> Term:
    if head in ("+", "-"):
        return left.plus(right, Fraction(1 if head == "+" else -1))
    if head == "*" and not left.coefficients:
        return right.times(left.constant)
    if right.coefficients:
        what = "a product of variables" if head == "*" else "a division by a variable"
        raise scope.refuse(at, f"{what} is not linear", "Only linear constraints are supported.")
    if head == "*":
        return left.times(right.constant)
    if not right.constant:
        raise scope.refuse(at, "a division by zero")
    return left.times(1 / right.constant)


def _held(value: Fraction) -> bool:
    """Whether some float64 equals the value."""
    try:
        return Fraction(float(value)) == value
    except OverflowError:
        return False
