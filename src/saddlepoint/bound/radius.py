"""Certified radii: the largest size at which a method proves the property, per sample.

    r = max { s : lower bound of ⟨C, f⟩ over S_s(x₀) > 0 in every row }   ≤   the true radius

S_s is nested in s, so the proof at one size holds at every smaller one, and any size that is proven is a lower bound of
the true radius, whatever the method does elsewhere. Search: double or quarter from `start` until one size is proven and
a larger one is not; then the next size is where the straight line through the two known margins crosses 0, kept a
tenth of the interval away from its ends (regula falsi, safeguarded), until the two differ by `tolerance`. Margins are
nearly straight in the size, so four or five bounds do what bisection needs ten for. All samples share each call; those
that are done drop out.

Cost: about 4 + log2(start / r) calls of the method on the samples that are left, and one for the final proof.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saddlepoint.bound.base import BoundMethod, Bounds
from saddlepoint.core.errors import InputError
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.graph.ir import Graph

_EDGE = 0.1  # share of the interval that the next size keeps from its ends


@dataclass(frozen=True)
class Settings:
    """Sizes in the set's own units: where to begin, never beyond `largest`, below `least` nothing is looked for."""

    start: float
    largest: float
    least: float = 1e-6
    tolerance: float = 0.01
    """Relative: the size found and one at which the method fails differ by so much at most."""

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.start <= self.largest < float("inf"):
            raise InputError(
                f"sizes {self.least} ≤ {self.start} ≤ {self.largest}.", "least ≤ start ≤ largest, above 0."
            )
        if not self.tolerance > 0:
            raise InputError(f"tolerance = {self.tolerance}.", "0.01 is a hundredth of the radius.")


@dataclass(frozen=True)
class Certified:
    """size (b,) float64, `proven` where there is a proof at that size, and the bounds that are it.

    `failed` (b,): the smallest size seen at which the method proved nothing (inf: none up to `largest`). Rows of
    `bounds` belong to the samples `proven.nonzero()`. Sizes are dyadic: Fraction(size) names the set exactly.
    """

    size: Float[Tensor, " b"]
    proven: Bool[Tensor, " b"]
    failed: Float[Tensor, " b"]
    bounds: Bounds | None
    calls: int


def certified_radius(
    method: BoundMethod,
    graph: Graph,
    set: PerturbationSet,
    x: Float[Tensor, "b ..."],
    C: Float[Tensor, "b m k"],
    settings: Settings,
) -> Certified:
    """The largest sizes that `method` proves. `set` gives the shape (its own size is not used).

    Raises NotAvailable for sets without a size.
    """
    search = _Search(method, graph, set, x, C)
    good, bad = torch.zeros(len(x), dtype=torch.float64), torch.full((len(x),), torch.inf, dtype=torch.float64)
    above, below = torch.zeros_like(good), torch.zeros_like(good)  # margins at `good` (> 0) and at `bad`
    size = torch.full_like(good, settings.start)
    active, calls = torch.arange(len(x)), 0
    while len(active):
        margin = search.margin(active, size[active])
        calls += 1
        held = margin > 0  # NaN holds nothing
        good[active[held]], above[active[held]] = size[active[held]], margin[held]
        bad[active[~held]], below[active[~held]] = size[active[~held]], margin[~held]
        size = _next(good, bad, above, below, settings)
        active = active[_open(good, bad, settings)[active]]
    proven = good > 0
    index = proven.nonzero().flatten()
    bounds = search.bounds(index, good[index]) if len(index) else None
    return Certified(good, proven, bad, bounds, calls + (bounds is not None))


def _open(good: Tensor, bad: Tensor, settings: Settings) -> Tensor:
    """Whose size may still grow."""
    reached = good >= settings.largest
    hopeless = (good == 0) & (bad <= settings.least)
    close = (good > 0) & (bad <= good * (1 + settings.tolerance))
    return ~(reached | hopeless | close)


def _next(good: Tensor, bad: Tensor, above: Tensor, below: Tensor, settings: Settings) -> Tensor:
    """The size to try: outward while there is no failure, inward while there is no proof, then between."""
    grown = (2 * good).clamp(max=settings.largest)
    shrunk = (bad / 4).clamp(min=settings.least)
    share = above / (above - below)  # where the line through both margins meets 0
    share = torch.where(share.isfinite(), share, 0.5).clamp(_EDGE, 1 - _EDGE)
    between = good + share * (bad - good)
    return torch.where(bad.isinf(), grown, torch.where(good == 0, shrunk, between))


@dataclass(frozen=True)
class _Search:
    method: BoundMethod
    graph: Graph
    set: PerturbationSet
    x: Tensor
    C: Tensor

    def bounds(self, index: Tensor, size: Tensor) -> Bounds:
        """Of some samples, each at its own size."""
        at = index.to(self.x.device)
        return self.method(self.graph, self.set.resized(size), self.x[at], self.C[at])

    def margin(self, index: Tensor, size: Tensor) -> Tensor:
        """The smallest row of each sample, float64 on the CPU."""
        return self.bounds(index, size).lower.amin(1).double().cpu()
