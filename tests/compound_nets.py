"""Two small networks that between them hold every operator with a smooth rule or a decomposition."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

import bounded_nets as nets
from saddlepoint.graph.capture import capture


class Attention(nn.Module):
    """One block of attention with layer norm and GELU on 4 tokens of 6 numbers."""

    def __init__(self):
        super().__init__()
        self.norm, self.key, self.mix = nn.LayerNorm(6), nn.Linear(6, 18), nn.Linear(6, 6)
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        q, k, v = self.key(self.norm(x)).chunk(3, -1)
        h = x + torch.softmax(q @ k.transpose(1, 2) / 6**0.5, -1) @ v
        h = h + nn.functional.gelu(self.mix(h))
        return self.head(h.flatten(1))


class Many(nn.Module):
    """Every other operator that decompose() rewrites or that has a curve."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(24, 8), nn.Linear(24, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = x.flatten(1)
        a, b = self.a(x), self.b(x)
        h = torch.maximum(a, b) - torch.minimum(a.tanh(), b.sigmoid()) + a.abs() + (a * b).sin() * 0.1
        h = h + a / (b * b + 1.0) + nn.functional.silu(a) + nn.functional.hardswish(b) + (a.exp() + 1).log()
        h = h + (b * b + 1).sqrt().reciprocal() + nn.functional.softplus(a) + a.cos() + nn.functional.mish(b)
        h = h + a**3 * 0.1 + nn.functional.elu(b) + nn.functional.hardsigmoid(a) + torch.log_softmax(b, 1)
        return self.c(h)


@cache
def network(kind):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = {"attention": Attention, "many": Many}[kind]().eval()
    x = torch.rand(2, 4, 6, generator=nets.seeded(4))
    return capture(net, x), x
