"""Assertions to branches: a disjunction over boxes of conjunctions of linear atoms.

    assertion_1 ∧ … ∧ assertion_k   =   ∨ over branches  (limits on X  ∧  atoms over X and Y)

A constraint on one input alone is a limit and shapes the box of its branch; every other constraint is an atom. `and`
multiplies branches out, which is refused beyond MOST of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from saddlepoint.adapters.vnnlib.numbers import Rounded, limit
from saddlepoint.adapters.vnnlib.terms import Scope, Term, term_of
from saddlepoint.adapters.vnnlib.tokens import Form

MOST = 20_000

Limits = dict[tuple[int, bool], Rounded]  # (input, whether it is the lower one) -> limit

# op -> (whether left − right is turned round, whether the inequality is strict); `=` is two inequalities
_ORDER = {"<=": (False, False), ">=": (True, False), "<": (False, True), ">": (True, True)}


@dataclass(frozen=True)
class Atomic:
    """term ≤ 0, or < 0 if strict."""

    term: Term
    strict: bool


@dataclass(frozen=True)
class Branch:
    """All limits and all atoms hold."""

    limits: Limits
    atoms: tuple[Atomic, ...] = ()


ALWAYS = (Branch({}),)


def tighter(one: Rounded, other: Rounded, lower: bool) -> Rounded:
    """The stronger of two limits on one side of one input; rounding is monotone, so each reading may be taken alone."""
    choose: Callable[..., float] = max if lower else min
    return Rounded(*(choose(a, b) for a, b in zip(one, other, strict=True)))


def joined(one: Limits, other: Limits) -> Limits:
    """Both sets of limits."""
    total = dict(one)
    for (index, lower), rounded in other.items():
        known = total.get((index, lower))
        total[index, lower] = rounded if known is None else tighter(known, rounded, lower)
    return total


def branches_of(scope: Scope, item: str | Form, at: int) -> tuple[Branch, ...]:
    """The branches of a formula; none means that it is false."""
    if isinstance(item, str):
        if item in ("true", "false"):
            return ALWAYS if item == "true" else ()
        raise scope.refuse(at, f"{item!r} is not a formula", "Formulas are and, or, <=, >=, <, > and =.")
    if not item.items or not isinstance(item.items[0], str):
        raise scope.refuse(item.at, "a formula must begin with and, or, <=, >=, <, > or =")
    head, rest = item.items[0], item.items[1:]
    if head == "and":
        return conjunction(scope, (branches_of(scope, part, item.at) for part in rest), item.at)
    if head == "or":
        found = tuple(branch for part in rest for branch in branches_of(scope, part, item.at))
        return _admitted(scope, found, item.at)
    if head not in (*_ORDER, "="):
        raise scope.refuse(item.at, f"{head!r} is not supported", "Formulas are and, or, <=, >=, <, > and =.")
    if len(rest) < 2:
        raise scope.refuse(item.at, f"{head!r} compares two terms, here are {len(rest)}")
    terms = [term_of(scope, part, item.at) for part in rest]
    pairs = pairwise(terms)  # (<= a b c) means a ≤ b and b ≤ c
    return conjunction(scope, (_comparison(scope, head, a, b, item.at) for a, b in pairs), item.at)


def conjunction(scope: Scope, parts: Iterable[tuple[Branch, ...]], at: int) -> tuple[Branch, ...]:
    """One branch of every part, in every combination."""
    total: tuple[Branch, ...] = ALWAYS
    for part in parts:
        if len(total) * len(part) > MOST:
            raise scope.refuse(at, f"the formula has more than {MOST:,} branches", "Split the file.")
        total = tuple(Branch(joined(a.limits, b.limits), a.atoms + b.atoms) for a in total for b in part)
    return total


def _admitted(scope: Scope, found: tuple[Branch, ...], at: int) -> tuple[Branch, ...]:
    if len(found) > MOST:
        raise scope.refuse(at, f"the formula has more than {MOST:,} branches", "Split the file.")
    return found


def _comparison(scope: Scope, op: str, left: Term, right: Term, at: int) -> tuple[Branch, ...]:
    if op == "=":
        both = (_comparison(scope, side, left, right, at) for side in ("<=", ">="))
        return conjunction(scope, both, at)
    turned, strict = _ORDER[op]
    term = right.plus(left, Fraction(-1)) if turned else left.plus(right, Fraction(-1))
    if not term.coefficients:
        true = term.constant < 0 if strict else term.constant <= 0
        return ALWAYS if true else ()
    if len(term.coefficients) > 1 or next(iter(term.coefficients))[0] == "Y":
        return (Branch({}, (Atomic(term, strict),)),)
    ((_, index), factor) = next(iter(term.coefficients.items()))
    # factor · X + constant ≤ 0: an upper limit for a positive factor, a lower one for a negative
    value, lower = -term.constant / factor, factor < 0
    try:
        return (Branch({(index, lower): limit(value, lower=lower, strict=strict)}),)
    except OverflowError as error:
        raise scope.refuse(at, f"the limit of X_{index} exceeds the largest float64") from error
