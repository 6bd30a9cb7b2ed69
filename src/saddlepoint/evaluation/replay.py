"""Replay: every witness and proof of a ledger is checked again, from what the ledger itself holds.

A row that no longer holds is marked `refuted` and never counts again. What cannot be checked (no input stored, a model
that is not given) is said so, never counted as fine.

Rows are taken in the order of the blobs that they need, and at most `KEPT` blobs are held: memory does not grow with
the number of samples, and a blob is unpacked about once per batch of rows that need it.
"""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from saddlepoint.check.certificate import Ruling, question, subject
from saddlepoint.check.certificate import judge as judge_tree
from saddlepoint.check.proofs import recheck
from saddlepoint.check.smoothing import doubtful, recheck_counts
from saddlepoint.check.witness import replay as replay_witness
from saddlepoint.core.digests import sample_digest
from saddlepoint.core.errors import InputError, SaddlepointError
from saddlepoint.data import Data
from saddlepoint.graph.ir import Graph
from saddlepoint.ledger import Ledger
from saddlepoint.spec import Evidence, Model, margin_matrix
from saddlepoint.spec.certificate import of_tensors

BATCH = 64
COUNTED = "smoothing"  # proofs that are counts
SEARCHED = "complete"  # proofs that are trees
KEPT = 4  # blobs in memory: a batch's proofs and inputs lie in two or three
_COUNTED = 0.05  # of P(right) − P(wrong): a few draws in a hundred may fall the other way between kernels
_CLAIMED = 1e-6  # of the largest logit: a deployed margin may move so much between kernels; its sign may not


@dataclass
class Replayed:
    """Counts of one (model, threat), and why rows were refuted or could not be checked."""

    model: str
    threat: str
    holds: int = 0
    refuted: int = 0
    unchecked: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def replay(ledger: Ledger, model_of: Callable[[str], Model], data: Data | None = None) -> Iterator[Replayed]:
    """Re-check a ledger, one (model, threat) at a time. `model_of` loads the model with a digest.

    Raises what loading raises; a row that fails is a count, not an exception.
    """
    blobs = Blobs(ledger)
    inputs = Inputs(ledger, blobs, data)
    for digest, threat in ledger.threats():
        model = model_of(digest)
        if model.digest != digest:
            raise InputError(
                f"the model given has digest {model.digest[:12]}, the evidence is about {digest[:12]}.",
                "It is not the model of this ledger: give that one with --model, and the options it was loaded with.",
            )
        result = Replayed(digest, threat)
        refuted: list[str] = []
        # rows are small; the tensors that they need are fetched a batch at a time
        rows = sorted((e for e in ledger.evidence(digest, threat) if e.status == "checked"), key=inputs.order)
        for group in _batches(rows):
            refuted += _replay_group(model, group, blobs, inputs, result)
        with ledger.transaction():
            ledger.refute(refuted)
        yield result


def _batches(rows: Iterable[Evidence]) -> Iterator[list[Evidence]]:
    """Rows of one kind (side and blob layout) in batches, in their order."""
    waiting: dict[tuple[str, str, bool], list[Evidence]] = {}
    for row in rows:
        key = (row.side, row.method.name if row.side == "lower" else "", bool(row.proof))
        group = waiting.setdefault(key, [])
        group.append(row)
        if len(group) == BATCH:
            yield waiting.pop(key)
    yield from waiting.values()


def _replay_group(model: Model, rows: list[Evidence], blobs: Blobs, inputs: Inputs, result: Replayed) -> list[str]:
    known = [(row, inputs.find(row)) for row in rows]
    for row, x0 in known:
        if x0 is None:
            result.unchecked += 1
            result.reasons[f"{row.method.name}: the sample's input is not stored; give --data"] += 1
    rows = [row for row, x0 in known if x0 is not None]
    if not rows:
        return []
    x = torch.stack([x0 for _, x0 in known if x0 is not None])
    y = torch.tensor([row.subject.label for row in rows])
    try:
        counted = rows[0].method.name == COUNTED
        proved = _certificates if rows[0].method.name == SEARCHED else _proofs
        judge = _witnesses if rows[0].side == "upper" else _counts if counted else proved
        bad = judge(model, rows, x, y, blobs)
    except SaddlepointError as error:  # e.g. a damaged blob: nothing was shown, so nothing is refuted either
        result.unchecked += len(rows)
        result.reasons[str(error)] += len(rows)
        return []
    for row, why in zip(rows, bad, strict=True):
        if why:
            result.refuted += 1
            result.reasons[f"{row.method.name}: {why}"] += 1
        else:
            result.holds += 1
    return [row.key for row, why in zip(rows, bad, strict=True) if why]


def _witnesses(model: Model, rows: list[Evidence], x: Tensor, y: Tensor, blobs: Blobs) -> list[str]:
    """Per row, why it does not hold ("" if it does)."""
    points = torch.stack([blobs.row(row.proof, row.row)["witness"] for row in rows]) if rows[0].proof else None
    seen = replay_witness(model, rows[0].threat, x, y, points)
    found = []
    for i, row in enumerate(rows):
        value = float(seen.value[i])
        near = _COUNTED if seen.counted is not None else _CLAIMED * max(1.0, float(seen.size[i]))
        moved = value - row.value > near
        if not bool(seen.allowed[i]):
            found.append("the witness lies outside the set")
        elif math.isnan(value):
            found.append("logits at the witness are not finite")
        elif row.value <= 0 < value:
            found.append("the witness does not break the model")
        else:
            found.append("the margin at the witness is larger than claimed" if moved else "")
    return found


def _proofs(model: Model, rows: list[Evidence], x: Tensor, y: Tensor, blobs: Blobs) -> list[str]:
    graph = model.graph
    if not isinstance(graph, Graph):
        raise InputError("proofs are about the model's graph, which could not be captured.", "Give the same file.")
    x = x.to(graph.dtype)
    described = json.loads(rows[0].threat)
    goal = described["goal"]
    targeted = goal["kind"] == "targeted"
    C = margin_matrix(torch.full_like(y, goal["label"]) if targeted else y, model.classes, x.dtype)
    proof = _stacked([blobs.row(row.proof, row.row) if row.proof else {} for row in rows])
    lower = recheck(graph, described["set"], x, -C if targeted else C, proof, rows[0].method.name)
    value = (lower.amax(1) if targeted else lower.amin(1)).double().tolist()
    # the proof is the same computation again: a value below the claim by more than float64 noise is no proof of it
    return [
        ""
        if v >= row.value - 1e-9 * max(1.0, abs(row.value)) and (v > 0) == (row.value > 0)
        else "the proof shows less"
        for v, row in zip(value, rows, strict=True)
    ]


def _certificates(model: Model, rows: list[Evidence], x: Tensor, y: Tensor, blobs: Blobs) -> list[str]:
    """Branch trees: each is judged for the question that its row is about."""
    graph = model.graph
    if not isinstance(graph, Graph):
        raise InputError("proofs are about the model's graph, which could not be captured.", "Give the same file.")
    found = []
    for i, row in enumerate(rows):
        described, x0 = json.loads(row.threat)["set"], x[i].to(graph.dtype)
        query = question(described, x0, int(y[i]), model.classes)
        proof = of_tensors(blobs.row(row.proof, row.row), query.property)
        ruling = judge_tree(subject(graph, described, x0), query, proof)
        found.append(_short(ruling, row.value))
    return found


def _short(ruling: Ruling, claimed: float) -> str:
    """Why a ruling does not bear a claim out."""
    if not ruling.accepted:
        return ruling.reason
    return "the proof shows less" if ruling.lowest < claimed - 1e-9 * max(1.0, abs(claimed)) else ""


def _counts(model: Model, rows: list[Evidence], x: Tensor, y: Tensor, blobs: Blobs) -> list[str]:
    """Certificates of a smoothed predictor: computed again from the counts, and doubted by fresh draws."""
    if model.smoothing is None:
        raise InputError(f"{model.name} is no smoothed predictor.", "Load it with the --smooth of the run.")
    proof = _stacked([blobs.row(row.proof, row.row) for row in rows])
    failure = torch.tensor([row.failure_probability for row in rows], dtype=torch.float64)
    lower = recheck_counts(model.smoothing, json.loads(rows[0].threat)["set"], x[0].numel(), proof, failure)
    doubts = doubtful(model, x, y, proof, failure)
    return [
        "fresh draws contradict the counts" if doubt else "" if v >= row.value - 1e-9 else "the counts show less"
        for v, doubt, row in zip(lower.tolist(), doubts.tolist(), rows, strict=True)
    ]


def _stacked(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


class Blobs:
    """The ledger's blobs; the `KEPT` used last stay unpacked."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._kept: OrderedDict[str, dict[str, Tensor]] = OrderedDict()

    def row(self, name: str, at: int) -> dict[str, Tensor]:
        """Row `at` of every tensor of a blob, copied: a view would keep the whole blob in memory."""
        if name not in self._kept:
            while len(self._kept) >= KEPT:
                self._kept.popitem(last=False)  # the one used longest ago, before the next is unpacked
            self._kept[name] = self._ledger.blob(name)
        self._kept.move_to_end(name)
        return {key: t[at].clone() for key, t in self._kept[name].items()}


class Inputs:
    """x0 of a sample: from the ledger, else from the data given; refused if its digest is another."""

    def __init__(self, ledger: Ledger, blobs: Blobs, data: Data | None) -> None:
        self._ledger, self._blobs, self._data = ledger, blobs, data
        self._place = {sample: i for i, sample in enumerate(data.ids)} if data is not None else {}

    def order(self, row: Evidence) -> tuple[str, str, int, int]:
        """Sorts rows by proof, and within one by where the input lies: blobs are then needed in runs."""
        blob, at = self._ledger.input(row.subject.content) or ("", self._place.get(row.subject.sample, -1))
        return row.proof, blob, at, row.row

    def find(self, row: Evidence) -> Tensor | None:
        """The input, or None if it is neither stored nor in the data."""
        subject = row.subject
        stored = self._ledger.input(subject.content)
        if stored is not None:
            x0 = self._blobs.row(*stored)["x0"]
        elif self._data is not None and subject.sample in self._place:
            x0 = self._data.take([self._place[subject.sample]]).x[0]
        else:
            return None
        return x0 if sample_digest(x0, subject.label) == subject.content.partition("#")[0] else None
