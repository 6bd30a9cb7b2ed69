"""`saddlepoint run`: model + data + threats → evidence → bracket. The same command again resumes."""

from __future__ import annotations

import json as json_module
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from saddlepoint.adapters import redact
from saddlepoint.cli.files import write
from saddlepoint.cli.options import ModelOptions, load_both, workers_of
from saddlepoint.cli.progress import follow
from saddlepoint.cli.threats import parse_threats
from saddlepoint.cli.view import Selection
from saddlepoint.cli.whole import whole
from saddlepoint.evaluation import Request, Work, plan_named, prepare
from saddlepoint.evaluation import run as carry_out
from saddlepoint.evaluation.adapt import DRAWS, Adaptation, adapt
from saddlepoint.evaluation.doctor import Effort
from saddlepoint.evaluation.running import Ran
from saddlepoint.evaluation.seconds import seconds_of
from saddlepoint.ledger import Ledger
from saddlepoint.ledger.labels import label_of
from saddlepoint.report.console import summary_lines
from saddlepoint.report.json_report import json_report

_THREAT = "linf:8/255, l2:0.5, spatial:rot=30,shift=3, …; repeat for curves"


@Parameter(name="*")
@dataclass(frozen=True)
class RunOptions:
    """How hard to try, and how to carry it out."""

    n: Annotated[int | None, Parameter(converter=whole, help="the first n samples (default: all)")] = None
    sample: Annotated[Literal["first", "random"], Parameter(help="which n")] = "first"
    plan: Annotated[str, Parameter(help="quick, standard, strong, or a TOML file")] = "standard"
    budget: Annotated[str | None, Parameter(help="wall time: 90s, 10m, 1h30m")] = None
    workers: Annotated[str, Parameter(help="worker processes, or ray")] = "1"
    seed: Annotated[int, Parameter(converter=whole, help="of all random numbers")] = 0
    batch: Annotated[int, Parameter(converter=whole, help="most rows in one forward pass")] = 128
    deterministic: Annotated[bool, Parameter(help="bitwise equal for any number of workers; slower")] = False
    adapt: Annotated[bool, Parameter(help="look for what hides gradients first, and attack through it")] = False


def run(
    model: str,
    *,
    data: str,
    threat: Annotated[list[str], Parameter(help=_THREAT, negative="")],
    ledger: Path | None = None,
    json: Annotated[Path | None, Parameter(help="write the result as JSON")] = None,
    options: RunOptions = RunOptions(),  # frozen
    loading: ModelOptions = ModelOptions(),  # noqa: B008  # frozen
) -> int:
    """Evaluate MODEL on DATA under one or several threats.

    The bracket in the ledger is valid at any moment: Ctrl-C loses nothing, and the same command again resumes.

    Parameters
    ----------
    model: NET.onnx, NET.pt2, NET.safetensors|.pt (with --arch), package.module:factory, MODEL.skops, https://…
    data: digits, FILE.npz[:test], a folder of images by class, IDX files, an OpenML name
    ledger: where evidence is kept (default: runs/MODEL.ledger)
    """
    threats, plan, workers = parse_threats(threat), plan_named(options.plan), workers_of(options.workers)
    budget = seconds_of(options.budget) if options.budget else None
    # an adapted run averages a random model itself, behind whatever else it does to its slopes
    loaded, samples, source = load_both(model, data, replace(loading, eot=None) if options.adapt else loading)
    request = Request(
        model=loaded,
        data=samples,
        threats=threats,
        plan=plan,
        n=options.n,
        sample=options.sample,
        budget=budget,
        workers=workers,
        work=Work(options.batch, options.seed, loading.device, options.deterministic),
        source=source,
        model_spec=redact(model),
        model_options=loading.stored(),
    )
    adaptation = adapt(request, Effort(seed=options.seed), loading.eot or DRAWS) if options.adapt else None
    if adaptation is not None:
        request = adaptation.request(request)
        _say_what_was_adapted(adaptation)
    path = ledger or Path("runs") / f"{_file_name(loaded.name)}.ledger"
    prepared = prepare(request)  # wrong input leaves no ledger behind
    with Ledger(path) as book:
        with follow() as watch:
            ran = carry_out(prepared, book, watch)
        if adaptation is not None:
            threat_examined = adaptation.threat.within(request.model.domain).canonical()
            with book.transaction():
                book.add_findings(ran.model, threat_examined, ran.record.started, adaptation.findings)
        view = Selection(book, ran)
        for line in summary_lines(view.claims()):
            print(line)
        if json:
            write(json, json_report(view))
        _say_what_is_missing(book, ran)
    print(f"ledger: {path}   (saddlepoint report {path} --html report.html)", file=sys.stderr)
    return 0


def _say_what_was_adapted(adaptation: Adaptation) -> None:
    """The findings that fired and what follows from them: on stderr, before anything is attacked in earnest."""
    for finding in adaptation.findings:
        if finding.fires:
            print(f"{finding.verdict}: {finding.title}: no. {finding.detail}", file=sys.stderr)
    print(f"adapted: {' '.join(adaptation.cures) or 'nothing to adapt'}", file=sys.stderr)


def _say_what_is_missing(book: Ledger, ran: Ran) -> None:
    """What did not run, and what crashed: on stderr, since a bracket alone does not show it."""
    for threat in ran.threats:
        label = label_of(json_module.loads(threat))[0]
        for method, message, count in book.failures(ran.model, threat):
            print(f"{label}: {method} failed on {count} samples: {message}", file=sys.stderr)
    for reason in ran.record.untested:
        print(f"not run: {reason}", file=sys.stderr)
    if ran.record.out_of_time:
        print("the budget ended before the plan; the same command goes on", file=sys.stderr)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "model"
