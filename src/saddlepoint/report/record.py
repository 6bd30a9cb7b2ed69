"""What a report reads: the questions a ledger answers. Anything that answers them can be reported."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from saddlepoint.ledger.claims import Claim, Exhibit, ModelRow, RunRow
from saddlepoint.spec.finding import Finding


@runtime_checkable
class Record(Protocol):
    """The reading side of `saddlepoint.ledger.Ledger`."""

    def models(self) -> list[ModelRow]:
        """Every model that the record holds evidence about."""
        ...

    def claims(self) -> list[Claim]:
        """One claim per model and threat, in the order they were asked."""
        ...

    def exhibits(self, model: str, threat: str, /) -> list[Exhibit]:
        """Pictures of failures of the model with this digest under this canonical threat, nearest first."""
        ...

    def findings(self, model: str, threat: str, /) -> list[Finding]:
        """What the latest examination of the model under this canonical threat found."""
        ...

    def events(self) -> list[dict[str, Any]]:
        """Learning curves and other happenings; never folded into claims."""
        ...

    def runs(self) -> list[RunRow]:
        """The calls that filled the record, oldest first."""
        ...
