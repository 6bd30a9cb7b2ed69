"""What a ledger itself shows about its evaluation, before anything is attacked again.

    silent success    a stored witness breaks its sample, and the sample does not count as broken
    fallen witness    a stored witness no longer breaks what counts as broken
    crashes           methods that ended in an error
    no gradients      the samples that stand were never attacked with a gradient

Silent success cannot happen in this house's own runs (the best point of a path is kept, and replayed before it is
filed); it can in a ledger from elsewhere, or on a machine whose kernels round apart.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.check.witness import replay
from saddlepoint.data import Batch, Data
from saddlepoint.evaluation.doctor.case import Question
from saddlepoint.evaluation.replay import Blobs, Inputs
from saddlepoint.ledger import Ledger
from saddlepoint.spec import Evidence, Model, Verdict, fold
from saddlepoint.spec.bracket import CLEAN
from saddlepoint.spec.finding import Finding


@dataclass(frozen=True)
class Remembered:
    """One sample of the ledger whose input is known: its best witness (or x0), and its verdict."""

    x0: Tensor
    row: Evidence
    witness: Tensor | None
    verdict: Verdict

    @property
    def broken(self) -> bool:
        """Whether it counts as broken."""
        return self.verdict is Verdict.BROKEN

    @property
    def stands(self) -> bool:
        """Whether the evaluation leaves it open: neither broken nor certified."""
        return self.verdict not in (Verdict.BROKEN, Verdict.CERTIFIED)


def remembered(ledger: Ledger, model: str, threat: str, data: Data | None, most: int) -> list[Remembered]:
    """Samples that the model gets right: first those that stand, up to a quarter fallen ones, then certified ones."""
    blobs = Blobs(ledger)
    inputs = Inputs(ledger, blobs, data)
    standing: list[tuple[Evidence, Verdict]] = []
    fallen: list[tuple[Evidence, Verdict]] = []
    certified: list[tuple[Evidence, Verdict]] = []
    for _, group in itertools.groupby(ledger.evidence(model, threat), lambda e: e.subject.content):
        rows = list(group)
        verdict = fold(rows).verdict
        uppers = [row for row in rows if row.side == "upper" and row.status == "checked"]
        if not uppers or verdict in (Verdict.MISCLASSIFIED, Verdict.CONTRADICTION):
            continue
        place = {Verdict.BROKEN: fallen, Verdict.CERTIFIED: certified}.get(verdict, standing)
        if len(place) < most:
            place.append((min(uppers, key=lambda row: row.value), verdict))
    rest = max(most // 4, most - len(standing))
    chosen = [*standing[: most - min(most // 4, len(fallen))], *fallen[:rest], *certified][:most]
    found = []
    for row, verdict in chosen:
        x0 = inputs.find(row)
        if x0 is not None:
            witness = blobs.row(row.proof, row.row)["witness"] if row.proof else None
            found.append(Remembered(x0, row, witness, verdict))
    return found


def batch_of(known: list[Remembered]) -> tuple[Batch, Tensor]:
    """Their inputs, and which are broken."""
    subjects = [k.row.subject for k in known]
    x = torch.stack([k.x0 for k in known])
    y = torch.tensor([s.label for s in subjects])
    return Batch(x, y, tuple(s.sample for s in subjects)), torch.tensor([k.broken for k in known])


CRASHES = Question(
    "crashes",
    "No method ended in an error",
    "Mend what they say and run the same command again: an attack that crashed shows nothing.",
    if_bad="unknown",
)
AGAIN = "Run `saddlepoint replay`, and the evaluation again on this machine."
SILENT = Question("silent-success", "No success was overlooked", AGAIN)
FALLEN = Question("fallen-witness", "Every witness still breaks its sample", AGAIN)
NO_WHITE_BOX = Question(
    "no-white-box",
    "What stands was attacked with gradients",
    "Give gradients to the attack: `saddlepoint run --adapt` looks for what stops them.",
)


def record(ledger: Ledger, model: Model, threat: str, known: list[Remembered]) -> Iterator[Finding]:
    """The ledger's own findings."""
    witnessed = [k for k in known if k.witness is not None]
    if witnessed:
        yield from _witnesses(model, threat, witnessed)
    crashes = ledger.failures(model.digest, threat)
    count = sum(samples for _, _, samples in crashes)
    worst = f"{crashes[0][0]} on {crashes[0][2]} samples: {crashes[0][1]}" if crashes else "no method failed"
    yield CRASHES.finding(count > 0, float(count), worst, "samples × methods")
    yield from _methods(ledger, model.digest, threat, known)


def _witnesses(model: Model, threat: str, known: list[Remembered]) -> Iterator[Finding]:
    x, y = torch.stack([k.x0 for k in known]), torch.tensor([k.row.subject.label for k in known])
    points = torch.stack([k.witness for k in known if k.witness is not None])
    breaks = replay(model, threat, x, y, points).value <= 0
    broken = torch.tensor([k.broken for k in known])
    for question, bad, of in ((SILENT, breaks & ~broken, ~broken), (FALLEN, ~breaks & broken, broken)):
        count = int(bad.sum())
        yield question.of_samples(count > 0, count, int(of.sum()), " looked at")


def _methods(ledger: Ledger, model: str, threat: str, known: list[Remembered]) -> Iterator[Finding]:
    standing = [k.row.subject.content for k in known if k.stands]
    if not standing:
        return
    rows = [r for r in ledger.evidence(model, threat, standing) if r.side == "upper" and r.method.name != CLEAN]
    sloped = {r.subject.content for r in rows if r.cost.backwards > 0}
    names = ", ".join(sorted({r.method.name for r in rows})) or "nothing"
    without = sum(content not in sloped for content in standing)
    bad = without > 0 and json.loads(threat)["access"] in ("GRADIENT", "GRAPH")
    more = f" that stand saw no gradient; they were attacked by {names}"
    yield NO_WHITE_BOX.of_samples(bad, without, len(standing), more)
