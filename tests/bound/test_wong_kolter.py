"""The dual bound written out is CROWN with the chord's slope below; it lies below every point and the triangle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import bounded_nets as nets
from saddlepoint.bound import CROWN, LP, WongKolter
from saddlepoint.bound.backward import Lines, Walker
from saddlepoint.bound.enclose import Encloser
from saddlepoint.bound.interval import region_of
from saddlepoint.bound.rows import Rows
from saddlepoint.bound.rules import rule_of
from saddlepoint.bound.wong_kolter import Dual, share
from saddlepoint.check.proofs import recheck
from saddlepoint.core.errors import UnsupportedOperator
from saddlepoint.geometry import L1, L2, Box, Linf
from saddlepoint.graph.capture import capture
from saddlepoint.graph.ops import Relu

SEEDS = st.integers(0, 2**20)
UNIT = Box(0, 1)


def fast_lin(graph, set, x, C):
    """CROWN's machinery with the slope u / (u − l) below: Weng et al. 2018."""
    region, walker = region_of(set, x), Walker(graph)
    _, relaxations, _ = Encloser(walker, lambda rule, op, low, high: share(low, high)).enclose(region, refine=True)
    return lowest(walker, region, relaxations, C)


def lowest(walker, region, relaxations, C):
    b, m, k = C.shape
    start = Rows(C.reshape(b * m, k), walker.graph.output_shape)
    lines = walker.shared(Lines({walker.graph.output: start}, C.new_zeros(b * m)))
    owner = torch.arange(b).repeat_interleave(m)
    return walker.minimum(lines, torch.arange(b * m), owner, relaxations, region).view(b, m)


def with_chords(graph, set, x, C):
    """The same from the dual's own l and u."""
    region, walker = region_of(set, x), Walker(graph)
    layers = Dual.of(graph, region).layers
    relaxations = {
        name: rule_of(Relu(), name).relax(Relu(), low, high, share(low, high)) for name, (low, high) in layers.items()
    }
    return lowest(walker, region, relaxations, C)


@settings(max_examples=12, deadline=None)
@given(seed=SEEDS, kind=st.sampled_from(["linf", "l2", "l1"]), size=st.sampled_from([0.02, 0.1, 0.4]))
def test_the_dual_is_crown_with_the_chord_s_slope(seed, kind, size):
    graph = nets.mlp((5, 9, 8, 3), seed)
    x = torch.rand(3, 5, generator=nets.seeded(seed + 1), dtype=torch.float64)
    C = torch.randn(3, 2, 3, generator=nets.seeded(seed + 2), dtype=torch.float64)
    set = nets.SETS[kind].resized(size)
    found = WongKolter(upper=True)(graph, set, x, C)
    assert torch.allclose(found.lower, with_chords(graph, set, x, C), atol=1e-9)
    assert found.upper is not None
    assert torch.allclose(found.upper, -with_chords(graph, set, x, -C), atol=1e-9)
    z = graph(nets.points(set, x, 40, seed).flatten(0, 1)).view(3, 40, 3)
    values = torch.einsum("bmk,bpk->bmp", C, z)
    assert bool((found.lower[..., None] <= values + 1e-9).all())
    assert bool((found.upper[..., None] >= values - 1e-9).all())


class Residual(nn.Module):
    """Convolutions, batch norm, a branch that meets itself again."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 3, 3, 2, 1), nn.BatchNorm2d(3), nn.ReLU())
        self.branch = nn.Sequential(nn.Conv2d(3, 3, 3, 1, 1), nn.ReLU())
        self.last = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        return self.last(self.branch(h) + h)


@pytest.mark.parametrize("memory", [1 << 25, 1 << 12])
def test_residual_convolutions_in_float32_agree_too_however_the_rows_are_cut(memory):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net, x = Residual().eval(), torch.rand(2, 1, 8, 8)
    graph, set = capture(net, x), Linf("0.05", UNIT)
    C = torch.eye(3)[None, :1].expand(2, -1, -1) - torch.eye(3)[None, 1:2]
    found = WongKolter(memory=memory)(graph, set, x, C)
    assert torch.allclose(found.lower, fast_lin(graph, set, x, C), atol=1e-5)


def test_the_checker_accepts_its_slopes():
    graph = nets.mlp((4, 8, 6, 3), 2, torch.float32)
    x = torch.rand(3, 4, generator=nets.seeded(0))
    C = torch.randn(3, 2, 3, generator=nets.seeded(1))
    for set in (Linf("0.05", UNIT), L2("0.1", UNIT), L1("0.1", UNIT)):
        found = WongKolter()(graph, set, x, C)
        shown = recheck(graph, set.canonical(), x, C, found.proof.tensors, "wong-kolter")
        assert bool((shown >= found.lower.double() - 1e-4).all())


def test_it_lies_below_the_triangle_it_is_the_dual_of():
    graph = nets.mlp((4, 8, 2), 3)  # one hidden layer: both see the same bounds
    x = torch.rand(2, 4, generator=nets.seeded(0), dtype=torch.float64)
    C = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64).expand(2, -1, -1)
    set = Linf("0.3", UNIT)
    assert bool((WongKolter()(graph, set, x, C).lower <= LP()(graph, set, x, C).lower + 1e-7).all())


def test_other_activations_are_refused_by_name_and_nan_certifies_nothing():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2)).eval()
    x = torch.rand(1, 4)
    with pytest.raises(UnsupportedOperator, match="Sigmoid"):
        WongKolter()(capture(net, x), Linf("0.1", UNIT), x)
    bad = nets.affine(torch.full((2, 2), torch.nan), torch.zeros(2))
    lower = WongKolter()(bad, Linf("0.1", UNIT), torch.rand(1, 2)).lower
    assert bool((lower == -torch.inf).all())
    assert CROWN()(bad, Linf("0.1", UNIT), torch.rand(1, 2)).lower.isneginf().all()
