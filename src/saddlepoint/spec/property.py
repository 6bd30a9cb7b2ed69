"""What must hold for every point of a set, as a formula over inputs x and logits z.

    value(x, z) = min over clauses  max over atoms of the clause  (⟨c_x, x⟩ + ⟨c_z, z⟩ + b)

The property holds iff value > 0: one sign in the house. Its violation is then a disjunction (over
clauses) of conjunctions (over atoms) of linear inequalities `atom ≤ 0`, the form of VNN-LIB. A strict atom is
violated by `atom < 0` only, so it still holds at 0: value > 0 proves every property, but where strict atoms
occur a value of 0 violates nothing by itself, and `violated` decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saddlepoint.core.digests import digest_json
from saddlepoint.core.errors import InputError


@dataclass(frozen=True)
class Atom:
    """⟨x, input⟩ + ⟨z, logits⟩ + b, asked to be > 0 (≥ 0 if `strict`). An empty tuple stands for zeros.

    `exact` is the constant that was meant where no float64 equals it; b is then the float64 below it, so that a
    proof for b is one for `exact`. Violations are judged with `exact`.
    """

    z: tuple[float, ...] = ()
    x: tuple[float, ...] = ()
    b: float = 0.0
    strict: bool = False
    exact: Fraction | None = None

    def __post_init__(self) -> None:
        if self.exact is not None and not Fraction(self.b) <= self.exact:
            raise InputError(f"b = {self.b!r} lies above the exact constant {self.exact}.", "Round b down.")

    def __call__(self, x: Float[Tensor, "n ..."], z: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """The value per row."""
        total = z.new_full((len(z),), self.b)
        for name, weights, values in (("z", self.z, z), ("x", self.x, x.flatten(1))):
            if weights and len(weights) != values.shape[1]:
                raise InputError(
                    f"an atom has {len(weights)} weights on {name}, but there are {values.shape[1]} entries."
                )
            if weights:
                total = total + values @ torch.tensor(weights, dtype=values.dtype, device=values.device)
        return total

    def described(self) -> list[Any]:
        """The atom as JSON."""
        plain: list[Any] = [list(self.z), list(self.x), self.b]
        if self.strict or self.exact is not None:
            plain += [self.strict, None if self.exact is None else str(self.exact)]
        return plain


@dataclass(frozen=True)
class Property:
    """A conjunction of clauses; a clause is a disjunction of atoms."""

    clauses: tuple[tuple[Atom, ...], ...]

    def __post_init__(self) -> None:
        if not self.clauses or not all(self.clauses):
            raise InputError("a property needs at least one clause, and each clause at least one atom.")

    def __call__(self, x: Float[Tensor, "n ..."], z: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """The value per row; > 0 holds, NaN is neither."""
        clauses = [torch.stack([atom(x, z) for atom in clause]).amax(0) for clause in self.clauses]
        return torch.stack(clauses).amin(0)

    def violated(self, x: Float[Tensor, "n ..."], z: Float[Tensor, "n k"]) -> Bool[Tensor, " n"]:
        """Per row, whether all atoms of some clause are violated; NaN violates nothing. In x's and z's arithmetic:
        a candidate for an exact check, not a verdict."""

        def broken(atom: Atom) -> Tensor:
            value = atom(x, z)
            return value < 0 if atom.strict else value <= 0

        return torch.stack([torch.stack([broken(a) for a in clause]).all(0) for clause in self.clauses]).any(0)

    @property
    def digest(self) -> str:
        """Digest of the formula."""
        return digest_json([[a.described() for a in clause] for clause in self.clauses])


def margin_property(y: int, classes: int) -> Property:
    """The usual property of a classifier: z_y − z_j > 0 for every j ≠ y."""
    if not 0 <= y < classes:
        raise InputError(f"label {y} is not one of {classes} classes.", "Classes count from 0.")
    rivals = [j for j in range(classes) if j != y]
    return Property(tuple((Atom(tuple(float(k == y) - float(k == j) for k in range(classes))),) for j in rivals))
