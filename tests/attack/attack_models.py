"""Small models and rows that the attack tests share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from saddlepoint.attack import Rows
from saddlepoint.geometry import Box, PerturbationSet
from saddlepoint.spec import Access, Model

UNIT = Box(0.0, 1.0)
SHAPE = (1, 8, 8)


def wrap(
    fn: Callable[[Tensor], Tensor],
    classes: int,
    shape: tuple[int, ...] = SHAPE,
    access: Access = Access.GRADIENT,
) -> Model:
    """A model on the unit box."""
    return Model(fn, UNIT, classes, access, "test", shape)


def convnet(classes: int = 5, seed: int = 0) -> nn.Module:
    """A small convolutional network with batch normalisation and dropout, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, classes),
    ).eval()
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) * (0.5 if p.ndim > 1 else 0.1)
    return net


def images(net: Callable[[Tensor], Tensor], count: int, threat: PerturbationSet, seed: int = 1) -> Rows:
    """Random images (some pixels at 0 and 1) labelled by the network itself."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(count, *SHAPE, generator=generator) * 1.4 - 0.2).clamp(0, 1)
    with torch.no_grad():
        y = net(x).argmax(1)
    return Rows(x, y, tuple(f"s{i}" for i in range(count)), threat)


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
