"""The part of a ledger that one run was about, with the same questions answered."""

from __future__ import annotations

from typing import Any

from saddlepoint.evaluation.running import Ran
from saddlepoint.ledger import Claim, Exhibit, Ledger, ModelRow, RunRow
from saddlepoint.spec import Finding


class Selection:
    """A `report.record.Record` of one run: its model, its threats, its samples."""

    def __init__(self, ledger: Ledger, ran: Ran) -> None:
        self._ledger, self._ran = ledger, ran
        self._claims = [ledger.claim(ran.model, threat, ran.contents) for threat in ran.threats]

    def models(self) -> list[ModelRow]:
        """The one model."""
        return [model for model in self._ledger.models() if model.digest == self._ran.model]

    def claims(self) -> list[Claim]:
        """One claim per threat, in the order given."""
        return self._claims

    def exhibits(self, model: str, threat: str, /) -> list[Exhibit]:
        """Failures to look at."""
        return self._ledger.exhibits(model, threat)

    def findings(self, model: str, threat: str, /) -> list[Finding]:
        """Of the latest examination."""
        return self._ledger.findings(model, threat)

    def events(self) -> list[dict[str, Any]]:
        """Learning curves."""
        return self._ledger.events()

    def runs(self) -> list[RunRow]:
        """This run alone."""
        return [self._ran.record]
