"""The noun of the house: S(x₀), the points that the adversary may choose instead of x₀.

A set is a frozen value. Its maps are pure, batched (rows = samples) and in raw input units. A map that has no
cheap exact form raises `NotAvailable` and names what to use instead; nothing is approximated silently.

Rounding. Points that leave a set (project, lmo, sample) are floats for which `contains(slack=0)` is True,
and True is a proof: it is decided in float64 against the exact rational size.

Parametric sets (`parametric = True`: rotation + translation) run the same maps on their parameters (b, k) in
place of points; `render(x0, params)` makes the point.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from fractions import Fraction
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saddlepoint.core.errors import DataError, InputError, NonFinite, NotAvailable
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import sizes
from saddlepoint.geometry.sizes import Size, SizeLike

Rounding = Literal["nearest", "up"]
HullRounding = Literal["out", "in"]


class Interval(NamedTuple):
    """A box per row: lower ≤ z ≤ upper, both (b, *shape)."""

    lower: Tensor
    upper: Tensor


class OnHyperplane(NamedTuple):
    """Answers of `project_hyperplane`: points (b, *shape), and for which rows they are what was asked."""

    points: Tensor
    exists: Tensor


class PerturbationSet(ABC):
    """S(x₀), nested in its size. Sets without a scale of their own have size 1 and refuse `resized`."""

    kind: ClassVar[str]
    parametric: ClassVar[bool] = False
    size: Size = Fraction(1)

    # -- the set itself ------------------------------------------------------------------------------------
    @abstractmethod
    def canonical(self) -> dict[str, Any]:
        """The set as JSON; sizes as exact "p/q" text. Equal sets have equal texts."""

    @abstractmethod
    def within(self, box: Any) -> PerturbationSet:
        """The same set, its points kept inside the data box as well."""

    def resized(self, size: SizeLike) -> PerturbationSet:
        """The same set at another size."""
        self._refuse("resized", "Build the set anew.")

    def rows(self, index: Tensor) -> PerturbationSet:
        """The set for the chosen rows of the batch: selects per-sample sizes; itself if the size is scalar."""
        return self

    # -- the maps ------------------------------------------------------------------------------------------
    @abstractmethod
    def contains(
        self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"], *, slack: float | int = 0.0
    ) -> Bool[Tensor, " b"]:
        """Which rows of x lie in S(x₀), decided in float64; `slack` widens the set by so many input units."""

    def project(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        """The Euclidean nearest point of S(x₀)."""
        self._refuse("project", "Use lmo (Frank–Wolfe needs no projection) or sample.")

    def project_hyperplane(
        self,
        x0: Float[Tensor, "b *s"],
        x: Float[Tensor, "b *s"],
        w: Float[Tensor, "b *s"],
        c: Float[Tensor, " b"],
    ) -> OnHyperplane:
        """The point of S(x₀) ∩ {<w, z> = c} nearest to x in the set's own norm."""
        self._refuse("project_hyperplane", "Use Linf, L2 or L1, or an attack that only needs project or lmo.")

    def lmo(self, x0: Float[Tensor, "b *s"], g: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        """A maximiser of <g, z> over z in S(x₀)."""
        self._refuse("lmo", "Use project (projected gradient) or sample.")

    def support(
        self, x0: Float[Tensor, "b *s"], a: Float[Tensor, "b m *s"], *, rounding: Rounding = "nearest"
    ) -> Float[Tensor, "b m"]:
        """max of <A_j, z> over z in S(x₀), (b, m). "nearest": in A's dtype, differentiable in A (Danskin).

        "up": float64, inflated by its own rounding bound to a true upper bound of the real maximum.
        """
        self._refuse("support", "Enclose the set: Box or Linf have it, and hull(x0) gives the enclosing box.")

    def gauge(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"]) -> Float[Tensor, " b"]:
        """The smallest size whose set holds x (float64, rounded up); inf where no size does.

        A set of one size (Box, Mask, Patch, combinations) answers that size or inf.
        """
        inside = self.contains(x0, x)
        own = float(self.size) if isinstance(self.size, Fraction) else self.size.to(x0.device)
        return torch.where(inside, own, torch.inf).to(torch.float64)

    def hull(self, x0: Float[Tensor, "b *s"], *, rounding: HullRounding = "out") -> Interval:
        """The smallest box around S(x₀), in x₀'s dtype.

        "out": limits rounded outward, encloses the real set (interval bounds). "in", for sets that are boxes
        themselves: limits rounded inward, so every float point between them satisfies contains(slack=0), and
        projection is a clamp (an attack computes them once).
        """
        self._refuse("hull", "Use contains.")

    def sample(self, x0: Float[Tensor, "b *s"], draws: Draws) -> Float[Tensor, "b *s"]:
        """A random point per row; each set's docstring states the distribution."""
        self._refuse("sample", "Sample an enclosing set and keep what `contains` accepts.")

    def render(self, x0: Float[Tensor, "b *s"], params: Float[Tensor, "b *k"]) -> Float[Tensor, "b *s"]:
        """The point that parameters stand for. For sets of points, the point itself."""
        return params

    # -- algebra and equality ------------------------------------------------------------------------------
    def __and__(self, other: PerturbationSet) -> PerturbationSet:
        return ALGEBRA["and"](self, other)

    def __or__(self, other: PerturbationSet) -> PerturbationSet:
        return ALGEBRA["or"](self, other)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            _equal(getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)  # type: ignore[arg-type]
        )

    def __hash__(self) -> int:
        # tensors count by shape only: equal sets have equal hashes, and that is all a hash promises
        values = (getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]
        return hash((type(self), *(tuple(v.shape) if isinstance(v, Tensor) else v for v in values)))

    def _refuse(self, map_name: str, remedy: str) -> NoReturn:
        raise NotAvailable(f"{type(self).__name__} has no cheap exact {map_name}.", remedy)


# filled by combine.py, which knows the classes that the operators return and imports this module
ALGEBRA: dict[str, Callable[[PerturbationSet, PerturbationSet], PerturbationSet]] = {}


def check_points(x0: Tensor, *others: Tensor) -> None:
    """x₀ is float32 or float64 with a batch axis; the others have its shape and dtype and are finite."""
    if x0.dtype not in (torch.float32, torch.float64):
        raise InputError(f"Points of dtype {x0.dtype}.", "Sets work on float32 and float64: x.float().")
    if x0.ndim < 2:
        raise InputError(f"Points of shape {tuple(x0.shape)}.", "A batch has rows: x[None].")
    for x in others:
        if x.shape != x0.shape or x.dtype != x0.dtype:
            raise DataError(
                f"A batch {tuple(x.shape)} {x.dtype} meets x0 {tuple(x0.shape)} {x0.dtype}.",
                "Both need one shape and one dtype.",
            )
        if not bool(torch.isfinite(x).all()):
            raise NonFinite("A point holds NaN or infinity.", "Check the gradient or the step that made it.")


def _equal(a: object, b: object) -> bool:
    if isinstance(a, (Fraction, Tensor)) and isinstance(b, (Fraction, Tensor)):
        return sizes.same(a, b)
    return bool(a == b)
