"""Directed rounding: how a real point becomes a float point that is still in the set.

    fl(x + ε) − x > ε   for about half of all x, so a naive projection leaves the ball by an ulp (trap 2)

Three tools, all elementwise, so that a row's result never depends on its batch:
- TwoSum (Knuth): s = fl(a + b) and e with a + b = s + e exactly; its sign says how s was rounded.
- rounding a float64 number down or up to the points' own dtype.
- `toward`: x₀ + d rounded to a float z with |z − x₀| ≤ |d| in every coordinate. Norm balls are solid (they hold
  with z every point whose offsets are no larger), so rounding towards x₀ keeps feasibility by itself.
Cost: a handful of elementwise passes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def two_sum(a: Float[Tensor, "*#s"], b: Float[Tensor, "*#s"]) -> tuple[Float[Tensor, "*s"], Float[Tensor, "*s"]]:
    """(s, e) with s = fl(a + b) and a + b = s + e exactly (Knuth; no order of magnitudes needed)."""
    s = a + b
    shadow = s - a
    return s, (a - (s - shadow)) + (b - shadow)


def add_down(a: Float[Tensor, "*#s"], b: Float[Tensor, "*#s"]) -> Float[Tensor, "*s"]:
    """A float64 ≤ a + b: the sum rounded down."""
    s, e = two_sum(a, b)
    # e < 0 says that s was rounded up past a + b; an infinite s makes e NaN and stays
    return torch.where(e < 0, torch.nextafter(s, torch.full_like(s, -torch.inf)), s)


def add_up(a: Float[Tensor, "*#s"], b: Float[Tensor, "*#s"]) -> Float[Tensor, "*s"]:
    """A float64 ≥ a + b: the sum rounded up."""
    return -add_down(-a, -b)


def round_down(v: Float[Tensor, "*s"], dtype: torch.dtype) -> Float[Tensor, "*s"]:
    """The largest number of `dtype` that is ≤ v."""
    if v.dtype == dtype:
        return v
    near = v.to(dtype)
    return torch.where(near.to(v.dtype) > v, torch.nextafter(near, torch.full_like(near, -torch.inf)), near)


def round_up(v: Float[Tensor, "*s"], dtype: torch.dtype) -> Float[Tensor, "*s"]:
    """The smallest number of `dtype` that is ≥ v."""
    return -round_down(-v, dtype)


def toward(x0: Float[Tensor, "b *s"], d: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
    """z in x₀'s dtype with z between x₀ and x₀ + d, coordinate by coordinate; d in float64.

    d = 0 gives x₀ itself. Loses at most one unit in the last place of z.
    """
    start = x0.to(torch.float64)
    z, e = two_sum(start, d)
    # z = x₀ + d − e: it went past x₀ + d iff −e has the sign of d
    z = torch.where(d * e < 0, torch.nextafter(z, start), z)
    near = z.to(x0.dtype)
    past = (near.to(torch.float64) - z) * d > 0
    return torch.where(past, torch.nextafter(near, x0), near)
