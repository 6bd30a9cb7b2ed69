"""Every failure says what happened, with the value, and what to do about it.

One family, so that a caller can tell "you can mend this" (`InputError`), "a method is unsound"
(`Contradiction`) and "the machine failed us" (`WorkerDied`, `LedgerError`) apart by type.
"""

from __future__ import annotations


class SaddlepointError(Exception):
    """Base of the house's errors. `str(error)` is the fact followed by the remedy."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}".strip()


class InputError(SaddlepointError):
    """Something the caller gave cannot be used as it is."""


class InputOutsideDomain(InputError):
    """Data leave the model's domain (usually: normalised images, or 0..255 instead of 0..1)."""


class DataError(InputError):
    """Data that no claim can rest on: NaN, labels out of range, empty, one class, wrong shape."""


class NoSuchPart(DataError):
    """Data without the part that was named (`:test`, say)."""


class NonFinite(InputError):
    """NaN or infinity where a number is needed: in logits, weights or data."""


class NotAvailable(InputError):
    """A map that has no cheap exact form for this set. It is refused rather than approximated."""


class UnsupportedModel(InputError):
    """Not a classifier, or one that cannot be run here."""


class UnsupportedOperator(InputError):
    """An operator of the graph that has no rule; the message names it."""


class StochasticModel(InputError):
    """Two calls on one input differ, so one draw bounds nothing."""


class RefusedFile(InputError):
    """A file that would run code when loaded, or that is damaged."""


class MissingExtra(InputError):
    """An optional package is not installed."""


class ImporterDisagreement(InputError):
    """Our reading of a model and the reference runtime give different outputs."""


class SubjectChanged(InputError):
    """A name in the ledger now stands for other weights or other data."""


class LedgerError(SaddlepointError):
    """The ledger cannot be read or written: not ours, a newer schema, damaged, or the disk is full."""


class WorkerDied(SaddlepointError):
    """A worker process ended before its answer. Everything committed so far is kept."""


class Contradiction(SaddlepointError):
    """A certificate above a witnessed margin: some method is unsound."""
