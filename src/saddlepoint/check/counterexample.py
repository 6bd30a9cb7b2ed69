"""Is a point a counterexample to a query? No tolerance anywhere.

    x (float64) in the witness box,   z = f(x rounded to the deployed type),   property(x, z) violated

Limits, coefficients and constants are compared as rational numbers with the runtime's own outputs, so neither the sum
over an atom nor the reading of its constant is rounded in anyone's favour (reference/verification: soundness traps 4,
5, 6, 8). Where the property speaks of the input, it must be violated for the float64 point and for its rounding.
Cost: one forward of one point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from saddlepoint.spec.property import Atom, Property
from saddlepoint.spec.query import Query


@dataclass(frozen=True, eq=False)
class Counterexample:
    """`x` (n,) float64 in the box, `z` (k,) the runtime's outputs there."""

    x: Tensor
    z: Tensor


@dataclass(frozen=True)
class Dismissed:
    """Why a candidate is no counterexample."""

    why: str


def judge(query: Query, x: Tensor, run: Callable[[Tensor], Tensor]) -> Counterexample | Dismissed:
    """Judge the float64 point x (n,); `run` is the deployed model, (1, n) float32 -> (1, k) outputs."""
    x = x.detach().to(torch.float64).reshape(-1)
    if x.shape != query.lower.shape:
        return Dismissed(f"it has {len(x)} coordinates, not {len(query.lower)}")
    if not bool(query.admits(x[None])[0]):
        return Dismissed(_where_outside(query, x))
    deployed = x.to(torch.float32)
    if not bool(deployed.isfinite().all()):
        return Dismissed("float32 cannot hold it")
    z = run(deployed[None])[0].detach().reshape(-1).cpu()
    if not bool(z.isfinite().all()):
        return Dismissed("the outputs there are not finite")
    values = z.tolist()  # float32 to Python's float is exact
    for point in (x.tolist(), deployed.tolist()):
        if not violated_exactly(query.property, point, values):
            return Dismissed("the outputs there do not violate the property")
    return Counterexample(x, z)


def violated_exactly(property: Property, x: Sequence[float], z: Sequence[float]) -> bool:
    """Whether all atoms of some clause are violated, in rational arithmetic."""
    return any(all(_violated(atom, x, z) for atom in clause) for clause in property.clauses)


def _violated(atom: Atom, x: Sequence[float], z: Sequence[float]) -> bool:
    value = Fraction(atom.b) if atom.exact is None else atom.exact
    for weights, values in ((atom.x, x), (atom.z, z)):
        if weights:
            pairs = zip(weights, values, strict=True)
            value += sum((Fraction(w) * Fraction(v) for w, v in pairs if w), Fraction(0))
    return value < 0 if atom.strict else value <= 0


def _where_outside(query: Query, x: Tensor) -> str:
    lower, upper = query.witness_box
    i = int((~((x >= lower) & (x <= upper))).nonzero()[0])
    return f"its coordinate {i} is {float(x[i])!r}, outside of [{float(lower[i])!r}, {float(upper[i])!r}]"
