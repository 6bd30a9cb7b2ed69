"""`saddlepoint verify`: does a network keep a VNN-LIB specification? One word on stdout, reasons on stderr.

This file and its imports load no torch: the work is done in a process of its own (isolated.py), so the limit holds
whatever the work does.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from saddlepoint.cli.isolated import isolated
from saddlepoint.cli.whole import Whole
from saddlepoint.cli.words import DEFAULT, STARTED, soft, told
from saddlepoint.core.errors import InputError


@Parameter(name="*")
@dataclass(frozen=True)
class Instances:
    """Many instances instead of one."""

    batch: Annotated[Path | None, Parameter(help="instances.csv: a row each (network, specification, seconds)")] = None
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="results.csv; rows that are there are not run again")
    ] = None


def verify(
    network: Path | None = None,
    specification: Path | None = None,
    *,
    timeout: float | None = None,
    witness: Path | None = None,
    proof: Path | None = None,
    threads: Whole = 2,
    many: Instances = Instances(),  # frozen
) -> int:
    """Verify NETWORK against SPECIFICATION: prints sat, unsat, unknown or timeout.

    `sat` means that a point violating the specification was found and confirmed in onnxruntime. `unsat` means that
    there is none, by certificates that an independent checker accepted.

    Parameters
    ----------
    network
        NET.onnx or NET.onnx.gz
    specification
        SPEC.vnnlib or SPEC.vnnlib.gz
    timeout
        seconds, start-up included (default: 60; with --batch the smaller of this and the row's own)
    witness
        where the point of a `sat` is written, in the form of VNN-COMP
    proof
        where the certificates of an `unsat` are written
    threads
        of one instance
    """
    if timeout is not None and not 0 < timeout < 1e7:
        raise InputError(f"--timeout {timeout:g} is not a time.", "Give seconds above 0.")
    if threads < 1:
        raise InputError(f"--threads {threads} must be at least 1.")
    threads = min(threads, os.cpu_count() or 1)
    batch, output = many.batch, many.output
    if batch is not None:
        if network is not None or witness is not None or proof is not None:
            raise InputError("--batch takes no other instance, no --witness and no --proof.", "Leave them out.")
        if output is None:
            raise InputError("--batch needs a place for its rows.", "Give -o results.csv.")
        from saddlepoint.cli.verify_batch import verify_batch

        return verify_batch(batch, output, timeout, threads)
    if network is None or specification is None or output is not None:
        raise InputError(
            "verify takes NET.onnx and SPEC.vnnlib, or --batch instances.csv with -o results.csv.",
            "See saddlepoint verify --help.",
        )
    for path in (network, specification):
        if not path.is_file():
            raise InputError(f"{path} is not a file.", "Check the path.")
    for path in (witness, proof):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise InputError(f"{path} cannot be written.", "Name a file in a folder that exists.")
    until = STARTED + (timeout or DEFAULT)
    word, reason = told(isolated(_work(network, specification, until, threads, witness, proof), until))
    print(reason, file=sys.stderr)
    print(word, flush=True)
    return 0


def _work(
    network: Path, specification: Path, until: float, threads: int, witness: Path | None, proof: Path | None
) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        gc.disable()  # imports make many objects and no garbage
        from saddlepoint.cli.solving import Instance, solve

        gc.enable()
        gc.freeze()
        return solve(Instance(network, specification, soft(until), threads, witness, proof))

    return work
