"""What a check says: one finding per promise, and an exception where one is broken.

A promise is a function of what is checked. It raises `PromiseBroken` (what happened, and the remedy), or returns why it
does not apply, or None when it is kept. Its docstring's first line is the promise itself.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from saddlepoint.core.errors import NotAvailable, SaddlepointError

T = TypeVar("T")

Promise = Callable[[T], str | None]
State = Literal["kept", "broken", "does not apply", "not reached"]
_SIGNS: dict[State, str] = {"kept": "ok", "broken": "BROKEN", "does not apply": "n/a", "not reached": "-"}


class PromiseBroken(SaddlepointError):
    """One promise is not kept: what was seen, and what to do."""


@dataclass(frozen=True)
class Finding:
    """One promise: its name, what it says, how it stands, and what was seen."""

    promise: str
    says: str
    state: State
    what: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        lines = [f"{_SIGNS[self.state]:>6}  {self.says}"]
        lines += [f"        {text}" for text in (self.what, self.remedy) if text]
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """All findings about one subject."""

    subject: str
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of the promises that are not kept."""
        return tuple(f.promise for f in self.findings if f.state == "broken")

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the promises that do not apply, e.g. maps that a set does not have."""
        return tuple(f.promise for f in self.findings if f.state == "does not apply")

    def __str__(self) -> str:
        count = {state: sum(f.state == state for f in self.findings) for state in _SIGNS}
        told = ", ".join(f"{n} {state}" for state, n in count.items() if n)
        return "\n".join([f"{self.subject}: {told}; {self.seconds:.1f} s", *map(str, self.findings)])

    __repr__ = __str__


class ContractBroken(SaddlepointError):
    """At least one promise is not kept. `report` has all findings."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report


def require(fine: bool, what: str, remedy: str) -> None:
    """Raise PromiseBroken unless fine."""
    if not fine:
        raise PromiseBroken(what, remedy)


def examine(subject: str, promises: Sequence[Promise[T]], thing: T, basic: int = 0) -> Report:
    """Try every promise on `thing`; once one of the first `basic` is broken, nothing after it is reached.

    Raises ContractBroken where a promise is broken, and returns the report otherwise.
    """
    begun, findings = time.perf_counter(), []
    for promise in promises:
        name, says = getattr(promise, "__name__", "promise"), _first_line(promise)
        if any(f.state == "broken" for f in findings[:basic]):
            findings.append(Finding(name, says, "not reached"))
        else:
            findings.append(_try(promise, thing, name, says))
    report = Report(subject, tuple(findings), time.perf_counter() - begun)
    if report.broken:
        raise ContractBroken(report)
    return report


def _try(promise: Promise[T], thing: T, name: str, says: str) -> Finding:
    try:
        reason = promise(thing)
    except PromiseBroken as broken:
        return Finding(name, says, "broken", broken.what, broken.remedy)
    except NotAvailable as refusal:
        return Finding(name, says, "does not apply", str(refusal))
    except Exception as error:  # the author's code may raise anything: that is a finding, not a crash of the check
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno}, in {where.name})"
        return Finding(name, says, "broken", what, "It should not raise here.")
    return Finding(name, says, "kept") if reason is None else Finding(name, says, "does not apply", reason)


def _first_line(promise: object) -> str:
    return (getattr(promise, "__doc__", None) or "").strip().split("\n")[0]
