"""Operators that stop the gradient pass one, wherever they are called; values are never touched."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from saddlepoint.attack.stand_in.bpda import Passing, passing, straight_through
from saddlepoint.graph import ops
from saddlepoint.graph.capture import capture
from saddlepoint.graph.ir import Graph, Node

X = torch.linspace(0.03, 0.97, 24).reshape(2, 12)
LEVELS = torch.linspace(0, 1, 6)


def no_grad(x):
    with torch.no_grad():
        y = torch.round(4 * x)
    return y / 4


def in_place(x):
    y = 4 * x
    y.round_()
    return y / 4


# functions whose true response to a wide step is x itself, up to steps: the slope must be about 1 everywhere
STAIRS = {
    "round": lambda x: torch.round(4 * x) / 4,
    "round, method": lambda x: (4 * x).round() / 4,
    "round in place": in_place,
    "floor": lambda x: torch.floor(8 * x) / 8,
    "ceil": lambda x: (8 * x).ceil() / 8,
    "trunc": lambda x: torch.trunc(8 * x) / 8,
    "//": lambda x: x // 0.125 * 0.125,
    "div": lambda x: torch.div(x, 0.125, rounding_mode="floor") * 0.125,
    "uint8": lambda x: (x * 255).to(torch.uint8).float() / 255,
    "int and shift": lambda x: ((x * 255).int() // 32 * 32).float() / 255,
    "table": lambda x: torch.linspace(0, 1, 17)[(x * 16).long()],
    "detach": lambda x: x.detach() * 1.0,
    "data": lambda x: x.data * 1.0,
    "no_grad": no_grad,
}
# thresholds of many kinds: the slope is positive everywhere
RISING = {
    "sign": lambda x: torch.sign(x - 0.5),
    "gt": lambda x: (x > 0.5).float(),
    "ge, method": lambda x: x.ge(0.5).to(x.dtype),
    "lt": lambda x: 1 - (x < 0.5).float(),
    "not": lambda x: (~(x < 0.5)).float(),
    "and, or": lambda x: ((x > 0.2) & (x > 0.4)).float() + ((x > 0.6) | (x > 0.8)).float(),
    "where": lambda x: torch.where(x > 0.5, torch.ones_like(x), torch.zeros_like(x)),
    "masked_fill": lambda x: torch.zeros_like(x).masked_fill(x > 0.5, 1.0),
    "heaviside": lambda x: torch.heaviside(x - 0.5, torch.tensor(0.0)),
    "thermometer": lambda x: (x[..., None] > LEVELS).float().mean(-1),
    "nearest level": lambda x: LEVELS[(x[..., None] - LEVELS).abs().argmin(-1)],
    "one hot": lambda x: (functional.one_hot((x[..., None] - LEVELS).abs().argmin(-1), 6).float() * LEVELS).sum(-1),
}


def slope(function, x=X):
    point = x.clone().requires_grad_()
    with Passing():
        y = function(point)
    assert torch.equal(y.detach(), function(x))
    return torch.autograd.grad(y.sum(), point)[0]


@pytest.mark.parametrize("kind", STAIRS)
def test_stairs_have_the_slope_of_the_ramp(kind):
    torch.testing.assert_close(slope(STAIRS[kind]), torch.ones_like(X), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", RISING)
def test_what_rises_in_a_jump_has_a_positive_slope(kind):
    assert bool((slope(RISING[kind]) > 0).all())


@pytest.mark.parametrize("kind", [*STAIRS, *RISING])
def test_without_it_there_is_none(kind):
    point = X.clone().requires_grad_()
    y = {**STAIRS, **RISING}[kind](point)
    if not y.requires_grad:
        return
    with suppress(RuntimeError):  # "derivative for aten::heaviside is not implemented"
        assert not bool(torch.autograd.grad(y.sum(), point)[0].any())


def test_smooth_functions_are_left_alone():
    net = nn.Sequential(nn.Linear(12, 8), nn.GELU(), nn.LayerNorm(8), nn.Softmax(-1))
    assert passing(net, X) is None
    point = X.clone().requires_grad_()
    plain = torch.autograd.grad(net(point)[:, 0].sum(), point)[0]
    with Passing():
        watched = torch.autograd.grad(net(point)[:, 0].sum(), point)[0]
    assert torch.equal(plain, watched)


def test_what_was_replaced_is_said():
    found = passing(lambda x: torch.round(x) + torch.sign(x).round(), X)
    assert found is not None
    assert found.replaced == ("round × 2", "sign × 1")


def test_a_captured_graph_with_rounding_gets_a_backward():
    class Coarse(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(12, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.second(torch.sign(self.first(torch.round(x * 7) / 7)))

    net = Coarse().eval()
    graph = capture(net, X)
    assert {"Round", "Sign"} <= {node.op.kind for node in graph.nodes}
    sloped = straight_through(graph)
    assert sloped is not None
    assert sloped.replaced == ("round × 1", "sign × 1")
    point = X.clone().requires_grad_()
    z = sloped(point)
    assert torch.equal(z, net(X))
    assert bool(torch.autograd.grad(z[:, 0].sum(), point)[0].any())
    smooth = replace(graph, nodes=tuple(n for n in graph.nodes[:1]), output=graph.nodes[0].name)
    assert straight_through(smooth) is None


@pytest.mark.parametrize("kind", ["Ceil", "Floor", "Round", "Sign"])
def test_operators_that_jump_run_in_a_graph(kind):
    graph = Graph((Node("a", ops.Elementwise(kind), ("x",), (12,)),), "x", "a", (12,))
    y = X * 3 - 1.5
    assert torch.equal(graph(y), getattr(torch, kind.lower())(y))
