"""A query: does the property hold on a box?

    for all x with lower ≤ x ≤ upper:   property(x, f(x))

The form that a complete search answers. A VNN-LIB file becomes a tuple of queries, since its violation is a
disjunction over boxes: the file is `unsat` iff every query holds, and `sat` iff one point violates one of them.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from saddlepoint.core.digests import digest_json, digest_tensors
from saddlepoint.core.errors import InputError
from saddlepoint.spec.property import Property


@dataclass(frozen=True, eq=False)
class Query:
    """`lower`, `upper` (n,) are float64 limits of the flattened input, `property` what must hold between them.

    Where a limit was written as a decimal that no float64 equals, `lower` is the float64 below it and `upper` the one
    above it: a proof on [lower, upper] covers the box that was meant. `inner` holds the limits for a witness, rounded
    the other way, so that a point between them lies in the box that was meant (None: the same limits).
    """

    lower: Tensor
    upper: Tensor
    property: Property
    inner: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        for side, limit in (("lower", self.lower), ("upper", self.upper)):
            if limit.dtype != torch.float64 or limit.dim() != 1 or limit.shape != self.lower.shape:
                raise InputError(
                    f"{side} is {limit.dtype} of shape {tuple(limit.shape)}.", "Both limits are float64 vectors."
                )
            if not bool(limit.isfinite().all()):
                i = int((~limit.isfinite()).nonzero()[0])
                raise InputError(f"the {side} limit of input {i} is {float(limit[i])}.", "Bound every input.")
        if not bool((self.lower <= self.upper).all()):
            i = int((self.lower > self.upper).nonzero()[0])
            raise InputError(
                f"input {i} has lower limit {float(self.lower[i])!r} above its upper limit {float(self.upper[i])!r}.",
                "Nothing lies in such a box; leave the query out.",
            )

    @builtins.property
    def witness_box(self) -> tuple[Tensor, Tensor]:
        """The limits that a witness must keep, with no tolerance."""
        return (self.lower, self.upper) if self.inner is None else self.inner

    def admits(self, x: Float64[Tensor, "n d"]) -> Tensor:
        """Per row of x, whether a witness may lie there (NaN may not)."""
        lower, upper = self.witness_box
        return ((x >= lower) & (x <= upper)).all(1)

    @builtins.property
    def digest(self) -> str:
        """Digest of what is asked: proof limits and formula."""
        box = digest_tensors({"lower": self.lower, "upper": self.upper})
        return digest_json({"box": box, "property": self.property.digest})
