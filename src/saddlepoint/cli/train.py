"""`saddlepoint train`: the outer player. Keeps what is best on validation (guards.py); ends with `run`'s bracket."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

from cyclopts import Parameter

from saddlepoint.adapters import LoadOptions, load, save_weights
from saddlepoint.adapters.checkpoint_file import CheckpointFile
from saddlepoint.cli.options import ModelOptions
from saddlepoint.cli.progress import follow
from saddlepoint.cli.threats import parse_threats
from saddlepoint.cli.training_job import SETTINGS, Job, Trainee, TrainerOptions, finished, prepared
from saddlepoint.cli.view import Selection
from saddlepoint.cli.whole import whole
from saddlepoint.core.errors import InputError
from saddlepoint.evaluation import Request, Work, plan_named
from saddlepoint.evaluation import run as carry_out
from saddlepoint.evaluation.plan import Plan
from saddlepoint.ledger import Ledger
from saddlepoint.report.console import summary_lines
from saddlepoint.spec import Threat
from saddlepoint.training import Epoch, Note, epochs

_THREAT = "what to train against: linf:8/255, l2:0.5, …; repeat for max, average and msd"


@Parameter(name="*")
@dataclass(frozen=True)
class Ending:
    """Where the run ends up: its bracket, its ledger, its device."""

    bracket: Annotated[int, Parameter(converter=whole, help="samples of the bracket at the end", negative="")] = 200
    no_bracket: Annotated[bool, Parameter(help="end without a bracket", negative="")] = False
    plan: Annotated[str, Parameter(help="of the bracket: quick, standard, strong, or a TOML file")] = "standard"
    ledger: Annotated[Path | None, Parameter(help="of the curve and the bracket (default: MODEL.ledger)")] = None
    device: Annotated[str, Parameter(help="cpu, cuda, cuda:1, mps")] = "cpu"


def train(
    data: str,
    *,
    subject: Trainee,
    output: Annotated[Path, Parameter(name=("--output", "-o"), help="the weights, MODEL.safetensors")],
    objective: Annotated[str, Parameter(help="pgd, trades:beta=6,steps=10, …")] = "pgd",
    threat: Annotated[list[str] | None, Parameter(help=_THREAT, negative="")] = None,
    ending: Ending = Ending(),
    options: TrainerOptions = TrainerOptions(),  # noqa: B008  # frozen
) -> int:
    """Train a network on DATA. The same command again resumes: Ctrl-C and crashes lose half a minute at most.

    The epoch that is best on a validation part is kept. The run ends with a bracket on held-out data: accuracy under
    the training's own attack is no evidence.

    Parameters
    ----------
    data: digits, FILE.npz[:train], a folder of images by class, IDX files, an OpenML name
    """
    if output.suffix != ".safetensors":
        raise InputError(f"-o {output}: weights are written as .safetensors.", "Write -o model.safetensors.")
    if output.is_dir():
        raise InputError(f"-o {output} is a folder.", "Name a file in it.")
    if ending.bracket < 1:
        raise InputError(f"--bracket {ending.bracket} samples show nothing.", "Write --bracket 200, or --no-bracket.")
    threats, chosen = parse_threats(threat) if threat else (), plan_named(ending.plan)
    loading = ModelOptions(subject.domain, subject.mean, subject.std, device=ending.device).load_options(None)
    bracket = None if ending.no_bracket or not threats else ending.bracket
    job = prepared(data, subject, objective, threats, options, loading, bracket)
    done = finished(output, job.metadata)
    with Ledger(ending.ledger or output.with_suffix(".ledger")) as book:
        if done:
            print(f"{output} is trained already", file=sys.stderr)
        else:
            _train(job, output, book)
        if bracket is None:
            if not ending.no_bracket:
                print("no bracket: give --threat for one", file=sys.stderr)
            return 0
        n = min(bracket, len(job.test))
        print(f"bracket: the first {n} of {len(job.test)} samples {job.judge}", file=sys.stderr)
        for line in _bracket(job, output, threats, (chosen, n, loading), book):
            print(line)
    return 0


def _train(job: Job, output: Path, book: Ledger) -> None:
    """The loop, its events on stderr and in the ledger, its weights in the output."""
    keeper = CheckpointFile(output.with_name(f"{output.name}.checkpoint"))
    _check_new(book, output, keeper)
    warning = job.metadata[SETTINGS]["warning"]
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
        with book.transaction():  # for the report; the same event again changes nothing
            book.add_event(Note(0, "warning", warning).event(output.stem))
    begun, total = time.monotonic(), job.trainer.epochs
    with _interruptible(keeper):
        for event in epochs(job.whole, job.train, job.objective, job.trainer, job.validation, keeper=keeper):
            with book.transaction():
                book.add_event(event.event(output.stem))
            print(_line(event, total, time.monotonic() - begun), file=sys.stderr, flush=True)
    try:
        save_weights(output, job.net, job.metadata)
    except OSError as error:
        raise InputError(
            f"{output} cannot be written: {error}.", "Choose another -o; the checkpoint is kept."
        ) from error
    keeper.remove()
    searches = job.metadata["x-searches"]
    note = "   searches in bfloat16 (--precision full: none)" if searches == "bfloat16" else ""
    print(f"weights: {output}   {time.monotonic() - begun:.0f} s{note}", file=sys.stderr)


def _check_new(book: Ledger, output: Path, keeper: CheckpointFile) -> None:
    """Raises InputError where the ledger tells of another training or other weights under this name."""
    if keeper.path.exists():
        return
    curves = {event["run"] for event in book.events() if event["kind"] == "epoch"}
    if output.stem in curves or str(output) in {model.spec for model in book.models()}:
        raise InputError(
            f"{book.path} tells of another training of {output.name} already.",
            "Give another -o, or another --ledger, or move that one away.",
        )


def _bracket(
    job: Job, output: Path, threats: Sequence[Threat], how: tuple[Plan, int, LoadOptions], book: Ledger
) -> list[str]:
    plan, n, loading = how
    request = Request(
        model=load(str(output), LoadOptions(device=loading.device)),
        data=job.test,
        threats=tuple(threats),
        plan=plan,
        n=n,
        work=Work(seed=job.trainer.seed, device=loading.device),
        model_spec=str(output),
    )
    with follow() as watch:
        return summary_lines(Selection(book, carry_out(request, book, watch)).claims())


@contextmanager
def _interruptible(keeper: CheckpointFile) -> Iterator[None]:
    """Ctrl-C and a polite kill ask for a checkpoint at the end of the step; a second one ends at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        if keeper.stopping:
            raise KeyboardInterrupt
        keeper.stop()
        print(f"stopping after this step (signal {number})", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _line(event: Epoch | Note, total: int, seconds: float) -> str:
    if isinstance(event, Note):
        return f"epoch {event.epoch}/{total}  {event.guard}: {event.text}"
    robust = "" if event.robust is None else f"  robust {event.robust:.3f}"
    clean = "" if event.clean is None else f"  clean {event.clean:.3f}{robust}  (validation, n = {event.n})"
    return f"epoch {event.epoch}/{total}  loss {event.loss:.4f}{clean}  {seconds:.0f} s"
