"""Greedy filling: max <a, m> subject to 0 ≤ m ≤ c, Σ m ≤ budget (a fractional knapsack with equal weights).

The coordinates are filled in falling order of a until the budget ends. Cost: one sort of every row.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def greedy_fill(
    a: Float[Tensor, "*rows n"], c: Float[Tensor, "*rows n"], budget: Float[Tensor, "*rows 1"]
) -> tuple[Float[Tensor, "*rows n"], Float[Tensor, "*rows 1"]]:
    """(m, last): the filling, and the value a of the coordinate at which the budget ended (0 if it did not).

    c may be inf. Coordinates with a = 0 stay 0.
    """
    value, order = torch.sort(a, dim=-1, descending=True, stable=True)
    room = torch.where(value > 0, torch.minimum(c.gather(-1, order), budget), torch.zeros_like(value))
    spent = torch.cumsum(room, dim=-1)
    before = torch.cat((torch.zeros_like(spent[..., :1]), spent[..., :-1]), dim=-1)
    taken = torch.minimum((budget - before).clamp(min=0), room)
    ended = spent >= budget
    first = torch.argmax(ended.to(torch.int8), dim=-1, keepdim=True)
    last = torch.where(ended.any(-1, keepdim=True), value.gather(-1, first), torch.zeros_like(budget))
    return torch.zeros_like(a).scatter(-1, order, taken), last
