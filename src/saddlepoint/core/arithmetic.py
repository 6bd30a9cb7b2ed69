"""Exact sizes and directed rounding.

A size is a rational number as its author wrote it ("8/255", 0.1 means 1/10). Comparisons against it are
made with the nearest float on the safe side, so "inside" never rests on a rounding in our favour.
γ_n = n u / (1 − n u) is the standard bound of n rounded operations (Higham 2002, eq. 3.4), u = eps / 2.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import torch
from jaxtyping import Shaped
from torch import Tensor

from saddlepoint.core.errors import InputError


def exact(value: str | int | float | Fraction) -> Fraction:
    """The rational number that the author of `value` meant.

    Floats are read by their shortest decimal (0.1 is 1/10, not the binary neighbour); float32 scalars
    should be given as text. Raises InputError for anything that is not a finite number.

    >>> exact("8/255"), exact(0.1)
    (Fraction(8, 255), Fraction(1, 10))
    """
    try:
        return Fraction(value) if isinstance(value, (int, Fraction)) else Fraction(str(value).replace(" ", ""))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise InputError(f"{value!r} is not a number.", 'Write 0.03, "8/255" or 3.') from error


@lru_cache(maxsize=256)
def float_below(value: Fraction, dtype: torch.dtype = torch.float64) -> float:
    """The largest number of `dtype` that is ≤ value."""
    nearest = _round(value, dtype)
    return nearest if Fraction(nearest) <= value else _neighbour(nearest, -math.inf, dtype)


@lru_cache(maxsize=256)
def float_above(value: Fraction, dtype: torch.dtype = torch.float64) -> float:
    """The smallest number of `dtype` that is ≥ value."""
    nearest = _round(value, dtype)
    return nearest if Fraction(nearest) >= value else _neighbour(nearest, math.inf, dtype)


def gamma(n: int, dtype: torch.dtype = torch.float64) -> float:
    """γ_n = n u / (1 − n u), u the unit roundoff of `dtype`, rounded up a little.

    Raises InputError when n u ≥ 1/2, where the bound means nothing.
    """
    nu = n * torch.finfo(dtype).eps / 2
    if nu >= 0.5:
        raise InputError(f"{n} operations in {dtype} have no useful rounding bound.")
    return nu / (1 - nu) * (1 + 1e-12)  # the factor covers the rounding of this very line


def per_row(values: Shaped[Tensor, " b"], like: Tensor) -> Tensor:
    """View `values` (b,) as (b, 1, …, 1) so that it broadcasts against `like` (b, …)."""
    return values.reshape(values.shape[0], *([1] * (like.ndim - 1)))


def dots(a: Tensor, b: Tensor) -> Tensor:
    """⟨a_r, b_r⟩ per row of (r, n): n products added in some order. One batched product, twice as fast as vecdot."""
    return torch.bmm(a.unsqueeze(1), b.unsqueeze(2)).view(-1)


def _round(value: Fraction, dtype: torch.dtype) -> float:
    return float(torch.tensor(float(value), dtype=torch.float64).to(dtype))


def _neighbour(value: float, towards: float, dtype: torch.dtype) -> float:
    here = torch.tensor(value, dtype=dtype)
    return float(torch.nextafter(here, torch.tensor(towards, dtype=dtype)))
