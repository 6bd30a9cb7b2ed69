"""Running means of gradients and of their squares, and the direction that they give (Kingma & Ba 2015, Algorithm 1).

    m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²,   d = m̂ / √v̂,     m̂, v̂ without their bias towards 0

Coordinates move by about ±1 whatever their slope, so that a search leaves plateaus on which a few coordinates at the
box's faces hold most of the gradient. Gradients come scaled to a largest entry of 1, or one spike, near the decision
boundary, would shorten all later steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.core.arithmetic import per_row

_FIRST, _SECOND = 0.9, 0.999


@dataclass(frozen=True)
class Moments:
    """m and v; `count` gradients went in."""

    mean: Float[Tensor, "b ..."]
    square: Float[Tensor, "b ..."]
    count: int = 0

    def after(self, g: Float[Tensor, "b ..."]) -> Moments:
        """With one more gradient."""
        mean = torch.lerp(self.mean, g, 1 - _FIRST)
        square = torch.lerp(self.square, g.square(), 1 - _SECOND)
        return Moments(mean, square, self.count + 1)

    @property
    def slope(self) -> Float[Tensor, "b ..."]:
        """m̂."""
        return self.mean / (1 - _FIRST**self.count)

    @property
    def scale(self) -> Float[Tensor, "b ..."]:
        """√v̂."""
        return (self.square / (1 - _SECOND**self.count)).sqrt()

    @property
    def direction(self) -> Float[Tensor, "b ..."]:
        """m̂ / √v̂; 0 where no gradient ever was."""
        return self.slope / (self.scale + 1e-8)


def no_moments(like: Float[Tensor, "b ..."]) -> Moments:
    """Before the first gradient."""
    return Moments(torch.zeros_like(like), torch.zeros_like(like))


def scaled(g: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """g / max |g| per row; 0 stays 0."""
    top = g.flatten(1).abs().amax(1)
    return g / per_row(torch.where(top > 0, top, 1), g)
