"""What a ledger says, ready to be told: dataclasses without behaviour, and the fold of a whole run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from saddlepoint.check.counts import clopper_pearson
from saddlepoint.spec.bracket import CLEAN, Verdict

Interval = tuple[float, float]


@dataclass(frozen=True)
class ModelRow:
    """A model that evidence is about. `spec` is what the user typed, never with a secret of a URL."""

    digest: str
    name: str
    spec: str
    access: str
    classes: int
    domain: dict[str, Any]
    shape: tuple[int, ...]
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """What was typed beside the spec to load it: arch, domain, mean, std."""


@dataclass(frozen=True)
class MethodRow:
    """One method as configured: what it cost and what it decided."""

    name: str
    version: str
    parameters: dict[str, Any]
    seed: int
    side: str
    rows: int
    decided: int
    seconds: float
    forwards: int
    backwards: int
    failed: int


@dataclass(frozen=True)
class SampleResult:
    """One sample under one threat. `gauge` is the size at which its best breaking witness lies."""

    id: str
    label: int
    verdict: Verdict
    lower: float | None
    upper: float | None
    by: str
    seconds: float
    forwards: int
    backwards: int
    gauge: float | None = None
    tie: bool = False


@dataclass(frozen=True)
class Claim:
    """The bracket of one model under one threat, with everything it rests on.

    certified = CERTIFIED / n, attacked = 1 − (BROKEN + MISCLASSIFIED) / n, ci95 = [2.5 % Clopper–Pearson limit
    of certified, 97.5 % limit of attacked]. Errors and samples not run count on the side that claims less.
    Clean accuracy is clean_k of the clean_n samples whose clean answer was seen.
    """

    model: ModelRow
    threat: dict[str, Any]
    label: str
    family: str
    size: float
    n: int
    clean_k: int
    clean_n: int
    clean_ci95: Interval
    counts: dict[Verdict, int]
    certified: float
    attacked: float
    ci95: Interval
    samples: list[SampleResult]
    methods: list[MethodRow]
    failure_probability: float = 0.0

    def __repr__(self) -> str:
        low, high = self.ci95
        return (
            f"robust accuracy at {self.label} in [{self.certified:.3f}, {self.attacked:.3f}]; "
            f"95 % interval [{low:.3f}, {high:.3f}], n = {self.n}; {self.counts[Verdict.OPEN]} open"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>"


@dataclass(frozen=True)
class Exhibit:
    """A failure to look at: the sample, the witness, and a random point of the same size.

    `logits` (3, K): rows are clean, adversarial, random. `parameters` are a parametric witness (angle, dy, dx).
    """

    id: str
    label: int
    x0: np.ndarray
    adversarial: np.ndarray
    random: np.ndarray
    logits: np.ndarray
    gauge: float
    survives_8bit: bool | None = None
    parameters: tuple[float, ...] | None = None


@dataclass(frozen=True)
class RunRow:
    """One call of `run`: what was asked, with what, and what was not tested."""

    spec: dict[str, Any]
    started: str
    seconds: float
    interrupted: bool
    versions: dict[str, str]
    untested: list[str]
    out_of_time: bool = False


@dataclass(frozen=True)
class Header:
    """What a claim is about, before its samples."""

    model: ModelRow
    threat: dict[str, Any]
    label: str
    family: str
    size: float


def claim(
    header: Header,
    samples: list[SampleResult],
    methods: list[MethodRow],
    clean: list[bool],
    failure_probability: float = 0.0,
) -> Claim:
    """Count the samples into a claim. `clean`: whether the label was predicted, per sample whose answer was seen."""
    n, correct = len(samples), sum(clean)
    counts = Counter(sample.verdict for sample in samples)
    certified_k = counts[Verdict.CERTIFIED]
    attacked_k = n - counts[Verdict.BROKEN] - counts[Verdict.MISCLASSIFIED]
    return Claim(
        model=header.model,
        threat=header.threat,
        label=header.label,
        family=header.family,
        size=header.size,
        n=n,
        clean_k=correct,
        clean_n=len(clean),
        clean_ci95=clopper_pearson(correct, len(clean)),
        counts={verdict: counts[verdict] for verdict in Verdict},
        certified=certified_k / n if n else 0.0,
        attacked=attacked_k / n if n else 1.0,
        ci95=(clopper_pearson(certified_k, n)[0], clopper_pearson(attacked_k, n)[1]),
        samples=samples,
        methods=methods,
        failure_probability=failure_probability,
    )


def decides(method: str, by: str, verdict: Verdict) -> bool:
    """Whether this method is the one a verdict rests on."""
    if verdict is Verdict.MISCLASSIFIED:
        return method == CLEAN
    return verdict in (Verdict.CERTIFIED, Verdict.BROKEN) and method == by
