"""`saddlepoint report`: a ledger as HTML, JSON, JUnit, SARIF, or lines on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from saddlepoint import __version__
from saddlepoint.cli.files import write
from saddlepoint.ledger import Claim, Ledger
from saddlepoint.report.console import summary_lines
from saddlepoint.report.gate import judge
from saddlepoint.report.html import html_report
from saddlepoint.report.json_report import json_report
from saddlepoint.report.junit import junit_report
from saddlepoint.report.policy import parse_policy
from saddlepoint.report.sarif import sarif_report


def report(
    ledger: Path,
    *,
    html: Path | None = None,
    json: Path | None = None,
    junit: Path | None = None,
    sarif: Path | None = None,
    images: Annotated[bool, Parameter(help="leave the pictures out with --no-images")] = True,
) -> int:
    """Tell what a ledger holds. Nothing is run; the same ledger always gives the same report.

    Parameters
    ----------
    ledger: written by `saddlepoint run`
    """
    with Ledger(ledger, create=False) as book:
        claims = book.claims()
        for line in summary_lines(claims):
            print(line)
        if html:
            write(html, html_report(book, ledger.name, images))
        if json:
            write(json, json_report(book))
        judgements = judge(claims, parse_policy(_nothing_required(claims))) if claims else []
        if junit:
            write(junit, junit_report(judgements, "saddlepoint report"))
        if sarif:
            write(sarif, sarif_report(judgements, ledger.name, __version__))
    return 0


def _nothing_required(claims: list[Claim]) -> str:
    """A report has no policy: its test cases state each bracket, and fail on a CONTRADICTION only."""
    labels = dict.fromkeys(claim.label for claim in claims)
    one = '[[require]]\nthreat = "{}"\nmetric = "robust_accuracy"\nat_least = 0.0\nopen = "allow"\n'
    return "\n".join(one.format(label) for label in labels)
