"""`saddlepoint gate`: a policy against a ledger. Reads the ledger only; the exit code is the answer."""

from __future__ import annotations

from pathlib import Path

from saddlepoint import __version__
from saddlepoint.cli.files import write
from saddlepoint.core.errors import InputError
from saddlepoint.ledger import Ledger
from saddlepoint.report.console import judgement_lines
from saddlepoint.report.gate import gate_exit_code, judge
from saddlepoint.report.junit import junit_report
from saddlepoint.report.policy import parse_policy
from saddlepoint.report.sarif import sarif_report


def gate(ledger: Path, *, policy: Path, junit: Path | None = None, sarif: Path | None = None) -> int:
    """Judge a ledger by a policy: 0 passed, 1 failed, 4 open or unknown, 3 CONTRADICTION.

    Parameters
    ----------
    ledger: written by `saddlepoint run`
    policy: policy.toml, a list of [[require]]
    """
    try:
        required = parse_policy(policy.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{policy} cannot be read: {error}.", "Give a TOML file with [[require]] tables.") from error
    with Ledger(ledger, create=False) as book:
        claims = book.claims()
    judgements = judge(claims, required)
    for line in judgement_lines(judgements):
        print(line)
    if junit:
        write(junit, junit_report(judgements))
    if sarif:
        write(sarif, sarif_report(judgements, policy.as_posix(), __version__))
    return gate_exit_code(judgements, claims)
