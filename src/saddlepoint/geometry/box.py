"""The data box: lower ≤ z ≤ upper, wherever x₀ lies. A model's domain is one; so is a verification query.

Limits are Python floats: one for all coordinates, one per channel (axis 1), or one per coordinate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saddlepoint.core.arithmetic import float_above, float_below
from saddlepoint.core.errors import InputError, InputOutsideDomain
from saddlepoint.geometry.base import HullRounding, Interval, PerturbationSet
from saddlepoint.geometry.interval import IntervalSet


@dataclass(frozen=True, init=False, eq=False)
class Box(IntervalSet):
    """`Box(0, 1)`, `Box((0.0, -1.0, -1.0), 1)`: all points between the limits.

    >>> Box(0, 1).canonical()
    {'kind': 'box', 'lower': [0.0], 'upper': [1.0]}
    """

    kind: ClassVar[str] = "box"
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __init__(self, lower: float | int | Sequence[float | int], upper: float | int | Sequence[float | int]) -> None:
        low, high = _floats(lower), _floats(upper)
        count = max(len(low), len(high))
        if {len(low), len(high)} - {1, count}:
            raise InputError(f"A box with {len(low)} lower and {len(high)} upper limits.", "Give as many of both.")
        low, high = (v * count if len(v) == 1 else v for v in (low, high))
        for a, b in zip(low, high, strict=True):
            if not a <= b:
                raise InputError(f"An empty box: lower {a}, upper {b}.", "Give lower ≤ upper, both numbers.")
        if len(set(low)) == 1 and len(set(high)) == 1:
            low, high = low[:1], high[:1]  # one text for one box
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)

    def canonical(self) -> dict[str, Any]:
        return {"kind": self.kind, "lower": [_json(v) for v in self.lower], "upper": [_json(v) for v in self.upper]}

    def within(self, box: Box) -> Box:
        """The common part of two boxes."""
        counts = {len(self.lower), len(box.lower)} - {1}
        if len(counts) > 1:
            raise InputError(f"Boxes with {len(self.lower)} and {len(box.lower)} limits.", "Give as many of both.")
        n = max(len(self.lower), len(box.lower))
        mine, theirs = ([v * n if len(v) == 1 else v for v in (one.lower, one.upper)] for one in (self, box))
        return Box(
            [max(a, b) for a, b in zip(mine[0], theirs[0], strict=True)],
            [min(a, b) for a, b in zip(mine[1], theirs[1], strict=True)],
        )

    # -- limits as tensors ---------------------------------------------------------------------------------
    def limits(self, like: Tensor, rounding: HullRounding = "in") -> Interval:
        """Limits in `like`'s dtype that broadcast against it: "in" rounds into the box, "out" around it."""
        up, down = (float_above, float_below) if rounding == "in" else (float_below, float_above)
        lower = [v if math.isinf(v) else up(Fraction(v), like.dtype) for v in self.lower]
        upper = [v if math.isinf(v) else down(Fraction(v), like.dtype) for v in self.upper]
        for low, high, wanted in zip(lower, upper, self.lower, strict=True):
            if low > high:
                raise InputError(
                    f"The box's side at {wanted!r} holds no {like.dtype} number.",
                    "Use float64 points, or a side that the dtype can represent.",
                )
        return Interval(self._shaped(lower, like), self._shaped(upper, like))

    def require_inside(self, x: Tensor, name: str = "x") -> None:
        """Raises InputOutsideDomain, with the extremes and the usual cause, unless every value is in the box."""
        lower, upper = self.limits(x)
        if not bool(((x >= lower) & (x <= upper)).all()):  # False for NaN too
            raise InputOutsideDomain(
                f"{name} has min {float(x.min()):.4g} and max {float(x.max()):.4g}, the domain is {self}.",
                "Normalised images? Keep them raw and give the model mean= and std= (--mean, --std). "
                "0..255? Divide by 255.",
            )

    def __str__(self) -> str:
        if len(self.lower) == 1:
            return f"[{self.lower[0]:g}, {self.upper[0]:g}]"
        return f"[{min(self.lower):g}, {max(self.upper):g}] ({len(self.lower)} different limits)"

    # -- maps ----------------------------------------------------------------------------------------------
    def contains(
        self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"], *, slack: float | int = 0.0
    ) -> Bool[Tensor, " b"]:
        """Exact: both sides are float64 numbers."""
        point = x.to(torch.float64)
        lower, upper = self.limits(point)
        if slack:
            lower, upper = lower - slack, upper + slack
        return ((point >= lower) & (point <= upper)).flatten(1).all(-1)

    def hull(self, x0: Float[Tensor, "b *s"], *, rounding: HullRounding = "out") -> Interval:
        lower, upper = self.limits(x0, rounding)
        return Interval(lower.expand(x0.shape), upper.expand(x0.shape))

    def _shaped(self, values: list[float], like: Tensor) -> Tensor:
        flat = torch.tensor(values, dtype=like.dtype, device=like.device)
        shape = tuple(like.shape[1:])
        if len(values) == 1:
            return flat.reshape(1, *(1 for _ in shape))
        if shape and len(values) == shape[0]:
            return flat.reshape(1, -1, *(1 for _ in shape[1:]))
        if len(values) == math.prod(shape):
            return flat.reshape(1, *shape)
        raise InputError(
            f"A box with {len(values)} limits meets points of shape {shape}.",
            f"Give one limit, one per channel ({shape[0] if shape else 1}), or one per coordinate.",
        )


def into_box(box: Box | None, inner: PerturbationSet | Box) -> Box:
    """The common box of a set that may have none yet and another box."""
    if not isinstance(inner, Box):
        raise InputError(f"within() takes a Box, not {type(inner).__name__}.", "Use the & operator for other sets.")
    return inner if box is None else box.within(inner)


def _floats(values: float | int | Sequence[float | int]) -> tuple[float, ...]:
    numbers = (values,) if isinstance(values, (int, float)) else tuple(values)
    if not numbers:
        raise InputError("A box without limits.", "Give lower and upper, e.g. Box(0, 1).")
    return tuple(float(v) + 0.0 for v in numbers)  # + 0.0 turns -0.0 into 0.0


def _json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
