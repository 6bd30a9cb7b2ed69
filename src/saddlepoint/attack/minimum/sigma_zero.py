"""σ-zero: ℓ0 by a smooth count and an adaptive threshold.

    minimise  max(z_y − max_{j≠y} z_j, 0) + (1/d) Σ_p ‖δ_p‖² / (‖δ_p‖² + σ)
    δ ← clip(x0 + δ − η_k d(g / ‖g‖_∞)) − x0,   then  δ_p ← 0 where |δ_p| < τ
    τ ← τ + t η_k  where x0 + δ is broken,   τ − t η_k  where it is not

The fraction is 1 for pixels that moved far, 0 for those that did not: a differentiable count of pixels, whose gradient
pulls small moves back to 0, while τ drops what is not needed. Cinà et al. 2024, Algorithm 1 and eq. 4–6; t = 0.01,
τ_0 = 0.3, σ = 10⁻³. d is Adam's direction (moments.py), as in the paper's experiments: with d(g) = g a network trained
against ℓ∞ keeps three times as many pixels. η falls to a tenth along a cosine; it starts at 0.3 where the paper has 1,
which leaves a third fewer pixels on that network. p runs over pixels, as everywhere in this house (a feature is a pixel
for inputs that are no images, and d counts them). The engine keeps the smallest point seen.
Cost of an item: steps + 1 forwards, `steps` backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from saddlepoint.attack.minimum.common import ball, box, broken, cosine, lead, per_pixel, pixels
from saddlepoint.attack.minimum.moments import Moments, no_moments, scaled
from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import L0
from saddlepoint.spec.access import Access

_LAST = 0.1  # of the first step


@dataclass(frozen=True)
class Sparse:
    """A sparse search in progress: its point, threshold and moments."""

    x: Tensor
    tau: Tensor
    moments: Moments


@dataclass(frozen=True)
class State:
    """The search, and how many asks were answered."""

    rows: Rows
    search: Sparse
    asked: int


@dataclass(frozen=True)
class SigmaZero(Attack[State]):
    """`eta`: first step of a coordinate; `sigma`: width of the count; `tau`, `rate`: threshold and its change."""

    name: ClassVar[str] = "sigma-zero"
    minimum: ClassVar[bool] = True
    steps: int = 1000
    restarts: int = 1
    eta: float = 0.3
    sigma: float = 1e-3
    tau: float = 0.3
    rate: float = 0.01

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise InputError(f"{self.steps} steps and {self.restarts} restarts must be at least 1.")
        if min(self.eta, self.sigma) <= 0 or min(self.tau, self.rate) < 0:
            raise InputError(f"eta {self.eta} and sigma {self.sigma} must be above 0, tau and rate at least 0.")

    @property
    def forwards(self) -> int:
        return self.steps + 1

    @property
    def backwards(self) -> int:
        return self.steps

    def init(self, rows: Rows) -> tuple[State, Ask]:
        ball(rows, self.name, (L0,))
        return State(rows, sparse_start(rows, self.tau), -1), self._ask(rows, rows.x0, 0)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        rows, asked = state.rows, state.asked + 1
        if asked == self.steps:
            return state, None
        eta = self.eta * cosine(1.0, _LAST, asked, self.steps)
        search = sparser(rows, state.search, answers, (eta, self.rate, self.sigma))
        return State(rows, search, asked), self._ask(rows, search.x, asked + 1)

    def _ask(self, rows: Rows, x: Tensor, asked: int) -> Ask:
        if asked == self.steps:
            return Ask(x, Access.SCORES)
        return Ask(x, Access.GRADIENT, lead(rows))


def sparse_start(rows: Rows, tau: float) -> Sparse:
    """Before the first step: x0."""
    return Sparse(rows.x0, torch.full_like(rows.x0.flatten(1)[:, 0], tau), no_moments(rows.x0))


def sparser(rows: Rows, search: Sparse, answers: Answers, how: tuple[float, float, float]) -> Sparse:
    """One step; `how` is (η, t, σ)."""
    eta, rate, sigma = how
    hit, offset = broken(answers.margin), search.x - rows.x0
    up = torch.where(per_row(hit, offset), 0, answers.grad) - smooth_count_slope(offset, sigma)
    moments = search.moments.after(scaled(up))
    moved = torch.clamp(search.x + eta * moments.direction, *box(rows)) - rows.x0
    tau = (search.tau + torch.where(hit, rate * eta, -rate * eta).to(search.tau.dtype)).clamp(0, 1)
    keep = per_pixel(pixels(moved) >= tau[:, None], moved)
    return Sparse(torch.where(keep, torch.clamp(rows.x0 + moved, *box(rows)), rows.x0), tau, moments)


def smooth_count_slope(offset: Tensor, sigma: float) -> Tensor:
    """∇ of (1/d) Σ_p s_p / (s_p + σ), s_p = ‖δ_p‖²:  2 δ σ / (s_p + σ)² / d."""
    square = offset.square().sum(1, keepdim=True) if offset.ndim == 4 else offset.square()
    count = square.flatten(1).shape[1]
    return 2 * offset * sigma / (square + sigma).square() / count
