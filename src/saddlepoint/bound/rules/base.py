"""What a rule supplies. For y = σ(x), l ≤ x ≤ u:

    a_L x + b_L ≤ σ(x) ≤ a_U x + b_U
    ⟨A, y⟩ ≥ ⟨A⁺ a_L + A⁻ a_U, x⟩ + ⟨A⁺, b_L⟩ + ⟨A⁻, b_U⟩,   A⁺ = max(A, 0), A⁻ = min(A, 0)

(Zhang et al. 2018, "Efficient Neural Network Robustness Certification with General Activation Functions",
Theorem 3.2, one layer at a time.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from saddlepoint.bound.rows import Rows, inner


@runtime_checkable
class Relaxation(Protocol):
    """Linear enclosures of one operator for a batch of samples."""

    def pull(self, rows: Rows, owner: Tensor) -> tuple[tuple[Rows, ...], Tensor]:
        """Rows on the inputs and a constant (r,) with ⟨A, y⟩ ≥ Σ ⟨A_i, x_i⟩ + constant. owner (r,): sample."""
        ...


@runtime_checkable
class Rule(Protocol):
    """The rule of one operator. lower, upper (b, *shape) bound its input."""

    def interval(self, op: Any, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of the output."""
        ...

    def loose(self, op: Any, lower: Tensor, upper: Tensor) -> Tensor:
        """Bool (b, *shape): inputs whose bounds, if tighter, would tighten the enclosure."""
        ...

    def choose(self, op: Any, lower: Tensor, upper: Tensor) -> Tensor | None:
        """Place of the lower slope in its sound range as uint8 0 or 1, (b, *shape); None: no choice."""
        ...

    def relax(self, op: Any, lower: Tensor, upper: Tensor, choice: Tensor | None) -> Relaxation:
        """The enclosure with that choice."""
        ...


@dataclass(frozen=True)
class Elementwise:
    """a_L, b_L (None: 0), a_U, b_U of an elementwise operator, each (b, *shape)."""

    lower_slope: Tensor
    lower_constant: Tensor | None
    upper_slope: Tensor
    upper_constant: Tensor

    def pull(self, rows: Rows, owner: Tensor) -> tuple[tuple[Rows, ...], Tensor]:
        def gather(t: Tensor) -> Tensor:
            return rows.gather(t, owner)

        negative = rows.a.clamp_max(0)
        # ⟨A⁻, y⟩ ≥ ⟨A⁻, a_U x + b_U⟩
        constant = inner(negative, gather(self.upper_constant))
        # ⟨A⁺, y⟩ ≥ ⟨A⁺, a_L x + b_L⟩
        low = gather(self.lower_slope)
        a = torch.addcmul(rows.a * low, negative, gather(self.upper_slope) - low)
        if self.lower_constant is not None:
            constant = constant + inner(rows.a - negative, gather(self.lower_constant))
        return (replace(rows, a=a, clean=True),), constant  # beyond a border every slope is 0
