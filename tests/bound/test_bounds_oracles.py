"""Bounds against closed forms and brute force."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bounded_nets as nets
from saddlepoint.bound.crown import CROWN
from saddlepoint.bound.interval import Interval
from saddlepoint.core.errors import InputError, UnsupportedOperator
from saddlepoint.geometry import L1, L2, Linf
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import Linear, Relu

METHODS = (
    Interval(),
    CROWN(intermediate="interval"),
    CROWN(stop_above=None),
    CROWN(intermediate="forward", stop_above=None),
)
SEEDS = st.integers(0, 2**20)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("kind", ["linf", "l2", "l1", "l0"])
@settings(max_examples=15)
@given(seed=SEEDS)
def test_affine_model_is_exact_with_the_box_active(method, kind, seed):
    draw = nets.seeded(seed)
    weight = torch.randn(3, 12, generator=draw, dtype=torch.float64)
    bias = torch.randn(3, generator=draw, dtype=torch.float64)
    x = torch.rand(4, 12, generator=draw, dtype=torch.float64).mul(1.2).sub(0.1).clamp(0, 1)
    C = torch.randn(4, 2, 3, generator=draw, dtype=torch.float64)
    set = nets.SETS[kind]
    found = method(nets.affine(weight, bias), set, x, C)
    rows = torch.einsum("bmk,kn->bmn", C, weight)
    for j in range(2):
        worst = set.lmo(x, -rows[:, j])
        truth = (rows[:, j] * worst).sum(1) + C[:, j] @ bias
        # the witness lies in the set, so no sound bound exceeds it; exactness is the claim
        assert torch.allclose(found.lower[:, j], truth, rtol=1e-6, atol=1e-9)


@settings(max_examples=12)
@given(seed=SEEDS, kind=st.sampled_from(["linf", "l2", "l1", "l0"]), size=st.sampled_from([0.3, 1.0]))
def test_bounds_lie_below_every_point_of_the_set(seed, kind, size):
    graph = nets.mlp((5, 8, 6, 3), seed)
    x = torch.rand(3, 5, generator=nets.seeded(seed + 1), dtype=torch.float64)
    set = nets.SETS[kind] if kind == "l0" else nets.SETS[kind].resized(size * 0.4)
    inside = nets.points(set, x, 60, seed)
    z = graph(inside.flatten(0, 1)).view(3, 60, 3)
    for method in (Interval(upper=True), CROWN(upper=True), CROWN(intermediate="interval", upper=True)):
        found = method(graph, set, x)
        assert bool((found.lower[:, None] <= z + 1e-9).all())
        assert bool((found.upper[:, None] >= z - 1e-9).all())


@pytest.mark.parametrize("seed", range(6))
def test_crown_lies_below_the_exact_minimum_and_not_far(seed):
    graph = nets.mlp((3, 6, 2), seed)
    x = torch.rand(1, 3, generator=nets.seeded(seed), dtype=torch.float64)
    c = torch.tensor([1.0, -1.0], dtype=torch.float64)
    for size in ("0.05", "0.4"):
        set = Linf(size, nets.UNIT)
        hull = set.hull(x)
        truth = nets.exact_minimum(graph, hull.lower[0], hull.upper[0], c)
        interval, crown = (m(graph, set, x, c.view(1, 1, 2)).lower.item() for m in (METHODS[0], METHODS[2]))
        assert crown <= truth + 1e-8
        assert interval <= crown + 1e-12  # ours intersects with the interval
    assert truth - crown < truth - interval or interval == crown


@pytest.mark.parametrize("name", ["residual", "maxpool", "relu6"])
@pytest.mark.parametrize("kind", ["linf", "l2", "l1", "l0"])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_image_networks_are_bounded_soundly(name, kind, method):
    graph, x = nets.zoo(name)
    set = nets.SETS[kind].resized({"linf": 0.05, "l2": 0.3, "l1": 0.8, "l0": 2}[kind])
    found = type(method)(**{**method.__dict__, "upper": True})(graph, set, x)
    inside = nets.points(set, x, 80, 5)
    z = graph(inside.flatten(0, 1)).view(len(x), 80, 3)
    assert bool((found.lower[:, None] <= z + 1e-4).all())
    assert bool((found.upper[:, None] >= z - 1e-4).all())
    assert bool((found.upper - found.lower < 40).all())  # bounds, not infinities


@pytest.mark.parametrize("name", ["residual", "maxpool", "relu6"])
def test_refined_bounds_are_tighter_and_size_zero_is_the_function(name):
    graph, x = nets.zoo(name, torch.float64)
    set = Linf(0.03, nets.UNIT)
    widths = []
    for method in (Interval(upper=True), CROWN(upper=True, stop_above=None)):
        found = method(graph, set, x)
        widths.append((found.upper - found.lower).mean())
        point = method(graph, set.resized(0), x)
        assert torch.allclose(point.lower, graph(x), atol=1e-9)
        assert torch.allclose(point.upper, graph(x), atol=1e-9)
    assert widths[1] < 0.8 * widths[0]


@pytest.mark.parametrize("ball", [Linf, L2, L1])
def test_bounds_fall_as_the_set_grows(ball):
    graph, x = nets.zoo("residual", torch.float64)
    scale = {Linf: 0.01, L2: 0.05, L1: 0.1}[ball]
    for method in METHODS[:2]:  # with refined bounds the choice of slopes may differ from size to size
        lows = [method(graph, ball(scale * k, nets.UNIT), x).lower for k in range(5)]
        if method.name == "interval":
            assert all(bool((b <= a + 1e-9).all()) for a, b in itertools.pairwise(lows))
        assert bool((lows[-1] < lows[0]).all())


def test_a_batch_is_bounded_as_its_samples_alone():
    graph, x = nets.zoo("maxpool", torch.float64)
    x = x[:3]
    set = Linf(torch.linspace(0.01, 0.05, len(x), dtype=torch.float64), nets.UNIT)
    method = CROWN(stop_above=None)
    together = method(graph, set, x)
    small = CROWN(stop_above=None, memory=1)(graph, set, x)  # one row at a time
    assert torch.allclose(together.lower, small.lower, atol=1e-10)
    for i in range(len(x)):
        row = torch.tensor([i])
        alone = method(graph, set.rows(row), x[row])
        assert torch.allclose(alone.lower, together.lower[row], atol=1e-10)
        for name, tensor in alone.proof.tensors.items():
            assert torch.equal(tensor, together.proof.rows(row).tensors[name])


def test_decided_samples_are_not_refined():
    graph, x = nets.zoo("residual")
    C = torch.tensor([[[1.0, 0, 0]], [[-1.0, 0, 0]]]).repeat(4, 1, 1) * 100
    set = Linf(0.001, nets.UNIT)
    found = CROWN()(graph, set, x, C)
    coarse = CROWN(intermediate="interval")(graph, set, x, C)
    decided = coarse.lower.amin(1) > 0
    assert 0 < int(decided.sum()) < len(x)
    assert torch.equal(found.proof.tensors["refined"].bool(), ~decided)
    assert torch.equal(found.lower[decided], coarse.lower[decided])


def test_nan_and_infinite_weights_never_certify():
    graph, x = nets.zoo("residual")
    x, set = x[:2], Linf(0.01, nets.UNIT)
    for broken in (torch.nan, torch.inf):
        for index, node in enumerate(graph.nodes):
            for field, tensor in node.op.tensors().items():
                worse = tensor.clone()
                worse.view(-1)[0] = broken
                op = type(node.op)(**{**node.op.__dict__, field: worse})
                nodes = list(graph.nodes)
                nodes[index] = Node(node.name, op, node.inputs, node.shape)
                hurt = Graph(tuple(nodes), graph.input, graph.output, graph.input_shape)
                for method in METHODS:
                    lower = method(hurt, set, x).lower
                    z = hurt(x)
                    # a NaN z satisfies no comparison, so there the bound has to be −∞
                    assert bool((lower.isneginf() | (lower <= z + 1e-4 * z.abs() + 1e-4)).all())


def test_operators_without_a_rule_and_wrong_shapes_are_refused():
    graph = nets.mlp((3, 4, 2), 0)
    x = torch.rand(2, 3, dtype=torch.float64)
    nodes = tuple(Node(n.name, nets.Unknown(), n.inputs, n.shape) if isinstance(n.op, Relu) else n for n in graph.nodes)
    odd = Graph(nodes, "x", graph.output, (3,))
    for method in METHODS:
        with pytest.raises(UnsupportedOperator, match="Unknown"):
            method(odd, Linf(0.1), x)
        with pytest.raises(InputError, match="C has shape"):
            method(graph, Linf(0.1), x, torch.ones(2, 1, 3, dtype=torch.float64))
        with pytest.raises(InputError, match="float32"):
            method(graph, Linf(0.1), x.float())
    image = Node("y", Linear(torch.eye(3, dtype=torch.float64)), ("x",), (2, 3))
    with pytest.raises(InputError, match="vectors of logits"):
        Interval()(Graph((image,), "x", "y", (2, 3)), Linf(0.1), torch.rand(1, 2, 3, dtype=torch.float64))


def test_the_module_and_the_inputs_are_left_alone():
    graph, x = nets.zoo("residual")
    before, digest = x.clone(), graph.digest
    CROWN()(graph, Linf(0.05, nets.UNIT), x.requires_grad_())
    assert torch.equal(x, before)
    assert x.grad is None
    assert {name: t.grad for name, t in graph.tensors()} == dict.fromkeys(dict(graph.tensors()))
    assert type(graph)(graph.nodes, graph.input, graph.output, graph.input_shape).digest == digest
