"""Small models and rows that the attack tests share."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from saddlepoint.attack import Rows
from saddlepoint.geometry import PerturbationSet
from saddlepoint.spec import Model
from saddlepoint.testing.models import SHAPE as SHAPE
from saddlepoint.testing.models import UNIT as UNIT
from saddlepoint.testing.models import convnet as convnet
from saddlepoint.testing.models import images as images
from saddlepoint.testing.models import wrap as wrap


@dataclass(frozen=True)
class Affine:
    """z = W x + c in float64, with the exact worst margin over a set by its support function."""

    weight: Tensor
    constant: Tensor
    model: Model
    x: Tensor
    y: Tensor
    ids: tuple[str, ...] = field(default=())

    def rows(self, threat: PerturbationSet) -> Rows:
        return Rows(self.x, self.y, self.ids, threat)

    def worst(self, threat: PerturbationSet) -> Tensor:
        """min over j ≠ y of z_y − z_j at its lowest: −support(−(w_y − w_j)) + c_y − c_j."""
        rows = self.weight[self.y][:, None] - self.weight[None]
        lowest = -threat.support(self.x, -rows) + self.constant[self.y][:, None] - self.constant[None]
        return lowest.scatter(1, self.y[:, None], torch.inf).amin(1)


def affine(seed: int, classes: int, features: int = 12, count: int = 6) -> Affine:
    """A random affine classifier whose inputs crowd the box's faces, so the box is active."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, features, generator=generator, dtype=torch.float64)
    constant = torch.randn(classes, generator=generator, dtype=torch.float64)
    x = (torch.rand(count, features, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)

    def fn(v: Tensor) -> Tensor:
        return v @ weight.T + constant

    ids = tuple(str(i) for i in range(count))
    return Affine(weight, constant, wrap(fn, classes, (features,)), x, fn(x).argmax(1), ids)
