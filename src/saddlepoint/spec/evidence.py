"""One inequality about one subject, with what shows it.

side "upper":  m* ≤ value   shown by a witness          side "lower":  m* ≥ value   shown by a proof
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from saddlepoint.core.digests import digest_json
from saddlepoint.core.errors import InputError

Side = Literal["lower", "upper"]
Status = Literal["checked", "claimed", "refuted"]
Arithmetic = Literal["outward", "f64", "f32"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What the inequality is about: (predictor, sample, label). `content` is the sample's own digest."""

    model: str
    sample: str
    label: int
    content: str


@dataclass(frozen=True, slots=True)
class Method:
    """Which method, in which version, with which parameters (canonical JSON) and seed."""

    name: str
    version: str = "1"
    parameters: str = "{}"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """What it took: forwards and backwards of this sample, queries, seconds of wall time (shared evenly)."""

    forwards: int = 0
    backwards: int = 0
    queries: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.forwards + other.forwards,
            self.backwards + other.backwards,
            self.queries + other.queries,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """One row. `proof` names a blob (and the row in it) in the ledger, "" where the method needs none.

    `details` (canonical JSON) holds what a reader wants beside the inequality: the witness's gauge, whether
    it survives 8 bits, its margin in float64, disagreement between batch layouts. It never decides anything
    but the difference between a contradiction and a numerical tie.
    """

    quantity: str
    side: Side
    value: float
    subject: Subject
    threat: str
    method: Method
    proof: str = ""
    row: int = 0
    failure_probability: float = 0.0
    arithmetic: Arithmetic = "f32"
    status: Status = "claimed"
    cost: Cost = Cost()
    details: str = "{}"

    def __post_init__(self) -> None:
        if self.value != self.value:
            raise InputError("NaN bounds nothing, so it is no evidence.", "Record it as a failure instead.")

    @property
    def key(self) -> str:
        """Digest of the claim; cost and status are not part of what is claimed."""
        subject, method = self.subject, self.method
        return digest_json(
            [
                [self.quantity, self.side, repr(self.value), self.proof, self.row, self.failure_probability],
                [subject.model, subject.sample, subject.label, subject.content, self.threat, self.arithmetic],
                [method.name, method.version, method.parameters, method.seed],
            ]
        )
