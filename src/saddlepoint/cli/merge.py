"""`saddlepoint merge`: the union of ledgers. The bracket can only tighten."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from saddlepoint.ledger import Ledger
from saddlepoint.ledger.merge import merge as union
from saddlepoint.report.console import summary_lines
from saddlepoint.spec import Verdict


def merge(*ledgers: Path, output: Annotated[Path, Parameter(name=("--output", "-o"))]) -> int:
    """Merge two or more ledgers into a new one.

    Parameters
    ----------
    ledgers: written by `saddlepoint run`, on one machine or several
    output: the new ledger
    """
    union(ledgers, output)
    with Ledger(output, create=False) as book:
        claims = book.claims()
    for line in summary_lines(claims):
        print(line)
    # two methods, or two people, may contradict each other only once their evidence meets
    return 3 if any(claim.counts[Verdict.CONTRADICTION] for claim in claims) else 0
