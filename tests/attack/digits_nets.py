"""Two small networks trained on disjoint halves of the digits, and test images: seconds, once a session."""

from __future__ import annotations

from functools import lru_cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from saddlepoint.attack import Rows
from saddlepoint.geometry import Box, PerturbationSet
from saddlepoint.spec import Access, Model

SHAPE = (1, 8, 8)


@lru_cache(maxsize=1)
def digits() -> tuple[Tensor, Tensor, Tensor]:
    """x, y, and which rows are the test part (every fifth)."""
    bunch = load_digits()
    x = torch.tensor(bunch.images / 16, dtype=torch.float32)[:, None]  # pyright: ignore[reportAttributeAccessIssue]
    y = torch.tensor(bunch.target)  # pyright: ignore[reportAttributeAccessIssue]
    return x, y, torch.arange(len(x)) % 5 == 4


@lru_cache(maxsize=4)
def half_net(half: int) -> Model:
    """A network that saw one half (0 or 1) of the training part."""
    x, y, test = digits()
    rows = (~test).nonzero()[:, 0][half::2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(half)
        net = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 10),
        )
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for p in net.parameters():
        p.grad = None
        p.requires_grad_(False)
    return Model(net.eval(), Box(0, 1), 10, Access.GRADIENT, f"half{half}", SHAPE, name=f"half{half}")


def held_rows(threat: PerturbationSet, begin: int = 0, count: int = 80) -> Rows:
    """Some of the test images."""
    x, y, test = digits()
    index = test.nonzero()[:, 0][begin : begin + count]
    return Rows(x[index], y[index], tuple(str(i) for i in index.tolist()), threat)
