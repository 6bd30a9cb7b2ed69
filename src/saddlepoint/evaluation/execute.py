"""One unit of work: one stage on some samples, from points to checked evidence. Pure: nothing is written here.

Every upper bound is replayed and every positive lower bound is re-proved by check/ before it leaves; what the checker
does not accept leaves as `claimed` or `refuted` and never counts.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace

import torch

from saddlepoint.attack.engine import EngineSettings, run
from saddlepoint.attack.protocol import Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.bound.complete import Complete
from saddlepoint.bound.smoothing import RandomizedSmoothing
from saddlepoint.check.witness import replay
from saddlepoint.core.digests import canonical_json
from saddlepoint.core.errors import NotAvailable, UnsupportedOperator
from saddlepoint.evaluation.certify import bound_unit, count_unit, search_unit
from saddlepoint.evaluation.stages import Clean
from saddlepoint.evaluation.unit import Result, Unit, Work, drawn_at, draws_of, inputs_of, share, singles, upper_rows
from saddlepoint.ledger.blobs import pack
from saddlepoint.spec import Cost, Model, Targeted, margin


def execute(model: Model, unit: Unit, work: Work) -> Result:
    """Carry out a unit. A crash of a method is a failure of its samples, never evidence."""
    unit = replace(unit, x=unit.x.to(work.device), y=unit.y.to(work.device))
    try:
        return _carry_out(model, unit, work)
    except (NotAvailable, UnsupportedOperator) as refusal:
        return Result(refused=f"{unit.stage.name}: {refusal}")
    except Exception as error:  # whatever a user's model or method raises is a fact about these samples only
        parts = singles(unit)
        if len(parts) > 1:  # one bad sample must not speak for its neighbours
            return _joined([execute(model, part, work) for part in parts])
        return Result(failed=[(subject, f"{type(error).__name__}: {error}") for subject in unit.subjects])


def _carry_out(model: Model, unit: Unit, work: Work) -> Result:
    if isinstance(unit.stage.config, Clean):
        return _clean(model, unit, work)
    if isinstance(unit.stage.config, Attack):
        return _attack(model, unit, unit.stage.config, work)
    if isinstance(unit.stage.config, RandomizedSmoothing):
        return count_unit(model, unit, unit.stage.config, work)
    if isinstance(unit.stage.config, Complete):
        return search_unit(model, unit, unit.stage.config, work)
    return bound_unit(model, unit, unit.stage.config)


def _joined(parts: list[Result]) -> Result:
    return Result(
        rows=[row for part in parts for row in part.rows],
        blobs=[blob for part in parts for blob in part.blobs],
        inputs=[entry for part in parts for entry in part.inputs],
        failed=[failure for part in parts for failure in part.failed],
        refused=next((part.refused for part in parts if part.refused), ""),
        stopped=any(part.stopped for part in parts),
    )


def _clean(model: Model, unit: Unit, work: Work) -> Result:
    begun = time.perf_counter()
    seen = replay(model, unit.threat.canonical(), unit.x, unit.y, padded=work.deterministic)
    shared = share(begun, len(unit.y), forwards=draws_of(model))
    costs = [replace(shared, forwards=shared.forwards + drawn_at(seen, i)) for i in range(len(unit.y))]
    wrong = torch.nonzero(seen.value <= 0)[:, 0]
    blobs, inputs = inputs_of(unit, wrong)
    rows, failed = upper_rows(unit, work, seen, costs, proofs={}, gauges=None)
    if isinstance(unit.threat.goal, Targeted):  # the margin is about the target; accuracy is about the label
        with torch.no_grad():
            right = dict(zip(unit.subjects, (margin(model(unit.x), unit.y) > 0).tolist(), strict=True))
        said = [{**json.loads(row.details), "right": right[row.subject]} for row in rows]
        rows = [replace(row, details=canonical_json(more)) for row, more in zip(rows, said, strict=True)]
    elif seen.counted is not None:  # broken only if that is sure; right as often as not is what accuracy counts
        likely = dict(zip(unit.subjects, (2 * seen.counted.wrong < seen.counted.drawn).tolist(), strict=True))
        said = [{**json.loads(row.details), "right": likely[row.subject]} for row in rows]
        rows = [replace(row, details=canonical_json(more)) for row, more in zip(rows, said, strict=True)]
    return Result(rows, blobs, inputs, failed)


def _attack(model: Model, unit: Unit, attack: Attack, work: Work) -> Result:
    ids = tuple(subject.sample for subject in unit.subjects)
    rows = Rows(unit.x, unit.y, ids, unit.threat.set, unit.threat.goal)
    settings = EngineSettings(
        batch=work.batch,
        seed=work.seed,
        drop=model.sampling is None,  # where the draws at hand first tip over, fresh ones are as often right as wrong
        deterministic=work.deterministic,
        queries=None if unit.threat.queries is None else max(1, unit.threat.queries // draws_of(model)),
        stop=work.late,
    )
    outcome = run(model, attack, rows, settings)
    # an attack that was cut short has not said what it would have said of the survivors: they stay undone
    keep = [i for i, s in enumerate(outcome.status) if s == "ok" or (s == "stopped" and bool(outcome.success[i]))]
    stopped = "stopped" in outcome.status
    if stopped and work.deterministic:  # the unit will be done again whole, in the same shape
        return Result(stopped=True)
    failed = [
        (unit.subjects[i], outcome.message[i] or "no finite logits")
        for i, s in enumerate(outcome.status)
        if s in ("error", "nan")
    ]
    if not keep:
        return Result(failed=failed, stopped=stopped)
    index = torch.tensor(keep, device=unit.x.device)
    part = replace(unit, x=unit.x[index], y=unit.y[index], subjects=tuple(unit.subjects[i] for i in keep))
    witness = outcome.best_point[index]
    seen = replay(model, unit.threat.canonical(), part.x, part.y, witness, work.deterministic)
    name, data = pack({"witness": witness})
    costs = [
        Cost(
            (int(outcome.forwards[i]) + 1) * draws_of(model) + drawn_at(seen, at),
            int(outcome.backwards[i]) * draws_of(model),
            0,
            float(outcome.seconds[i]),
        )
        for at, i in enumerate(keep)
    ]
    gauges = unit.threat.set.rows(index).gauge(part.x, witness)
    out, refused = upper_rows(part, work, seen, costs, dict.fromkeys(range(len(keep)), name), gauges)
    blobs, inputs = inputs_of(part, torch.arange(len(keep)))
    return Result(out, [(name, data), *blobs], inputs, failed + refused, stopped=stopped)
