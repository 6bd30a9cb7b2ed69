"""Carrying out a request into a ledger, with a record of the run that stands from its first moment."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import torch

from saddlepoint.core.digests import canonical_json, digest_json
from saddlepoint.evaluation.exhibits import keep_exhibits
from saddlepoint.evaluation.pool import open_pool
from saddlepoint.evaluation.request import Prepared, Request, prepare
from saddlepoint.evaluation.schedule import Schedule, Watch
from saddlepoint.evaluation.subjects import Sample
from saddlepoint.evaluation.versions import versions
from saddlepoint.ledger import Ledger, ModelRow, RunRow
from saddlepoint.spec import Access, Threat


@dataclass(frozen=True)
class Ran:
    """What one call of `run` was about: its record, model, canonical threats and samples (content digests)."""

    record: RunRow
    model: str
    threats: tuple[str, ...]
    contents: frozenset[str]


def run(asked: Request | Prepared, ledger: Ledger, watch: Watch = lambda progress: None) -> Ran:
    """Carry out a request into a ledger; the same request again resumes.

    Raises InputError (nothing is written), SubjectChanged, LedgerError, WorkerDied, Contradiction (everything found
    so far is in the ledger), KeyboardInterrupt (the same).
    """
    prepared = asked if isinstance(asked, Prepared) else prepare(asked)
    request, threats, samples = prepared.request, list(prepared.threats), list(prepared.samples)
    begun = time.time()
    record = _record(request, threats, len(samples), begun)
    name = digest_json([record.spec, record.started])
    with ledger.transaction():
        _register(request, threats, samples, ledger)
        ledger.put_run(name, record)
    schedule = Schedule(request, ledger, samples, watch, begun)
    interrupted = True
    try:
        with open_pool(request.model, request.source, request.workers, request.work.deterministic) as pool:
            schedule.carry_out(threats, pool)
        keep_exhibits(request.model, request.data, threats, samples, ledger, request.work.seed)
        interrupted = False
    finally:
        record = replace(
            record,
            seconds=time.time() - begun,
            interrupted=interrupted,
            untested=[*record.untested, *sorted(schedule.refused)],
            out_of_time=schedule.work.late(),
        )
        with ledger.transaction():
            ledger.put_run(name, record)
    contents = frozenset(sample.subject.content for sample in samples)
    return Ran(record, request.model.digest, tuple(threat.canonical() for threat in threats), contents)


def _register(request: Request, threats: Sequence[Threat], samples: list[Sample], ledger: Ledger) -> None:
    model, data = request.model, request.data
    spec = request.model_spec or model.name
    if request.model_spec:  # a text can come to stand for something else; an object in memory is what it is
        # of a random model every number of draws is a model of its own, of a smoothed one every noise
        told = spec if model.sampling is None else f"{spec} --eot {model.sampling.draws}"
        if model.smoothing is not None:
            told = f"{spec} --smooth {canonical_json(model.smoothing.noise.canonical())}"
        ledger.bind("model", told, model.digest)
        ledger.bind("data", data.spec, data.digest)
    row = ModelRow(
        digest=model.digest,
        name=model.name,
        spec=spec,
        access=Access(model.access).name or str(int(model.access)),
        classes=model.classes,
        domain=model.domain.canonical(),
        shape=tuple(model.shape),
        notes=model.notes,
        class_names=data.class_names,
        options=request.model_options,
    )
    ledger.add_model(row)
    for threat in threats:
        ledger.ask(threat.canonical(), [(sample.subject, sample.position) for sample in samples])


def _record(request: Request, threats: Sequence[Threat], n: int, begun: float) -> RunRow:
    threads = torch.get_num_threads()
    return RunRow(
        spec={
            "model": request.model_spec or request.model.name,
            "data": request.data.spec,
            "threats": [threat.canonical() for threat in threats],
            "n": n,
            "sample": request.sample,
            "plan": request.plan.name,
            "adapted": list(request.adapted),
            "seed": request.work.seed,
            "budget": request.budget,
            "workers": request.workers,
            "threads": threads,
            "device": request.work.device,
            "deterministic": request.work.deterministic,
        },
        started=datetime.fromtimestamp(begun, UTC).isoformat(timespec="milliseconds"),
        seconds=0.0,
        interrupted=True,  # until the end is reached: a killed run has said so in advance
        versions=versions(),
        untested=[],
    )
