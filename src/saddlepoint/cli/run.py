"""`saddlepoint run`: model + data + threats → evidence → bracket. The same command again resumes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from saddlepoint.cli.options import ModelOptions, load_both, workers_of
from saddlepoint.cli.progress import follow
from saddlepoint.cli.threats import parse_threats
from saddlepoint.cli.view import Selection
from saddlepoint.evaluation import Request, Work, plan_named
from saddlepoint.evaluation import run as carry_out
from saddlepoint.evaluation.seconds import seconds_of
from saddlepoint.ledger import Ledger
from saddlepoint.report.console import summary_lines
from saddlepoint.report.json_report import json_report


def run(
    model: str,
    *,
    data: str,
    threat: Annotated[list[str], Parameter(help="linf:8/255, l2:0.5, spatial:rot=30,shift=3, …; repeat for curves")],
    n: int | None = None,
    sample: Literal["first", "random"] = "first",
    plan: Annotated[str, Parameter(help="quick, standard, strong, or a TOML file")] = "standard",
    budget: Annotated[str | None, Parameter(help="wall time: 90s, 10m, 1h30m")] = None,
    ledger: Path | None = None,
    workers: Annotated[str, Parameter(help="worker processes, or ray")] = "1",
    seed: int = 0,
    batch: int = 128,
    deterministic: bool = False,
    json: Annotated[Path | None, Parameter(help="write the result as JSON")] = None,
    options: ModelOptions = ModelOptions(),  # noqa: B008  # frozen
) -> int:
    """Evaluate MODEL on DATA under one or several threats.

    The bracket in the ledger is valid at any moment: Ctrl-C loses nothing, and the same command again resumes.

    Parameters
    ----------
    model: NET.onnx, NET.pt2, NET.safetensors|.pt (with --arch), package.module:factory, MODEL.skops, https://…
    data: digits, FILE.npz[:test], a folder of images by class, IDX files, an OpenML name
    n: the first n samples (default: all)
    ledger: where evidence is kept (default: runs/MODEL.ledger)
    """
    threats = parse_threats(threat)
    many = workers_of(workers)
    chosen = plan_named(plan)
    limit = seconds_of(budget) if budget else None
    loaded, samples, source = load_both(model, data, options)
    request = Request(
        model=loaded,
        data=samples,
        threats=threats,
        plan=chosen,
        n=n,
        sample=sample,
        budget=limit,
        workers=many,
        work=Work(batch=batch, seed=seed, device=options.device, deterministic=deterministic),
        source=source,
        model_spec=loaded.name if "://" in model else model,  # an adapter's name of a URL holds no secret
        model_options=options.stored(),
    )
    path = ledger or Path("runs") / f"{_file_name(loaded.name)}.ledger"
    with Ledger(path) as book:
        with follow() as watch:
            ran = carry_out(request, book, watch)
        view = Selection(book, ran)
        for line in summary_lines(view.claims()):
            print(line)
        if json:
            json.write_text(json_report(view), encoding="utf-8")
    print(f"ledger: {path}   (saddlepoint report {path} --html report.html)", file=sys.stderr)
    return 0


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "model"
