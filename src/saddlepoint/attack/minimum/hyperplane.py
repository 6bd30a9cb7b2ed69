"""The shortest way to a hyperplane inside the data box: what linearising attacks do in every step.

    minimise ‖d‖_p  subject to  <w, d> = c,  lower ≤ x + d ≤ upper                        p = 1, 2, ∞

With s_i = sign(c w_i), room r_i up to the box's side that s_i points to, and a = |w| / max|w|, d = s · m where
    ℓ∞: m_i = min(t, r_i)       ℓ2: m_i = a_i min(t, r_i / a_i)       and Σ a_i m_i = |c| / max|w|  decides t
    ℓ1: the coordinates with the largest a_i go to their sides, one after the other, until the sum is reached.
Σ v_i min(t, q_i) (v = a or a², q = r or r/a) is concave in t and Newton's method from the left never oversteps: every
step but the last saturates a coordinate (Cominetti et al. 2014). Croce & Hein 2020, eq. 7 and appendix A, sort instead;
a sort of 128 × 3,072 numbers takes as long as 40 steps. Where no point of the box reaches the plane, d goes to the
corner nearest to it. Row i depends on row i alone; everything stays in the points' own dtype, for a step rule needs no
proof (geometry's `project_hyperplane`: float64 and strictness checks, for those who do).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.attack.minimum.common import box
from saddlepoint.attack.rows import Rows
from saddlepoint.geometry import L1, Linf

_MOST = 100  # steps of Newton's method; 4 to 15 are usual
_FEW = 32  # ℓ1: a first look at the n / 32 steepest coordinates, which nearly always reach the plane


def way_to(
    rows: Rows, points: tuple[Tensor, ...], w: Float[Tensor, "b ..."], gaps: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """For each of the points (b, …), the shortest d in the set's norm with <w, d> = its gap (b,), inside the box."""
    lower, upper = box(rows)
    a = w.flatten(1).abs()
    top = a.amax(1, keepdim=True)
    scale = torch.where(top > 0, top, 1)
    a, sign = a / scale, w.sign()
    steep, order = a.topk(max(1, a.shape[1] // _FEW), dim=1) if isinstance(rows.set, L1) else (a, a)
    v = a if isinstance(rows.set, Linf) else a.square()
    found = []
    for x, gap in zip(points, gaps, strict=True):  # one after the other: what a pass touches stays in the cache
        c = torch.where(top > 0, gap.to(w.dtype).nan_to_num(0.0)[:, None] / scale, 0)
        way = sign * c.sign().reshape(-1, *([1] * (w.ndim - 1)))
        room = torch.where(way > 0, upper, lower).sub_(x).abs_().flatten(1)
        if isinstance(rows.set, L1):
            move = _steepest_first(a, steep, order, room, c[:, 0].abs())
        elif isinstance(rows.set, Linf):
            move = torch.minimum(room, _level(v, room, c.abs()))
        else:
            ends = (room / a).nan_to_num_(0.0, posinf=torch.inf)  # 0 / 0
            move = torch.minimum(ends, _level(v, ends, c.abs())).mul_(a)
        found.append(move.reshape(w.shape).mul_(way))
    return tuple(found)


def gap_to_boundary(
    x: Float[Tensor, "b ..."], value: Float[Tensor, " b"], w: Float[Tensor, "b ..."], point: Float[Tensor, "b ..."]
) -> Float[Tensor, " b"]:
    """What <w, d> must be so that the linearisation value + <w, · − x> vanishes at point + d."""
    return -value.to(x.dtype) - ((point - x) * w).flatten(1).sum(1)


def _level(v: Float[Tensor, "b n"], q: Float[Tensor, "b n"], c: Float[Tensor, "b 1"]) -> Float[Tensor, "b 1"]:
    """The smallest t ≥ 0 with Σ v min(t, q) ≥ c, or as far as it goes. Rows that arrived stay bitwise as they are."""
    t = torch.zeros_like(c)
    work = torch.empty_like(q)
    grain = 8 * torch.finfo(c.dtype).eps
    for _ in range(_MOST):
        slope = torch.gt(q, t, out=work).mul_(v).sum(1, keepdim=True)
        after = t + (c - torch.minimum(q, t, out=work).mul_(v).sum(1, keepdim=True)) / slope
        moves = (after > t * (1 + grain)) & (slope > 0)  # Newton from the left: t only grows
        if not bool(moves.any()):
            break
        t = torch.where(moves, after, t)
    return t


def _steepest_first(a: Tensor, value: Tensor, order: Tensor, room: Tensor, c: Tensor) -> Tensor:
    """ℓ1: fill the steepest coordinates first. A row's path, short or full, depends on the row alone."""
    move, reached = _fill(value, order, room, c)
    if not bool(reached.all()):
        rest = (~reached).nonzero()[:, 0]
        value, order = a[rest].sort(dim=1, descending=True, stable=True)
        move[rest] = _fill(value, order, room[rest], c[rest])[0]
    return move


def _fill(value: Tensor, order: Tensor, room: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Moves (b, n) along `order` until Σ value · move = c, and whether it was reached."""
    gain = torch.where(value > 0, value * room.gather(1, order), 0)
    spent = gain.cumsum(1)
    before = torch.cat((torch.zeros_like(spent[:, :1]), spent[:, :-1]), 1)
    taken = torch.minimum((c[:, None] - before).clamp_min(0), gain)
    move = torch.where(value > 0, taken / value, 0)
    return torch.zeros_like(room).scatter_(1, order, move), spent[:, -1] >= c
