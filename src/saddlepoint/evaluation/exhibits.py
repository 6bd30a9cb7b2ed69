"""Failures to look at: sample, witness, and a random point of the same size, each with the model's scores.

The picture that started the field: a perturbation that changes the label beside a random one of equal size that does
not. Nearest failures first; what is kept depends on the evidence alone, so a repeated run keeps the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from saddlepoint.core.errors import NotAvailable
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data import Data
from saddlepoint.evaluation.subjects import Sample
from saddlepoint.ledger import Ledger
from saddlepoint.spec import Evidence, Model, Threat

KEEP = 8


@torch.no_grad()
def keep_exhibits(
    model: Model, data: Data, threats: Sequence[Threat], samples: list[Sample], ledger: Ledger, seed: int
) -> None:
    """Store up to 8 exhibits per threat in the ledger."""
    known = {sample.subject.content: sample for sample in samples}
    for threat in threats:
        nearest = _nearest(ledger, model, threat, known)
        for gauge, row in nearest:
            sample = known[row.subject.content]
            x0 = data.take([sample.position]).x
            witness = ledger.blob(row.proof)["witness"][row.row : row.row + 1]
            tensors = _pictures(model, threat, x0, witness, Draws(row_keys(seed, [row.subject.sample], "exhibit")))
            info = {"survives_8bit": json.loads(row.details).get("survives_8bit"), "by": row.method.name}
            with ledger.transaction():
                ledger.add_exhibit(threat.canonical(), row.subject, gauge, ledger.add_blob(tensors), info)


def _nearest(ledger: Ledger, model: Model, threat: Threat, known: dict[str, Sample]) -> list[tuple[float, Evidence]]:
    """The breaking witnesses of smallest gauge (then of most negative margin), one per sample."""
    best: dict[str, tuple[float, float, str, Evidence]] = {}
    for row in ledger.evidence(model.digest, threat.canonical()):
        breaks = row.side == "upper" and row.value <= 0 and row.proof and row.status == "checked"
        if breaks and row.subject.content in known:
            gauge = float(json.loads(row.details).get("gauge", float("inf")))
            # gauges a rounding apart are one gauge: the clearer failure goes first
            entry = (round(gauge, 6), row.value, row.key, row)
            best[row.subject.content] = min(best.get(row.subject.content, entry), entry)
    return [(entry[0], entry[3]) for entry in sorted(best.values())[:KEEP]]


def _pictures(model: Model, threat: Threat, x0: Tensor, witness: Tensor, draws: Draws) -> dict[str, Tensor]:
    set_ = threat.set
    noise = _random_of_same_size(threat, x0, witness, draws)
    adversarial = set_.render(x0, witness.to(x0.dtype))
    random = set_.render(x0, noise)
    logits = model(torch.cat([x0, adversarial, random]))
    tensors = {"x0": x0[0], "adversarial": adversarial[0], "random": random[0], "logits": logits}
    if set_.parametric:
        tensors["parameters"] = witness[0]
    return tensors


def _random_of_same_size(threat: Threat, x0: Tensor, witness: Tensor, draws: Draws) -> Tensor:
    """A random extreme point of the set (random signs for ℓ∞, a random direction for ℓ2); else a random point."""
    if threat.set.parametric:
        return threat.set.sample(x0, draws)
    try:
        return threat.set.lmo(x0, draws.normal(tuple(x0.shape[1:]), dtype=x0.dtype))
    except NotAvailable:
        return threat.set.sample(x0, draws)
