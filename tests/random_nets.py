"""Random and non-differentiable networks on digits, trained within a second."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.adapters import from_torch
from saddlepoint.data import load as load_data
from saddlepoint.spec import Model

SHAPE = (1, 8, 8)


class Noise(nn.Module):
    """x + σ n, n standard normal."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn_like(x)


class ResizePad(nn.Module):
    """One size and one place for all images of a call, drawn by three libraries."""

    def forward(self, x: Tensor) -> Tensor:
        side = int(torch.randint(6, 9, ()).item())
        left, top = random.randint(0, 8 - side), int(np.random.randint(0, 9 - side))
        small = functional.interpolate(x, size=(side, side))
        return functional.pad(small, (left, 8 - side - left, top, 8 - side - top))


class Everything(nn.Module):
    """Random operators of every kind: in place, by probabilities, per row, per channel, with a generator."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = [torch.Generator()]

    def forward(self, x: Tensor) -> Tensor:
        x = functional.dropout(x, 0.3, training=True) + torch.rand(len(x), 1, 1, 1)
        x = x * torch.bernoulli(torch.sigmoid(x)) + 0.1 * torch.rand(3, 1, 1).sum()
        x = torch.normal(x, 0.1) + torch.empty(x.shape).uniform_(0, 0.1)
        x = x + 0.1 * torch.randn(2 * len(x), 32, generator=self.generator[0]).reshape(len(x), 1, 8, 8)
        return functional.rrelu(x - 0.5, training=True)


class Private(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = [np.random.default_rng(0)]

    def forward(self, x: Tensor) -> Tensor:
        return x + float(self.rng[0].normal())


@cache
def trained(sigma: float = 0.0) -> nn.Sequential:
    """64-48-10 on digits, with noise of this size in training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        data = load_data("digits:train")
        batch = data.take(list(range(len(data))))
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
        steps = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(150):
            z = net(batch.x + sigma * torch.randn_like(batch.x))
            grads = torch.autograd.grad(functional.cross_entropy(z, batch.y), list(net.parameters()))
            for p, g in zip(net.parameters(), grads, strict=True):
                p.grad = g
            steps.step()
    return net.eval()


def behind(first: nn.Module, sigma: float = 0.0) -> Model:
    """The trained network behind a module."""
    return from_torch(nn.Sequential(first, *trained(sigma)).eval(), (0, 1), shape=SHAPE)


def samples(count: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Test images."""
    batch = load_data("digits:test").take(list(range(count)))
    return batch.x, batch.y, batch.ids
