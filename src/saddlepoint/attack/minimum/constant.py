"""The search for the constant c in  minimise size + c · loss: part of the attacks that have one (trap 40), per row.

    hit with c:  high = min(high, c)         never hit:  low = max(low, c)
    next c:      (low + high) / 2, or 10 c (growth) while nothing was hit

Carlini & Wagner 2017, §V-C; Szegedy et al. 2013 and Chen et al. 2018 search the same way. A row leaves a constant early
when its loss fell by less than 1/10,000 since the last look, `patience` steps ago, and goes on with its next constant:
each row for itself, not when the batch's sum stalls (trap 39), and not before half of its steps as long as nothing was
hit: pixels that start saturated move for long before the loss does. Rows are in step with nobody, a slow one holds up
none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

_STALLS = 0.9999


@dataclass(frozen=True)
class ConstantSearch:
    """Per row: the constant with its bracket, how many were tried, and what happened with this one."""

    c: Float[Tensor, " b"]
    low: Float[Tensor, " b"]
    high: Float[Tensor, " b"]
    tried: Int64[Tensor, " b"]
    step: Int64[Tensor, " b"]  # answers with this constant
    hit: Bool[Tensor, " b"]
    looked: Float[Tensor, " b"]  # the loss at the last look

    def ends(self, constants: int, steps: int) -> Bool[Tensor, " b"]:
        """Rows whose next answer is their last, or one too many."""
        last = (self.tried == constants - 1) & (self.step >= steps - 1)
        return last | (self.tried >= constants)


def begin(like: Float[Tensor, " b"], first: float) -> ConstantSearch:
    """Every row's first constant."""
    zero = torch.zeros_like(like)
    count = zero.to(torch.int64)
    return ConstantSearch(zero + first, zero, zero + torch.inf, count, count, count > 0, zero + torch.inf)


def counted(
    search: ConstantSearch, hit: Bool[Tensor, " b"], loss: Float[Tensor, " b"], steps: int, patience: int
) -> tuple[ConstantSearch, Bool[Tensor, " b"]]:
    """One more answer; and which rows have done with their constant (and have the next one now)."""
    step, hit = search.step + 1, search.hit | hit
    look = step % patience == 0
    stalls = look & (hit | (2 * step >= steps)) & ~(loss <= _STALLS * search.looked)  # NaN stalls
    search = replace(search, step=step, hit=hit, looked=torch.where(look, loss.to(search.c.dtype), search.looked))
    over = stalls | (step >= steps)
    return finished(search, over), over


def finished(search: ConstantSearch, over: Bool[Tensor, " b"], growth: float = 10.0) -> ConstantSearch:
    """The next constant for the rows that are over."""
    low = torch.where(over & ~search.hit, torch.maximum(search.low, search.c), search.low)
    high = torch.where(over & search.hit, torch.minimum(search.high, search.c), search.high)
    following = torch.where(high.isfinite(), (low + high) / 2, growth * search.c)
    return ConstantSearch(
        c=torch.where(over, following, search.c),
        low=low,
        high=high,
        tried=search.tried + over,
        step=torch.where(over, 0, search.step),
        hit=search.hit & ~over,
        looked=torch.where(over, torch.inf, search.looked),
    )
