"""One unit of work: one stage on some samples, from points to checked evidence. Pure: nothing is written here.

Every upper bound is replayed and every positive lower bound is re-proved by check/ before it leaves; what the checker
does not accept leaves as `claimed` or `refuted` and never counts.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from saddlepoint.attack.engine import EngineSettings, run
from saddlepoint.attack.protocol import Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.bound.base import BoundMethod
from saddlepoint.bound.smoothing import RandomizedSmoothing
from saddlepoint.check.proofs import recheck
from saddlepoint.check.smoothing import recheck_counts
from saddlepoint.check.witness import Replay, replay
from saddlepoint.core.digests import canonical_json
from saddlepoint.core.errors import InputError, NotAvailable, UnsupportedOperator
from saddlepoint.evaluation.stages import Clean, Stage
from saddlepoint.graph.ir import Graph
from saddlepoint.ledger.blobs import pack
from saddlepoint.spec import Cost, Evidence, Model, Subject, Targeted, Threat, margin, margin_matrix
from saddlepoint.spec.evidence import Arithmetic, Status


@dataclass(frozen=True)
class Work:
    """How units are carried out. `deadline` (seconds since the epoch) is looked at between steps of an attack; a unit
    cut short keeps only what was decided."""

    batch: int = 128
    seed: int = 0
    device: str = "cpu"
    deterministic: bool = False
    deadline: float | None = None

    def late(self) -> bool:
        """Whether the time is up."""
        return self.deadline is not None and time.time() >= self.deadline


@dataclass(frozen=True)
class Unit:
    """One stage on some samples."""

    stage: Stage
    threat: Threat
    x: Tensor
    y: Tensor
    subjects: tuple[Subject, ...]


@dataclass(frozen=True)
class Result:
    """What a unit brings home: rows, packed blobs, x0 of witnessed samples, crashes, a refusal, whether it was cut."""

    rows: list[Evidence] = field(default_factory=list)
    blobs: list[tuple[str, bytes]] = field(default_factory=list)
    inputs: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    failed: list[tuple[Subject, str]] = field(default_factory=list)
    refused: str = ""
    stopped: bool = False


def execute(model: Model, unit: Unit, work: Work) -> Result:
    """Carry out a unit. A crash of a method is a failure of its samples, never evidence."""
    unit = replace(unit, x=unit.x.to(work.device), y=unit.y.to(work.device))
    try:
        return _carry_out(model, unit, work)
    except (NotAvailable, UnsupportedOperator) as refusal:
        return Result(refused=f"{unit.stage.name}: {refusal}")
    except Exception as error:  # whatever a user's model or method raises is a fact about these samples only
        parts = _singles(unit)
        if len(parts) > 1:  # one bad sample must not speak for its neighbours
            return _joined([execute(model, part, work) for part in parts])
        return Result(failed=[(subject, f"{type(error).__name__}: {error}") for subject in unit.subjects])


def _carry_out(model: Model, unit: Unit, work: Work) -> Result:
    if isinstance(unit.stage.config, Clean):
        return _clean(model, unit, work)
    if isinstance(unit.stage.config, Attack):
        return _attack(model, unit, unit.stage.config, work)
    if isinstance(unit.stage.config, RandomizedSmoothing):
        return _certify(model, unit, unit.stage.config, work)
    return _bound(model, unit, unit.stage.config)


def _singles(unit: Unit) -> list[Unit]:
    return [
        replace(unit, x=unit.x[i : i + 1], y=unit.y[i : i + 1], subjects=unit.subjects[i : i + 1])
        for i in range(len(unit.subjects))
    ]


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
    shared = _share(begun, len(unit.y), forwards=_draws(model))
    costs = [replace(shared, forwards=shared.forwards + _drawn(seen, i)) for i in range(len(unit.y))]
    wrong = torch.nonzero(seen.value <= 0)[:, 0]
    blobs, inputs = _inputs(unit, wrong)
    rows, failed = _upper_rows(unit, work, seen, costs, proofs={}, gauges=None)
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
        queries=None if unit.threat.queries is None else max(1, unit.threat.queries // _draws(model)),
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
            (int(outcome.forwards[i]) + 1) * _draws(model) + _drawn(seen, at),
            int(outcome.backwards[i]) * _draws(model),
            0,
            float(outcome.seconds[i]),
        )
        for at, i in enumerate(keep)
    ]
    gauges = unit.threat.set.rows(index).gauge(part.x, witness)
    out, refused = _upper_rows(part, work, seen, costs, dict.fromkeys(range(len(keep)), name), gauges)
    blobs, inputs = _inputs(part, torch.arange(len(keep)))
    return Result(out, [(name, data), *blobs], inputs, failed + refused, stopped=stopped)


def _bound(model: Model, unit: Unit, method: BoundMethod) -> Result:
    graph = model.graph
    if not isinstance(graph, Graph):
        raise NotAvailable("bounds need the model's graph.", "See the notes of `check` for why it is missing.")
    begun = time.perf_counter()
    goal = unit.threat.goal
    x = unit.x.to(graph.dtype)  # scikit-learn's graphs are float64; every float32 is a float64
    C = margin_matrix(unit.y, model.classes, x.dtype)
    if isinstance(goal, Targeted):  # broken iff z_t is the largest: max_j (z_j − z_t) > 0 is enough to hold
        C = -margin_matrix(torch.full_like(unit.y, goal.label), model.classes, x.dtype)
    worst = torch.amax if isinstance(goal, Targeted) else torch.amin
    try:
        bounds = method(graph, unit.threat.set, x, C)
    except InputError as error:  # what a bound cannot take says nothing about the samples
        raise NotAvailable(str(error)) from error
    claimed = worst(bounds.lower, 1)
    promising = torch.nonzero(claimed > 0)[:, 0]
    value, status = claimed.double().cpu(), ["claimed"] * len(claimed)
    proof = bounds.proof.rows(promising).tensors if bounds.proof else {}
    if len(promising):
        described = unit.threat.set.canonical()
        proved = recheck(graph, described, x[promising], C[promising], proof, method.name)
        value[promising.cpu()] = worst(proved, 1).double().cpu()
        for i in promising.tolist():
            status[i] = "checked"
    name, data = pack(proof) if proof and len(promising) else ("", b"")
    place = {int(i): row for row, i in enumerate(promising.tolist())}
    cost = _share(begun, len(unit.y))
    value = torch.where(value.isnan(), -torch.inf, value)  # true of any m*, and certifies nothing
    rows = [
        _row(unit, i, float(value[i]), _Shown(status[i], name if i in place else "", place.get(i, 0), cost))
        for i in range(len(unit.y))
    ]
    blobs, inputs = _inputs(unit, promising.cpu())
    return Result(rows, ([(name, data)] if name else []) + blobs, inputs)


def _certify(model: Model, unit: Unit, method: RandomizedSmoothing, work: Work) -> Result:
    """Certificates of a smoothed predictor from counts; the checker computes the bound from the counts again."""
    how = model.smoothing
    if how is None or isinstance(unit.threat.goal, Targeted):
        raise NotAvailable("smoothing certifies that a smoothed predictor keeps its label.", "Load it with --smooth.")
    result, described = Result(), unit.threat.set.canonical()
    for i, part in enumerate(_singles(unit)):
        if work.late():
            return replace(result, stopped=True)
        begun = time.perf_counter()
        found = method.certify(how, part.x, (part.subjects[0].sample,), work.seed, work.batch)
        cost = _share(begun, 1, forwards=method.n0 + int(found.drawn))
        details = {"label": int(found.label), "radius": float(found.radius), "noise": how.noise.kind}
        shown, value, proof = _Shown("claimed", "", 0, cost, canonical_json(details)), -1.0, {}
        if int(found.label) == int(part.y):  # else nothing is counted about y: m* ≥ −1
            proof = {"votes": found.votes, "drawn": found.drawn}
            failure = torch.full((1,), method.failure, dtype=torch.float64)
            value = float(recheck_counts(how, described, part.x[0].numel(), proof, failure))
        if value > 0:
            name, data = pack(proof)
            shown = replace(shown, status="checked", proof=name, failure_probability=method.failure)
            blobs, inputs = _inputs(part, torch.zeros(1, dtype=torch.int64))
            result.blobs.extend([(name, data), *blobs])
            result.inputs.extend(inputs)
        result.rows.append(_row(unit, i, value, shown, work.seed))
    return result


@dataclass(frozen=True)
class _Shown:
    """What stands behind one value."""

    status: str
    proof: str
    row: int
    cost: Cost
    details: str = "{}"
    failure_probability: float = 0.0


def _upper_rows(
    unit: Unit, work: Work, seen: Replay, costs: list[Cost], proofs: dict[int, str], gauges: Tensor | None
) -> tuple[list[Evidence], list[tuple[Subject, str]]]:
    """Evidence of replayed witnesses; what the checker does not allow is a crash of the method, said so."""
    rows, failed = [], []
    for i, subject in enumerate(unit.subjects):
        value = float(seen.value[i])
        if value != value:
            why = "the witness lies outside the set" if not seen.allowed[i] else "logits at the witness are not finite"
            failed.append((subject, f"{unit.stage.name}: {why}"))
            continue
        details: dict[str, object] = {}
        if gauges is not None:
            details["gauge"] = float(gauges[i])
        if seen.margin_f64_upper is not None:
            details["margin_f64_upper"] = float(seen.margin_f64_upper[i])
        if value <= 0 and seen.survives_8bit is not None and unit.stage.name != Clean.name:
            details["survives_8bit"] = bool(seen.survives_8bit[i])
        if bool(seen.disagree[i]):
            details["batch_layouts_disagree"] = True
        risk = 0.0
        if seen.counted is not None:
            details |= {"wrong": int(seen.counted.wrong[i]), "drawn": int(seen.counted.drawn[i])}
            risk = float(seen.counted.failure_probability[i])
        finite = {k: v for k, v in details.items() if not (isinstance(v, float) and not math.isfinite(v))}
        shown = _Shown("checked", proofs.get(i, ""), i, costs[i], canonical_json(finite), risk)
        rows.append(_row(unit, i, value, shown, work.seed))
    return rows, failed


def _row(unit: Unit, i: int, value: float, shown: _Shown, seed: int = 0) -> Evidence:
    status: Status = "checked" if shown.status == "checked" else "claimed"
    proved = unit.stage.side == "lower" and status == "checked"
    arithmetic: Arithmetic = ("f64" if shown.failure_probability else "outward") if proved else "f32"
    return Evidence(
        quantity="margin",
        side=unit.stage.side,
        value=value,
        subject=unit.subjects[i],
        threat=unit.threat.canonical(),
        method=unit.stage.method(seed),
        proof=shown.proof,
        row=shown.row,
        failure_probability=shown.failure_probability,
        arithmetic=arithmetic,
        status=status,
        cost=shown.cost,
        details=shown.details,
    )


def _inputs(unit: Unit, index: Tensor) -> tuple[list[tuple[str, bytes]], list[tuple[str, tuple[str, ...]]]]:
    """The x0 of witnessed samples as a blob: a record that can be re-checked without the data."""
    if len(index) == 0:
        return [], []
    name, data = pack({"x0": unit.x[index.to(unit.x.device)]})
    return [(name, data)], [(name, tuple(unit.subjects[i].content for i in index.tolist()))]


def _draws(model: Model) -> int:
    """Forwards of the random model in one of its mean."""
    return 1 if model.sampling is None else model.sampling.draws


def _drawn(seen: Replay, i: int) -> int:
    """Fresh draws that judged a point."""
    return 0 if seen.counted is None else int(seen.counted.drawn[i])


def _share(begun: float, count: int, forwards: int = 0) -> Cost:
    return Cost(forwards=forwards, seconds=(time.perf_counter() - begun) / count)
