"""What a stage works on and brings home, and how one inequality becomes a row of evidence."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

from torch import Tensor

from saddlepoint.check.witness import Replay
from saddlepoint.core.digests import canonical_json
from saddlepoint.evaluation.stages import Clean, Stage
from saddlepoint.ledger.blobs import pack
from saddlepoint.spec import Cost, Evidence, Model, Subject, Threat
from saddlepoint.spec.evidence import Arithmetic, Side, Status


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


@dataclass(frozen=True)
class Shown:
    """What stands behind one value."""

    status: str
    proof: str
    row: int
    cost: Cost
    details: str = "{}"
    failure_probability: float = 0.0


def singles(unit: Unit) -> list[Unit]:
    return [
        replace(unit, x=unit.x[i : i + 1], y=unit.y[i : i + 1], subjects=unit.subjects[i : i + 1])
        for i in range(len(unit.subjects))
    ]


def row_of(unit: Unit, i: int, value: float, shown: Shown, seed: int = 0, side: Side | None = None) -> Evidence:
    """Evidence about one sample of a unit; a stage speaks for its own side unless told otherwise."""
    side = side or unit.stage.side
    status: Status = "checked" if shown.status == "checked" else "claimed"
    proved = side == "lower" and status == "checked"
    arithmetic: Arithmetic = ("f64" if shown.failure_probability else "outward") if proved else "f32"
    return Evidence(
        quantity="margin",
        side=side,
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


def inputs_of(unit: Unit, index: Tensor) -> tuple[list[tuple[str, bytes]], list[tuple[str, tuple[str, ...]]]]:
    """The x0 of witnessed samples as a blob: a record that can be re-checked without the data."""
    if len(index) == 0:
        return [], []
    name, data = pack({"x0": unit.x[index.to(unit.x.device)]})
    return [(name, data)], [(name, tuple(unit.subjects[i].content for i in index.tolist()))]


def draws_of(model: Model) -> int:
    """Forwards of the random model in one of its mean."""
    return 1 if model.sampling is None else model.sampling.draws


def share(begun: float, count: int, forwards: int = 0) -> Cost:
    """A sample's part of the time since `begun`."""
    return Cost(forwards=forwards, seconds=(time.perf_counter() - begun) / count)


def upper_rows(
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
        shown = Shown("checked", proofs.get(i, ""), i, costs[i], canonical_json(finite), risk)
        rows.append(row_of(unit, i, value, shown, work.seed, "upper"))
    return rows, failed


def drawn_at(seen: Replay, i: int) -> int:
    """Fresh draws that judged a point."""
    return 0 if seen.counted is None else int(seen.counted.drawn[i])
