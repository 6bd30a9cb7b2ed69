"""Findings as lines for a terminal: the verdict, what was measured, and the remedy under what needs one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from saddlepoint.spec.finding import Finding

SEVERITY = ("fail", "unknown", "warn", "pass")


def finding_lines(title: str, findings: Sequence[Finding]) -> list[str]:
    """A heading, then one line per finding, the worst first; remedies are indented."""
    counts = ", ".join(f"{count} {word}" for word in SEVERITY if (count := sum(f.verdict == word for f in findings)))
    lines = [f"{title}: {counts or 'nothing was asked'}"]
    width = max((len(f.title) for f in findings), default=0)
    for finding in sorted(findings, key=lambda f: SEVERITY.index(f.verdict)):
        lines.append(f"  {finding.verdict:<7} {finding.title:<{width}}  {_value(finding.value):>8}  {finding.detail}")
        if finding.remedy:
            lines.append(f"          → {finding.remedy}")
    return lines


def _value(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.3g}"
