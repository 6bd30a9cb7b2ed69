"""The algebra of sets: `a & b` and `a | b`.

Whatever has an exact simple form becomes it: anything & Box is `within`, balls of one norm keep the smaller size, and
boxes intersect to a box. A general intersection knows only its members' answers (contains, an enclosing hull); its
nearest point is a joint problem and is refused. A union is exact almost everywhere: the best member's answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, ClassVar, NoReturn

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import sizes
from saddlepoint.geometry.ball import Ball
from saddlepoint.geometry.base import ALGEBRA, HullRounding, Interval, PerturbationSet, Rounding
from saddlepoint.geometry.box import Box
from saddlepoint.geometry.interval import IntervalSet


@dataclass(frozen=True, init=False, eq=False)
class _Several(PerturbationSet):
    """A set made of others."""

    sets: tuple[PerturbationSet, ...]

    def __init__(self, sets: tuple[PerturbationSet, ...]) -> None:
        if not sets:
            raise InputError("A combination of no sets.", "Give at least one.")
        if any(s.parametric for s in sets):
            raise InputError("Parametric sets do not combine with others.", "Give them as separate threats.")
        object.__setattr__(self, "sets", tuple(sets))

    def within(self, box: Box) -> PerturbationSet:
        return replace(self, sets=tuple(s.within(box) for s in self.sets))

    def rows(self, index: Tensor) -> PerturbationSet:
        return replace(self, sets=tuple(s.rows(index) for s in self.sets))

    def canonical(self) -> dict[str, Any]:
        return {"kind": self.kind, "sets": [s.canonical() for s in self.sets]}


@dataclass(frozen=True, init=False, eq=False)
class Union(_Several):
    """Points that at least one member holds."""

    kind: ClassVar[str] = "union"

    def contains(
        self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"], *, slack: float | int = 0.0
    ) -> Bool[Tensor, " b"]:
        return torch.stack([s.contains(x0, x, slack=slack) for s in self.sets]).any(0)

    def project(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        """The nearest of the members' nearest points."""
        points = [s.project(x0, x) for s in self.sets]
        distances = [(p.to(torch.float64) - x.to(torch.float64)).square().flatten(1).sum(-1) for p in points]
        return _pick(points, torch.stack(distances).argmin(0))

    def lmo(self, x0: Float[Tensor, "b *s"], g: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        points = [s.lmo(x0, g) for s in self.sets]
        # differences from x₀ keep the digits that a large common <g, x₀> would take
        values = [((p.to(torch.float64) - x0.to(torch.float64)) * g).flatten(1).sum(-1) for p in points]
        return _pick(points, torch.stack(values).argmax(0))

    def support(
        self, x0: Float[Tensor, "b *s"], a: Float[Tensor, "b m *s"], *, rounding: Rounding = "nearest"
    ) -> Float[Tensor, "b m"]:
        return torch.stack([s.support(x0, a, rounding=rounding) for s in self.sets]).amax(0)

    def hull(self, x0: Float[Tensor, "b *s"], *, rounding: HullRounding = "out") -> Interval:
        if rounding == "in":
            self._refuse('hull(rounding="in")', "It is not a box: use project.")
        hulls = [s.hull(x0) for s in self.sets]
        return Interval(
            reduce(torch.minimum, [h.lower for h in hulls]), reduce(torch.maximum, [h.upper for h in hulls])
        )

    def sample(self, x0: Float[Tensor, "b *s"], draws: Draws) -> Float[Tensor, "b *s"]:
        """A member drawn with equal chances, then a point from it (so not uniform over the union)."""
        which = draws.integers((), len(self.sets), stream=15).to(x0.device)
        return _pick([s.sample(x0, draws) for s in self.sets], which)


@dataclass(frozen=True, init=False, eq=False)
class Intersection(_Several):
    """Points that every member holds."""

    kind: ClassVar[str] = "intersection"

    def contains(
        self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"], *, slack: float | int = 0.0
    ) -> Bool[Tensor, " b"]:
        return torch.stack([s.contains(x0, x, slack=slack) for s in self.sets]).all(0)

    def hull(self, x0: Float[Tensor, "b *s"], *, rounding: HullRounding = "out") -> Interval:
        """The common part of the members' hulls: it encloses the set (and is the smallest box if all are boxes)."""
        if rounding == "in":
            self._refuse('hull(rounding="in")', "It is not a box.")
        return _common(self.sets, x0, "out")

    def _refuse(self, map_name: str, remedy: str) -> NoReturn:
        members = " & ".join(type(s).__name__ for s in self.sets)
        super()._refuse(
            f"{map_name} ({members})",
            "Attack the member that binds and keep what `contains` accepts, or bound the smallest member.",
        )


@dataclass(frozen=True, init=False, eq=False)
class BoxIntersection(IntervalSet, Intersection):
    """An intersection of sets that are boxes: a box, with every map."""

    def hull(self, x0: Float[Tensor, "b *s"], *, rounding: HullRounding = "out") -> Interval:
        return _common(self.sets, x0, rounding)


def intersect(a: PerturbationSet, b: PerturbationSet) -> PerturbationSet:
    """a ∩ b in its simplest exact form."""
    if isinstance(b, Box):
        return a.within(b)
    if isinstance(a, Box):
        return b.within(a)
    if isinstance(a, Ball) and isinstance(b, Ball) and type(a) is type(b):
        size = sizes.smaller(a.size, b.size)
        if size is not None:
            one = replace(a, size=size)
            return one if b.box is None else one.within(b.box)
    members = tuple(m for s in (a, b) for m in (s.sets if isinstance(s, Intersection) else (s,)))
    boxes = all(isinstance(m, IntervalSet) for m in members)
    return BoxIntersection(members) if boxes else Intersection(members)


def unite(a: PerturbationSet, b: PerturbationSet) -> Union:
    """a ∪ b, flattened."""
    return Union(tuple(m for s in (a, b) for m in (s.sets if isinstance(s, Union) else (s,))))


def _common(members: tuple[PerturbationSet, ...], x0: Tensor, rounding: HullRounding) -> Interval:
    hulls = [s.hull(x0, rounding=rounding) for s in members]
    return Interval(reduce(torch.maximum, [h.lower for h in hulls]), reduce(torch.minimum, [h.upper for h in hulls]))


def _pick(points: list[Tensor], which: Tensor) -> Tensor:
    """Row i of points[which[i]]."""
    chosen = points[0]
    for number, candidate in enumerate(points[1:], start=1):
        chosen = torch.where(per_row(which == number, chosen), candidate, chosen)
    return chosen


ALGEBRA["and"] = intersect
ALGEBRA["or"] = unite
