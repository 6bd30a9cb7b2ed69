"""Input transforms for transfer: diversity (DI) and scale invariance (SI).

DI   T(x) = pad(resize(x, r × r), H × W) with probability p, else x        Xie et al. 2019, eq. 5 and §3.3
     r uniform in [⌈low·H⌉, H], the place of the padding uniform, every row its own (trap 44). There images grow to a
     larger input; here they shrink into the model's own, which most models need.
SI   T_i(x) = x / 2^i, i = 0…m − 1, their gradients averaged               Lin et al. 2020, §3.3, eq. 7 (m = 5)

Resizing is bilinear, as `interpolate(align_corners=False)`; outside lie zeros. Both are linear in x.
The house's cross-entropy is its log-odds (losses.py), so copies weigh alike where the paper's weigh by 1 − p_y.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from saddlepoint.attack.transfer.through import Seen, Through
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.core.rng import Draws

_STREAM = 1 << 20  # beyond the numbers that attacks use for their steps


@dataclass(frozen=True)
class Diverse(Through):
    """DI: `probability` of a transform at each ask, shrunk to `low`…1 of the height; `copies` are averaged."""

    name: ClassVar[str] = "di"
    probability: float = 0.5
    low: float = 0.9
    copies: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.probability <= 1 and 0 < self.low <= 1 and self.copies >= 1):
            raise InputError(
                f"probability {self.probability}, low {self.low}, copies {self.copies}.",
                "A probability in [0, 1], a share of the height in (0, 1], at least 1 copy.",
            )

    @property
    def views(self) -> int:
        return self.copies

    def look(self, seen: Seen, points: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        if points.ndim != 4:
            raise NotAvailable(f"di on points of shape {tuple(points.shape[1:])}.", "Resizing needs images (C, H, W).")
        stream = _STREAM + 2 * (seen.asked * self.copies + seen.view)
        change = seen.rows.random.uniform((), stream) < self.probability
        return torch.where(per_row(change, points), shrunk(points, seen.rows.random, stream + 1, self.low), points)


@dataclass(frozen=True)
class Scaled(Through):
    """SI: `copies` of the image, each half as bright as the one before."""

    name: ClassVar[str] = "si"
    copies: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.copies < 1:
            raise InputError(f"{self.copies} copies.", "At least 1, the image itself.")

    @property
    def views(self) -> int:
        return self.copies

    def look(self, seen: Seen, points: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        return points / 2**seen.view


def shrunk(x: Float[Tensor, "b c h w"], draws: Draws, stream: int, low: float) -> Float[Tensor, "b c h w"]:
    """Every row resized to its own r × r' (r'/W = r/H), at its own place, zeros around it."""
    height, width = x.shape[-2:]
    u = draws.uniform((3,), stream, torch.float64).to(x.device)
    least = torch.tensor([-(-low * height // 1), -(-low * width // 1)], dtype=torch.float64, device=x.device)
    most = torch.tensor([height, width], dtype=torch.float64, device=x.device)
    size = least + (u[:, :1] * (most - least + 1)).floor().clamp(max=most - least)  # (b, 2): rows, columns
    corner = (u[:, 1:] * (most - size + 1)).floor()
    return placed(x, size, corner)


def placed(x: Float[Tensor, "b c h w"], size: Float[Tensor, "b 2"], corner: Float[Tensor, "b 2"]) -> Tensor:
    """Row i resized to size_i (whole pixels) with its top left pixel at corner_i."""
    height, width = x.shape[-2:]
    axes, kept = [], []
    for axis, length in enumerate((height, width)):
        place = torch.arange(length, dtype=torch.float64, device=x.device)[None] - corner[:, axis : axis + 1]
        source = (place + 0.5) * length / size[:, axis : axis + 1]  # pixel centres, in pixels of x from its left edge
        axes.append((2 * source / length - 1).to(x.dtype))
        kept.append((place >= 0) & (place < size[:, axis : axis + 1]))
    (v, h), shape = axes, (len(x), height, width)
    grid = torch.stack([h[:, None, :].expand(shape), v[:, :, None].expand(shape)], -1)
    inside = kept[0][:, None, :, None] & kept[1][:, None, None, :]
    return grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False) * inside
