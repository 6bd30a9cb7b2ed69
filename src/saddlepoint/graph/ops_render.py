"""A picture as a function of the parameters that move it: the first node of a rotated and shifted model.

    y = bilinear reads of the fixed image x₀ at positions that depend on (angle in degrees, dy, dx)

The convention is geometry/warp.py's: about the centre ((H − 1)/2, (W − 1)/2), zeros outside, and with
v = r − cy − dy, u = c − cx − dx output pixel (r, c) reads row cy + u sin θ + v cos θ, column cx + u cos θ − v sin θ.
In front of a model it makes the question "is the label kept under every rotation and shift" one about a box of three
numbers, which a search may split. Its meaning in bounds is that of real numbers; its call is for looking at points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.graph.ops_base import NonlinearOp


@dataclass(frozen=True, eq=False)
class Render(NonlinearOp):
    """(N, 3) parameters → (N, C, H, W): the image (C, H, W) turned by the angle (degrees), then moved by (dy, dx)."""

    image: Tensor

    def __call__(self, *xs: Tensor) -> Tensor:
        (params,) = xs
        channels, height, width = self.image.shape
        angle, dy, dx = (t[:, None, None] for t in params.double().unbind(1))
        sin, cos = torch.sin(torch.deg2rad(angle)), torch.cos(torch.deg2rad(angle))
        cy, cx = (height - 1) / 2, (width - 1) / 2
        grid = {"dtype": torch.float64, "device": params.device}
        v = torch.arange(height, **grid)[:, None] - cy - dy
        u = torch.arange(width, **grid) - cx - dx
        row, column = cy + u * sin + v * cos, cx + u * cos - v * sin
        # a border of zeros; whatever reads beyond it reads zeros too
        dark = F.pad(self.image.double(), (2, 2, 2, 2)).flatten(1)
        top, left = row.floor().detach().clamp(-2, height), column.floor().detach().clamp(-2, width)
        down, right = (row - top).clamp(0, 1), (column - left).clamp(0, 1)
        at = ((top + 2) * (width + 4) + left + 2).long()
        upper = (1 - right) * dark[:, at] + right * dark[:, at + 1]
        lower = (1 - right) * dark[:, at + width + 4] + right * dark[:, at + width + 5]
        moved = (1 - down) * upper + down * lower
        return moved.transpose(0, 1).reshape(-1, channels, height, width).to(params.dtype)
