"""Captured PyTorch functions beyond the layers of test_capture: attention, extrema, powers, and what they refuse."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from saddlepoint.core.errors import UnsupportedOperator
from saddlepoint.graph.capture import capture


class Fn(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x)


FUNCTIONS = {
    "attention": lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1),
    "maximum": lambda x: torch.maximum(x, -x) + torch.minimum(x, 1 - x),
    "max of two": lambda x: torch.max(x, x * x) - torch.min(x, -x),
    "amax": lambda x: x.amax(1) + x.amin((1, 2), keepdim=True).squeeze(1),
    "reciprocal": lambda x: (x * x + 1).reciprocal() + 1 / (x.exp() + 2),
    "powers": lambda x: x**3 + (x * x + 0.5) ** 0.7 + (x * x + 1) ** -2,
    "silu by hand": lambda x: x * torch.sigmoid(x),
    "waves": lambda x: x.sin() * x.cos(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_capture_equals_the_function(name):
    graph = capture(Fn(FUNCTIONS[name]), torch.rand(2, 3, 4))
    x = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(graph(x), FUNCTIONS[name](x), atol=1e-5)


def test_silu_by_hand_is_one_operator():
    graph = capture(Fn(FUNCTIONS["silu by hand"]), torch.rand(2, 3, 4))
    assert [n.op.kind for n in graph.nodes] == ["Silu"]


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), "mask"),
        (lambda x: x.max(1).values, "where it lies"),
        (lambda x: x.amax(), "mixes the samples"),
    ],
)
def test_refusals(fn, words):
    with pytest.raises(UnsupportedOperator, match=words):
        capture(Fn(fn), torch.rand(2, 3, 4))
