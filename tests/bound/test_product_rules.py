"""Products, decomposed operators and whole networks: planes and bounds contain every sampled point."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bounded_nets as nets
import families
from compound_nets import network
from paths import SHARED
from saddlepoint.bound.crown import CROWN
from saddlepoint.bound.interval import Interval
from saddlepoint.bound.rows import Rows
from saddlepoint.bound.rules.product import ProductRule
from saddlepoint.core.errors import UnsupportedOperator
from saddlepoint.geometry import Box, Linf
from saddlepoint.graph import ops
from saddlepoint.graph.decompose import decompose
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.onnx_reader import read_onnx


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**30), matrix=st.booleans(), free=st.booleans(), scale=st.sampled_from([1e-6, 1.0, 1e4]))
def test_planes_and_intervals_contain_all_products(seed, matrix, free, scale):
    draw = torch.Generator().manual_seed(seed)
    op = ops.MatrixProduct((2, 3, 4), (2, 4, 5)) if matrix else ops.Product((2, 7))
    size = 2 * 3 * 4 + 2 * 4 * 5 if matrix else 28
    lower = torch.randn(3, size, generator=draw, dtype=torch.float64) * scale
    upper = lower + torch.rand(3, size, generator=draw, dtype=torch.float64) ** 4 * scale
    upper[0, ::3] = lower[0, ::3]
    rule = ProductRule()
    choice = torch.rand(3, *op.shape, generator=draw, dtype=torch.float64) if free else None
    planes = rule.relax(op, lower, upper, choice)
    mix = torch.rand(60, 3, size, generator=draw, dtype=torch.float64)
    mix[:30] = mix[:30].round()
    x = lower + mix * (upper - lower)
    y = torch.stack([op(each) for each in x])
    low, high = rule.interval(op, lower, upper)
    slack = 1e-12 * scale**2
    assert bool((low <= y + slack).all())
    assert bool((y <= high + slack).all())
    a = torch.randn(6, *op.shape, generator=draw, dtype=torch.float64)
    owner = torch.tensor([0, 0, 1, 1, 2, 2])
    (rows,), constant = planes.pull(Rows(a, op.shape), owner)
    bound = (rows.a * x[:, owner]).flatten(2).sum(2) + constant
    assert bool((bound <= (a * y[:, owner]).flatten(2).sum(2) + slack * 100).all())


@pytest.mark.parametrize("kind", ["attention", "many"])
def test_decomposition_is_the_same_function(kind):
    graph, x = network(kind)
    whole, parts = graph.to(torch.float64), decompose(graph.to(torch.float64))
    assert decompose(parts) is parts
    assert parts.output == whole.output
    points = torch.randn(50, *x.shape[1:], generator=nets.seeded(1), dtype=torch.float64)
    assert torch.allclose(whole(points), parts(points), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["attention", "many"])
@pytest.mark.parametrize("size", ["0", "1/200", "2"])
def test_bounds_contain_the_network(kind, size):
    graph, x = network(kind)
    graph, x = graph.to(torch.float64), x.double()
    set = Linf(size)
    inside = nets.points(set, x, 60, 3)
    z = graph(inside.flatten(0, 1)).view(2, 60, 3)
    for method in (Interval(upper=True), CROWN(stop_above=None, upper=True)):
        found = method(graph, set, x)
        assert bool((found.lower[:, None] <= z + 1e-9).all())
        assert bool((found.upper[:, None] >= z - 1e-9).all())
    if size in ("0", "1/200"):  # and they are close
        assert bool((found.upper - found.lower <= (1e-6 if size == "0" else 1.0)).all())


def test_a_softmax_too_long_for_its_rounding_bound_is_refused():
    graph = Graph((Node("y", ops.Softmax(1), ("x",), (2049,)),), "x", "y", (2049,))
    with pytest.raises(UnsupportedOperator, match="2049"):
        decompose(graph)


def test_softmax_along_another_axis():
    node = Node("y", ops.Softmax(1), ("x",), (3, 2))
    flat = Node("z", ops.Reshape((6,)), ("y",), (6,))
    graph = Graph((node, flat), "x", "z", (3, 2))
    x = torch.randn(5, 3, 2, generator=nets.seeded(1), dtype=torch.float64)
    assert torch.allclose(decompose(graph)(x), graph(x), atol=1e-12)


@pytest.mark.skipif(not SHARED.exists(), reason="the measuring material is not beside the project")
@pytest.mark.parametrize("family", sorted(set(families.instances()) if SHARED.exists() else ()))
def test_bounds_contain_sampled_outputs_of_every_family(family):
    path, property = families.smallest(family)
    graph, (lower, upper) = read_onnx(path), families.box(property)
    x = ((lower + upper) / 2).float().view(1, *graph.input_shape)
    set = Box(lower.tolist(), upper.tolist())
    draw = nets.seeded(1)
    mix = torch.rand(60, len(lower), generator=draw, dtype=torch.float64)
    mix[:30] = mix[:30].round()
    z = graph((lower + mix * (upper - lower)).float().view(-1, *graph.input_shape))
    tolerance = 1e-4 * z.abs().max()
    large = family in ("cgan", "vit", "sri_resnet_a", "cifar10_resnet", "oval21")  # their full pass takes seconds
    for method in (Interval(upper=True), CROWN("interval" if large else "backward", stop_above=None, upper=True)):
        found = method(graph, set, x)
        assert bool((found.lower <= z + tolerance).all())
        assert bool((found.upper >= z - tolerance).all())
        assert bool(torch.isfinite(found.lower).all()) or family == "cgan"
