"""Gradient filters for transfer: translation invariance (TI), and momentum with look-ahead (MI, NI).

TI   g ← W ∗ g, W a Gaussian of radius k, σ = k/√3, ΣW = 1; each channel by itself      Dong et al. 2019, eq. 7, §3.2
NI   asks at x + α ε μ g_t, and hands on g_{t+1} = μ g_t + ∇ / mean|∇|                   Lin et al. 2020, eq. 6 to 8
     α = 0 is momentum alone                                                            Dong et al. 2018, eq. 6

Averages over shifted images are a convolution of the gradient, if the network does not mind small shifts: TI costs
nothing. The momentum's unit is the mean magnitude per row (trap 44: never of the batch): the ℓ1 norm of the papers over
the number of coordinates, so that looking ahead by α is a step of about α.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d

from saddlepoint.attack.steps import radius
from saddlepoint.attack.transfer.through import Seen, Through
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError, NotAvailable


@dataclass(frozen=True)
class Smoothed(Through):
    """TI: gradients convolved with a Gaussian of `radius` pixels (0: as they are)."""

    name: ClassVar[str] = "ti"
    radius: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.radius < 0:
            raise InputError(f"a radius of {self.radius} pixels.", "0 or more.")

    def look(self, seen: Seen, points: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        return points * 1  # a node of its own: the chain rule needs one

    def filtered(self, seen: Seen, grad: Float[Tensor, "b ..."]) -> tuple[Tensor, Tensor]:
        if grad.ndim != 4:
            raise NotAvailable(f"ti on points of shape {tuple(grad.shape[1:])}.", "Shifts need images (C, H, W).")
        window = kernel(self.radius).to(grad)[None, None]
        b, c, h, w = grad.shape
        return conv2d(grad.reshape(b * c, 1, h, w), window, padding=self.radius).reshape(grad.shape), seen.memory


@dataclass(frozen=True)
class Nesterov(Through):
    """NI: momentum `decay` (μ), gradients taken `ahead` (α, in units of ε) along it."""

    name: ClassVar[str] = "ni"
    decay: float = 1.0
    ahead: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay < 0 or self.ahead < 0:
            raise InputError(f"decay {self.decay}, ahead {self.ahead}.", "Both are 0 or more.")

    def look(self, seen: Seen, points: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        return points + self.ahead * self.decay * radius(seen.rows, points) * seen.memory

    def filtered(self, seen: Seen, grad: Float[Tensor, "b ..."]) -> tuple[Tensor, Tensor]:
        size = grad.flatten(1).abs().mean(1)
        g = self.decay * seen.memory + grad / per_row(size.clamp_min(torch.finfo(grad.dtype).tiny), grad)
        return g, g


def kernel(radius: int) -> Float[Tensor, "k k"]:
    """W_ij ∝ exp(−(i² + j²) / 2σ²), |i|, |j| ≤ radius, σ = radius / √3.

    >>> float(kernel(3).sum().round(decimals=12)), kernel(0).tolist()
    (1.0, [[1.0]])
    """
    place = torch.arange(-radius, radius + 1, dtype=torch.float64)
    line = torch.exp(-place.square() / (2 * max(radius / math.sqrt(3), 1e-6) ** 2))
    window = line[:, None] * line
    return window / window.sum()
