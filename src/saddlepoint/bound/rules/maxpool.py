"""Max pooling, y = max over i in a window of x_i. Let j be the input with the largest lower bound.

    y ≥ x_j                                   a maximum is at least each of its members
    y ≤ x_j        if l_j ≥ u_i for all i ≠ j  (then y = x_j)
    y ≤ max u_i    otherwise

(Singh et al. 2019, "An Abstract Domain for Certifying Neural Networks", §4.4.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.bound.rows import Rows, Shape
from saddlepoint.graph.ops import MaxPool2d


def windows(t: Tensor, op: MaxPool2d, out: tuple[int, int], fill: float) -> Tensor:
    """The windows of t (b, C, H, W) as (b, C, kernel, outputs); padding reads `fill`."""
    pads = []
    for axis in (1, 0):  # torch's order of padding: last axis first
        size, before = t.shape[2 + axis], op.padding[axis]
        reach = (out[axis] - 1) * op.stride[axis] + op.dilation[axis] * (op.kernel[axis] - 1) + 1
        pads += [before, reach - size - before]  # a negative number crops what no window reads
    flat = F.unfold(F.pad(t, pads, value=fill), op.kernel, op.dilation, 0, op.stride)
    return flat.view(t.shape[0], t.shape[1], op.kernel[0] * op.kernel[1], -1)


@dataclass(frozen=True)
class Selection:
    """j as flat places in H·W (b, C, h, w), where it dominates its window, and max u, each (b, C, h, w)."""

    shape: Shape
    place: Tensor
    dominates: Tensor
    ceiling: Tensor

    def pull(self, rows: Rows, owner: Tensor) -> tuple[tuple[Rows, ...], Tensor]:
        a = rows.full()
        dominates = self.dominates.index_select(0, owner)
        capped = (a < 0) & ~dominates  # ⟨A⁻, y⟩ ≥ ⟨A⁻, max u⟩ there
        ceiling = self.ceiling.index_select(0, owner)
        constant = torch.where(capped, a * ceiling, 0.0).flatten(1).sum(1)
        passed = torch.where(capped, 0.0, a)  # ⟨A, y⟩ ≥ ⟨A, x_j⟩ elsewhere
        pulled = a.new_zeros((len(a), self.shape[0], self.shape[1] * self.shape[2]))
        pulled.scatter_add_(2, self.place.index_select(0, owner).flatten(2), passed.flatten(2))
        return (Rows(pulled.view(len(a), *self.shape), self.shape),), constant


class MaxPoolRule:
    """Rule of MaxPool2d."""

    def interval(self, op: MaxPool2d, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return op(lower), op(upper)  # monotone

    def loose(self, op: MaxPool2d, lower: Tensor, upper: Tensor) -> Tensor:
        chosen = self.relax(op, lower, upper, None)
        floor = op(lower)  # an input matters if it can exceed the floor of a window that nobody dominates
        open_floor = torch.where(chosen.dominates, torch.inf, floor)
        out = (floor.shape[2], floor.shape[3])
        rivals = windows(upper, op, out, -torch.inf) > open_floor.flatten(2).unsqueeze(2)
        places = _places(upper, op, out)
        hit = torch.zeros((*upper.shape[:2], upper.shape[2] * upper.shape[3]), device=upper.device)
        index = places.clamp_min(0).expand_as(rivals).flatten(2)
        hit.scatter_add_(2, index, (rivals & (places >= 0)).flatten(2).to(hit))
        return (hit > 0).view(upper.shape)

    def choose(self, op: MaxPool2d, lower: Tensor, upper: Tensor) -> None:
        return None

    def relax(self, op: MaxPool2d, lower: Tensor, upper: Tensor, choice: Tensor | None) -> Selection:
        ceiling = op(upper)
        out = (ceiling.shape[2], ceiling.shape[3])
        low = windows(torch.nan_to_num(lower, nan=-torch.finfo(lower.dtype).max), op, out, -torch.inf)
        up = windows(upper, op, out, -torch.inf)
        floor, winner = low.max(2, keepdim=True)
        rivals = up.scatter(2, winner, -torch.inf).amax(2)
        place = _places(lower, op, out).expand_as(low).gather(2, winner).squeeze(2)
        shape = (lower.shape[1], lower.shape[2], lower.shape[3])
        return Selection(
            shape,
            place.clamp_min(0).view(ceiling.shape),
            (floor.squeeze(2) >= rivals).view(ceiling.shape),
            ceiling,
        )


def _places(like: Tensor, op: MaxPool2d, out: tuple[int, int]) -> Tensor:
    """Flat place in H·W of every window member, −1 in the padding: int64 (1, 1, kernel, outputs)."""
    height, width = like.shape[2:]
    numbers = torch.arange(height * width, dtype=torch.float64, device=like.device)
    return windows(numbers.view(1, 1, height, width), op, out, -1.0).long()
