"""`saddlepoint lab`: experiments that anybody can run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from saddlepoint.cli.whole import Whole
from saddlepoint.core.errors import InputError

EXPERIMENTS = {"soundness": "does the verifier ever give a wrong answer? networks whose answer is known exactly"}


def lab(
    name: str | None = None,
    *,
    full: bool = False,
    seed: Whole = 0,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
) -> int:
    """Run an experiment; without a name, list them. Exit code 1 if the experiment fails.

    Parameters
    ----------
    name: soundness
    full: 10,000 random networks instead of 200
    seed: of the random networks
    output: a directory for the results as JSON
    """
    if name is None:
        for each, what in EXPERIMENTS.items():
            print(f"{each:12} {what}")
        return 0
    if name not in EXPERIMENTS:
        raise InputError(f"there is no experiment {name!r}.", f"There are: {', '.join(EXPERIMENTS)}.")
    from saddlepoint.evaluation.versions import versions
    from saddlepoint.lab.soundness import self_test
    from saddlepoint.lab.soundness.run import families

    report = self_test(10_000 if full else 200, seed)
    print(f"{'family':12} {'sat':>6} {'unsat':>6} {'undecided':>10}")
    for family, sat, unsat, undecided in families(report):
        print(f"{family:12} {sat:6} {unsat:6} {undecided:10}")
    for line in report.wrong:
        print(f"WRONG  {line}")
    print(f"{report.asked} networks, {len(report.wrong)} wrong answers, {report.seconds:.0f} s, seed {seed}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        found = {**report.json(), "seed": seed, "versions": versions()}
        (output / "soundness.json").write_text(json.dumps(found, indent=1) + "\n")
    return 1 if report.wrong else 0
