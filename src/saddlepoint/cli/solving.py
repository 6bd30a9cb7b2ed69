"""Verify one instance in this process: read, answer, write the evidence. Imports torch; the command line does not."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from saddlepoint.adapters.vnnlib import read_vnnlib
from saddlepoint.check.counterexample import Counterexample
from saddlepoint.core.errors import NonFinite, StochasticModel, UnsupportedModel, UnsupportedOperator
from saddlepoint.evaluation.verify import Answer, Methods, Problem, verify
from saddlepoint.graph.agreement import Runtime
from saddlepoint.graph.onnx_reader import read_onnx
from saddlepoint.spec.certificate import save


@dataclass(frozen=True)
class Instance:
    """What to verify, until when (a time of time.monotonic()), and where evidence goes."""

    network: Path
    specification: Path
    until: float
    threads: int = 2
    witness: Path | None = None
    proof: Path | None = None


def solve(instance: Instance, methods: Methods | None = None) -> dict[str, Any]:
    """The answer as JSON: word, reason, seconds by stage. Evidence is on disk before the word is given."""
    begun = time.monotonic()
    torch.set_num_threads(instance.threads)
    specification = read_vnnlib(instance.specification)
    try:
        graph = read_onnx(instance.network)
    except (UnsupportedOperator, UnsupportedModel, StochasticModel, NonFinite) as error:
        return {"word": "unknown", "reason": f"the network cannot be verified: {error}", "seconds": {}}
    read = time.monotonic() - begun
    problem = Problem(graph, specification, lambda: Runtime(instance.network))
    answer = verify(problem, instance.until, methods)
    if instance.witness is not None and answer.counterexample is not None:
        _replace(instance.witness, witness_text(answer.counterexample).encode())
    if instance.proof is not None and answer.word == "unsat":
        _save_proof(instance.proof, answer, graph.digest)
    return {"word": answer.word, "reason": answer.reason, "seconds": {"read": read, **answer.seconds}}


def witness_text(found: Counterexample) -> str:
    """`((X_0 v) … (Y_0 v) …)`, every value written so that it reads back as the same float64."""
    values = [f"(X_{i} {v!r})" for i, v in enumerate(found.x.tolist())]
    values += [f"(Y_{i} {v!r})" for i, v in enumerate(found.z.tolist())]
    return "(" + "\n".join(values) + ")\n"


def _save_proof(path: Path, answer: Answer, digest: str) -> None:
    part = path.with_name(f"{path.name}.part")
    save(part, answer.certificates, digest)
    os.replace(part, path)


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that whoever reads it sees all of it or nothing."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)
