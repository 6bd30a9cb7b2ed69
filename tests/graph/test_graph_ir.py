"""The graph as a value: order checked, intermediates freed, digest over structure and weights."""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass

import pytest
import torch

from saddlepoint.core.errors import InputError
from saddlepoint.graph import ops
from saddlepoint.graph.ir import Graph, Node


def residual(scale=1.0):
    w = torch.arange(9.0).reshape(3, 3) * scale
    return Graph(
        (
            Node("a", ops.Linear(w, torch.ones(3)), ("x",), (3,)),
            Node("b", ops.Relu(), ("a",), (3,)),
            Node("c", ops.Add(), ("b", "x"), (3,)),
        ),
        "x",
        "c",
        (3,),
    )


def test_it_runs_batched_and_differentiable():
    g, x = residual(), torch.randn(5, 3, requires_grad=True)
    y = g(x)
    op = g.node("a").op
    assert torch.equal(y, torch.relu(torch.nn.functional.linear(x, op.weight, op.bias)) + x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.shape == x.shape
    assert not any(t.requires_grad for _, t in g.tensors())


def test_values_are_all_intermediates():
    g, x = residual(), torch.randn(2, 3)
    values = g.values(x)
    assert list(values) == ["x", "a", "b", "c"]
    assert torch.equal(values["c"], g(x))
    assert g.in_shapes(g.node("c")) == ((3,), (3,))
    assert g.output_shape == (3,)


def test_a_node_before_its_input_is_refused():
    nodes = residual().nodes
    with pytest.raises(InputError, match="topological"):
        Graph((nodes[1], nodes[0], nodes[2]), "x", "c", (3,))


def test_two_nodes_of_one_name_and_a_missing_output_are_refused():
    nodes = residual().nodes
    with pytest.raises(InputError, match="two nodes are named b"):
        Graph((*nodes, nodes[1]), "x", "c", (3,))
    with pytest.raises(InputError, match="no node is named z"):
        Graph(nodes, "x", "z", (3,))


def test_a_wrong_shape_says_which_one_is_right():
    with pytest.raises(InputError, match=r"\(2, 4\).*\(N, 3,\)"):
        residual()(torch.zeros(2, 4))


def test_digest_sees_weights_structure_and_constants_but_not_names():
    g = residual()
    renamed = Graph(
        tuple(Node(n.name + "'", n.op, tuple(i + "'" for i in n.inputs), n.shape) for n in g.nodes), "x'", "c'", (3,)
    )
    assert g.digest == residual().digest == renamed.digest
    assert g.digest != residual(2.0).digest
    slope = [Graph((Node("a", ops.LeakyRelu(s), ("x",), (3,)),), "x", "a", (3,)).digest for s in (0.1, 0.2)]
    assert slope[0] != slope[1]
    limits = [Graph((Node("a", ops.Clip(0.0, u), ("x",), (3,)),), "x", "a", (3,)).digest for u in (1.0, float("inf"))]
    assert limits[0] != limits[1]
    assert g.to(torch.float64).digest != g.digest


def test_float64_graph_computes_in_float64():
    g = residual().to(torch.float64)
    assert g.dtype == torch.float64
    assert g(torch.ones(1, 3, dtype=torch.float64)).dtype == torch.float64


def test_intermediates_are_freed_after_their_last_use():
    seen = []
    alive = []

    @dataclass(frozen=True, eq=False)
    class Watched(ops.NonlinearOp):
        def __call__(self, *xs):
            alive.append(sum(ref() is not None for ref in seen))
            y = xs[0] + 1
            seen.append(weakref.ref(y))
            return y

    names = ["x", *"abcdefgh"]
    chain = tuple(Node(b, Watched(), (a,), (3,)) for a, b in itertools.pairwise(names))
    Graph(chain, "x", "h", (3,))(torch.zeros(1, 3))
    assert max(alive) <= 1  # only the value being read


def test_an_unread_node_does_not_stay():
    node = Node("z", ops.Relu(), ("x",), (3,))
    g = residual()
    x = torch.randn(2, 3)
    assert torch.equal(Graph((node, *g.nodes), "x", "c", (3,))(x), g(x))
