"""Certified radii: the largest size at which a method proves the property, per sample.

    r = max { s : lower bound of ⟨C, f⟩ over S_s(x₀) > 0 in every row }   ≤   the true radius

S_s is nested in s, so the proof at one size holds at every smaller one, and any size proven is a lower bound of the
true radius, whatever the method does elsewhere. Search: double from `start` while sizes are proven, or quarter until
one is; geometric means until the ends are within a factor of 2; then the next size is where the straight line through
the two known margins crosses 0 (at size 0 the margin is the network's own), or just so far from the ends that the
answer there can end the search. Where one end stays twice, its margin is scaled down (Anderson and Björck 1973), as
margins bend away steeply beyond the radius. It ends where the two sizes differ by `tolerance`. All samples share each
call; those that are done drop out, those wrong at x₀ never come in.

Cost: the calls of the sample that takes longest, and one for the final proof.
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

_NEAR = 0.9  # of the tolerance: how close to an end the next size may lie


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
    ends = _Ends.of(search.centre())
    active, calls = (ends.above > 0).nonzero().flatten(), 0
    while len(active):
        size = ends.next(settings)[active]
        ends.update(active, size, search.margin(active, size))
        calls += 1
        active = active[ends.open(settings)[active]]
    good, bad = ends.good, ends.bad
    proven = good > 0
    index = proven.nonzero().flatten()
    bounds = search.bounds(index, good[index]) if len(index) else None
    return Certified(good, proven, bad, bounds, calls + (bounds is not None))


@dataclass
class _Ends:
    """Per sample: the largest proven and the smallest failed size, the margins there (scaled), which end moved last."""

    good: Tensor
    bad: Tensor
    above: Tensor
    below: Tensor
    moved: Tensor

    @staticmethod
    def of(centre: Tensor) -> _Ends:
        """Nothing proven, nothing failed; the margins at x₀ stand at size 0."""
        zero = torch.zeros_like(centre)
        return _Ends(zero.clone(), torch.full_like(zero, torch.inf), centre, zero.clone(), zero.clone())

    def update(self, index: Tensor, size: Tensor, margin: Tensor) -> None:
        """Margins at these sizes. NaN proves nothing."""
        held = margin > 0
        for rows, sign, end, value, other in (
            (index[held], 1.0, self.good, self.above, self.below),
            (index[~held], -1.0, self.bad, self.below, self.above),
        ):
            new = margin[held if sign > 0 else ~held]
            factor = 1 - new / value[rows]
            factor = torch.where(factor.isfinite() & (factor > 0), factor, 0.5)
            stays = self.moved[rows] == sign  # the other end stays for the second time
            other[rows] = torch.where(stays, other[rows] * factor, other[rows])
            end[rows], value[rows], self.moved[rows] = size[held if sign > 0 else ~held], new, sign

    def open(self, settings: Settings) -> Tensor:
        """Whose size may still grow."""
        reached = self.good >= settings.largest
        hopeless = (self.good == 0) & (self.bad <= settings.least)
        close = (self.good > 0) & (self.bad <= self.good * (1 + settings.tolerance))
        return ~(reached | hopeless | close)

    def next(self, settings: Settings) -> Tensor:
        """The size to try: outward while there is no failure, then between."""
        grown = torch.where(self.good == 0, settings.start, (2 * self.good).clamp(max=settings.largest))
        share = self.above / (self.above - self.below)  # where the line through both margins meets 0
        share = torch.where(share.isfinite(), share, 0.5)
        edge = 1 + _NEAR * settings.tolerance
        # a failure at good · edge, or a proof at bad / edge, ends the search
        between = self.good + share * (self.bad - self.good)
        between = torch.minimum(torch.maximum(between, self.good * edge), self.bad / edge)
        # far apart, margins are nothing like straight: quarter, or take the geometric mean
        far = torch.where(self.good == 0, torch.maximum(between, self.bad / 4), (self.good * self.bad).sqrt())
        between = torch.where(self.bad > 2 * self.good, far, between)
        return torch.where(self.bad.isinf(), grown, between.clamp(min=settings.least))


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

    def centre(self) -> Tensor:
        """Margins at x₀: those of size 0, which prove nothing but that the search is worth while."""
        with torch.no_grad():
            values = torch.einsum("bmk,bk->bm", self.C, self.graph(self.x))
        return values.amin(1).double().cpu()

    def margin(self, index: Tensor, size: Tensor) -> Tensor:
        """The smallest row of each sample, float64 on the CPU."""
        return self.bounds(index, size).lower.amin(1).double().cpu()
