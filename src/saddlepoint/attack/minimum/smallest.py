"""The smallest adversarial point of every sample, and the whole curve of accuracy against size from it.

    size_i = min over attacks of min over points x seen with m(x) ≤ 0 of gauge(x)
    standing(ε) = |{i : size_i > ε}|            the samples that no point within ε is known to break

A point of size s breaks its sample at every ε ≥ s, so one minimum-size run decides all sizes at once, where attacks of
fixed size start anew for each: a sample whose smallest point is s needs no more work at sizes ≥ s, and at sizes below
it the fixed-size attack starts from standing samples only. `decided` says so per size. The shares are upper bounds
on the true robust accuracy, as with every attack; counts are returned, intervals are the reader's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from saddlepoint.attack.engine import EngineSettings, Outcome, run
from saddlepoint.attack.protocol import Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.core.errors import InputError
from saddlepoint.spec.model import Model


@dataclass(frozen=True)
class Smallest:
    """Per sample the smallest size (inf: none found), its point, which attack found it (−1: x0 itself, or nobody),
    and what all attacks together cost. `outcomes` are the runs, in the attacks' order."""

    size: Float[Tensor, " n"]
    point: Float[Tensor, "n ..."]
    by: Int64[Tensor, " n"]
    forwards: Int64[Tensor, " n"]
    backwards: Int64[Tensor, " n"]
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> Bool[Tensor, " n"]:
        """Samples for which no attack came to its end and none found a point: they are no evidence of robustness."""
        ended = [torch.tensor([s == "ok" for s in o.status], device=self.size.device) for o in self.outcomes]
        return ~torch.stack(ended).any(0) & self.size.isinf()


@dataclass(frozen=True)
class Curve:
    """For each size, how many of `samples` stand (no point within that size breaks them)."""

    sizes: tuple[float, ...]
    standing: tuple[int, ...]
    samples: int

    @property
    def shares(self) -> tuple[float, ...]:
        """Upper bounds on the robust accuracy at each size, as fractions."""
        return tuple(k / self.samples for k in self.standing)


def smallest(
    model: Model, attacks: Attack[Any] | Sequence[Attack[Any]], rows: Rows, settings: EngineSettings | None = None
) -> Smallest:
    """Run the attacks and keep each sample's smallest point, the first attack's among equals. See `engine.run`."""
    listed = [attacks] if isinstance(attacks, Attack) else list(attacks)
    if not listed:
        raise InputError("no attack was given.", "Name one, e.g. FMN().")
    settings = replace(settings or EngineSettings(), smallest=True)
    outcomes: list[Outcome] = []
    for attack in listed:
        outcomes.append(run(model, attack, rows, settings))
    size, by = outcomes[0].size, torch.where(outcomes[0].item < 0, -1, 0)
    point = outcomes[0].best_point
    for number, other in enumerate(outcomes[1:], 1):
        better = other.size < size
        size, by = torch.where(better, other.size, size), torch.where(better, number, by)
        point = torch.where(better.reshape(-1, *[1] * (point.ndim - 1)), other.best_point, point)
    forwards = torch.stack([o.forwards for o in outcomes]).sum(0)
    backwards = torch.stack([o.backwards for o in outcomes]).sum(0)
    return Smallest(size, point, by, forwards, backwards, tuple(outcomes))


def curve(size: Float[Tensor, " n"], at: Sequence[float] | None = None) -> Curve:
    """Standing samples at the sizes `at`; without them at 0 and at every size where the curve falls.

    A sample of size s is broken at every ε ≥ s; one misclassified at x0 has size 0 and never stands.

    >>> curve(torch.tensor([0.0, 0.1, 0.3, torch.inf]), (0.0, 0.1, 0.2)).standing
    (3, 2, 2)
    """
    if len(size) == 0:
        raise InputError("a curve of no samples says nothing.")
    if at is None:
        at = [0.0, *size[size.isfinite() & (size > 0)].unique().tolist()]
    limits = torch.tensor(list(at), dtype=size.dtype, device=size.device)
    if bool((limits.isnan() | (limits < 0)).any()):
        raise InputError(f"sizes {list(at)} must be at least 0.")
    standing = decided(size, limits).logical_not().sum(1).tolist()
    return Curve(tuple(float(e) for e in at), tuple(standing), len(size))


def decided(size: Float[Tensor, " n"], limits: Float[Tensor, " e"]) -> Bool[Tensor, "e n"]:
    """Which samples are known to be broken at which sizes: a fixed-size attack has nothing left to do there."""
    return size[None, :] <= limits[:, None]
