"""Sizes: exact rationals as their author wrote them, or one float64 number per row.

A scalar size is a `Fraction` ("8/255" stays 8/255). A per-sample size is a float64 tensor (b,), whose numbers
are taken for the dyadic rationals they are. Comparisons use the float64 neighbour on the safe side.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.core.arithmetic import exact, float_above, float_below, per_row
from saddlepoint.core.errors import InputError, NotAvailable

Size = Fraction | Tensor
SizeLike = str | int | float | Fraction | Tensor


def parse_size(value: SizeLike) -> Size:
    """A finite size ≥ 0. A tensor of one dimension holds one size per row.

    >>> parse_size("8/255")
    Fraction(8, 255)
    """
    if not isinstance(value, Tensor):
        size = exact(value)
        if size < 0:
            raise InputError(f"A size of {value} is negative.", "Sizes are distances in raw input units, ≥ 0.")
        return size
    if value.ndim == 0:
        return parse_size(Fraction(value.item()))
    if value.ndim != 1:
        raise InputError(f"Sizes of shape {tuple(value.shape)}.", "Give one number, or one per row: shape (b,).")
    sizes = value.detach().to(torch.float64)
    if not bool((torch.isfinite(sizes) & (sizes >= 0)).all()):
        raise InputError("A per-sample size is negative or not finite.", "Sizes are distances ≥ 0.")
    return sizes


def below(size: Size, like: Tensor) -> Float[Tensor, "..."]:
    """The largest float64 ≤ size, as (b, 1, …) or (1, 1, …) for `like` (b, …)."""
    if isinstance(size, Fraction):
        return like.new_full([1] * like.ndim, float_below(size), dtype=torch.float64)
    return per_row(_matching(size, like), like)


def above(size: Size, like: Tensor) -> Float[Tensor, "..."]:
    """The smallest float64 ≥ size, as (b, 1, …) or (1, 1, …) for `like` (b, …)."""
    if isinstance(size, Fraction):
        return like.new_full([1] * like.ndim, float_above(size), dtype=torch.float64)
    return per_row(_matching(size, like), like)


def square_below(size: Size, like: Tensor) -> Float[Tensor, "..."]:
    """A float64 ≤ size², within two units in the last place of it."""
    if isinstance(size, Fraction):
        return like.new_full([1] * like.ndim, float_below(size * size), dtype=torch.float64)
    square = _matching(size, like) * _matching(size, like)
    # fl(s²) errs by half a unit at most, so its lower neighbour is ≤ s²; 0² is exact
    return per_row(torch.nextafter(square, torch.zeros_like(square)), like)


def add(size: Size, slack: float | int) -> Size:
    """size + slack, exactly for scalar sizes."""
    if slack == 0.0:
        return size
    return size + exact(slack) if isinstance(size, Fraction) else size + slack


def take(size: Size, index: Tensor) -> Size:
    """The sizes of the chosen rows; a scalar size is everybody's."""
    return size if isinstance(size, Fraction) else size[index]


def smaller(a: Size, b: Size) -> Size | None:
    """min(a, b) where it is exact: both scalar, or both per-sample of one batch. Otherwise None."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return min(a, b)
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape:
        return torch.minimum(a, b)
    return None


def text(size: Size) -> str:
    """The exact text of a scalar size, "p/q". Per-sample sizes have no name of their own."""
    if isinstance(size, Fraction):
        return str(size)
    raise NotAvailable(
        f"A set with {len(size)} per-sample sizes has no canonical text.",
        "File evidence under a scalar size: set.resized(size of the sample).",
    )


def same(a: Size, b: Size) -> bool:
    """Equal as numbers and as kinds of sizes."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return isinstance(a, Fraction) and isinstance(b, Fraction) and a == b


def _matching(size: Tensor, like: Tensor) -> Tensor:
    if len(size) != len(like):
        raise InputError(
            f"{len(size)} per-sample sizes meet a batch of {len(like)} rows.",
            "Select the rows' sizes with set.rows(index).",
        )
    return size.to(like.device)
