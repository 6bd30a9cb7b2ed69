"""The first convolution's own way back equals the general one, for every stride, padding and dilation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saddlepoint.attack.stand_in.first_layer import FirstConv2d, with_first_layer
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import Conv2d


@settings(max_examples=30)
@given(
    channels=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    last=st.booleans(),
)
def test_gradients_are_the_general_ones(channels, kernel, stride, padding, dilation, last) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, channels, *kernel, generator=generator)
    op = Conv2d(weight, torch.randn(5, generator=generator), stride, padding, dilation)
    x = torch.randn(3, channels, 9, 11, generator=generator)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    graph = Graph((Node("y", op, ("x",), (5, *op.out_size((9, 11)))),), "x", "y", (channels, 9, 11))
    special = with_first_layer(graph)
    assert isinstance(special.nodes[0].op, FirstConv2d)
    expected, found = graph(x), special(x)
    assert torch.equal(expected, found)
    g = torch.randn(expected.shape, generator=generator)
    (a,), (b,) = torch.autograd.grad(expected, x, g), torch.autograd.grad(found, x, g)
    assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "groups", "dtype"), [(8, 1, torch.float32), (4, 2, torch.float32), (1, 1, torch.float64)]
)
def test_others_stay(channels: int, groups: int, dtype: torch.dtype) -> None:
    op = Conv2d(torch.ones(4, channels // groups, 3, 3, dtype=dtype), groups=groups)
    graph = Graph((Node("y", op, ("x",), (4, 6, 6)),), "x", "y", (channels, 8, 8))
    assert type(with_first_layer(graph).nodes[0].op) is Conv2d
