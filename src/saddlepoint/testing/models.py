"""The small network and the images that attacks and bounds are tried on."""

from __future__ import annotations

from collections.abc import Callable

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
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
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
