"""The margin, its sign, and what the adversary wants.

    m(z, y) = z_y − max_{j≠y} z_j ,      the property holds iff m > 0 (a tie violates)

Logits that are not finite have a margin of NaN: neither a success of the attack nor a proof.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saddlepoint.core.errors import InputError


def margin(z: Float[Tensor, "b k"], y: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
    """z_y − max_{j≠y} z_j per row; NaN where a logit is not finite."""
    own = z.gather(1, y[:, None])[:, 0]
    others = z.scatter(1, y[:, None], -torch.inf).amax(1)
    return torch.where(z.isfinite().all(1), own - others, torch.nan)


def margin_matrix(y: Int64[Tensor, " b"], classes: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "b m k"]:
    """The K − 1 rows e_y − e_j (j ≠ y, ascending) of each sample: m = min over rows of ⟨row, z⟩."""
    eye = torch.eye(classes, dtype=dtype, device=y.device)
    rival = torch.arange(classes - 1, device=y.device).expand(len(y), classes - 1)
    rival = rival + (rival >= y[:, None])  # skips y
    return eye[y][:, None, :] - eye[rival]


@dataclass(frozen=True)
class Untargeted:
    """Any label but y. Broken iff max_{j≠y} z_j ≥ z_y."""

    def margin(self, z: Float[Tensor, "b k"], y: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The usual margin."""
        return margin(z, y)

    def canonical(self) -> dict[str, object]:
        """JSON form."""
        return {"kind": "untargeted"}


@dataclass(frozen=True)
class Targeted:
    """One label t for all. Broken iff z_t ≥ max_{j≠t} z_j.

    Samples whose own label is t have nothing to fear from this goal: their margin is +∞.
    """

    label: int

    def margin(self, z: Float[Tensor, "b k"], y: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
        """max_{j≠t} z_j − z_t per row. Raises InputError if t is no class of z."""
        if not 0 <= self.label < z.shape[1]:
            raise InputError(f"target {self.label} is not one of {z.shape[1]} classes.", "Classes count from 0.")
        value = -margin(z, torch.full_like(y, self.label))
        return torch.where((y == self.label) & ~value.isnan(), torch.inf, value)

    def canonical(self) -> dict[str, object]:
        """JSON form."""
        return {"kind": "targeted", "label": self.label}


Goal = Untargeted | Targeted
