"""A finding: one question asked of an evaluation or a system, with what was measured and what to do about it.

Findings are never folded into claims: a bracket rests on evidence, a finding says how far the evidence can be
relied on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Assessment = Literal["pass", "warn", "fail", "unknown"]


@dataclass(frozen=True)
class Finding:
    """`value` (in `unit`) is what was measured, `detail` says on how much; `ci95` its interval where it is a share.

    pass: nothing wrong was seen. warn: harmless here, and would mislead another evaluation. fail: the evaluation shows
    less than it seems to. unknown: could not be asked. `cures` are the remedy in the short form that
    `saddlepoint run --adapt` applies.
    """

    id: str
    title: str
    verdict: Assessment
    value: float | None
    detail: str
    remedy: str = ""
    unit: str = ""
    ci95: tuple[float, float] | None = None
    cures: tuple[str, ...] = ()

    @property
    def fires(self) -> bool:
        """Whether there is something to be mended."""
        return self.verdict in ("warn", "fail")

    def described(self) -> dict[str, Any]:
        """The finding as JSON."""
        return {
            "id": self.id,
            "title": self.title,
            "verdict": self.verdict,
            "value": self.value,
            "ci95": None if self.ci95 is None else list(self.ci95),
            "unit": self.unit,
            "detail": self.detail,
            "remedy": self.remedy,
            "cures": list(self.cures),
        }


def finding_of(described: dict[str, Any]) -> Finding:
    """The finding that `described` tells of."""
    pair = described["ci95"]
    return Finding(
        **{**described, "ci95": None if pair is None else (pair[0], pair[1]), "cures": tuple(described["cures"])}
    )
