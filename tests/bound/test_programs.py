"""LP and MILP: against enumeration, against each other, and against points of the set."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor, nn

import bounded_nets as nets
from saddlepoint.bound.crown import CROWN
from saddlepoint.bound.lp import LP, Ground
from saddlepoint.bound.milp import MILP
from saddlepoint.bound.program import Maps, Program, Solver, safe_bound
from saddlepoint.bound.program.pieces import Pieces, gap, hull, pieces_of
from saddlepoint.core.errors import NotAvailable, UnsupportedOperator
from saddlepoint.data import load as load_data
from saddlepoint.geometry import L1, L2, Box, Linf
from saddlepoint.graph.capture import capture
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import Abs, Clip, LeakyRelu, Linear, Relu, Sigmoid
from saddlepoint.spec import margin_matrix

SEEDS = st.integers(0, 2**20)
UNIT = Box(0, 1)
PAIR = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)


def convolutional(seed: int) -> Graph:
    """Everything that a program takes but Abs, in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 2, 3, 2, 1),
            nn.BatchNorm2d(2),
            nn.ReLU6(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8, 5),
            nn.LeakyReLU(0.1),
            nn.Linear(5, 3),
        ).eval()
        for p in net.parameters():
            p.requires_grad_(False)
            p.mul_(2)
        x = torch.rand(1, 1, 8, 8)
    return capture(net, x)


@pytest.mark.parametrize("seed", range(5))
def test_the_milp_is_the_exact_minimum_and_its_witness_attains_it(seed):
    graph = nets.mlp((3, 6, 2), seed)
    x = torch.rand(1, 3, generator=nets.seeded(seed), dtype=torch.float64)
    set = Linf("0.4", UNIT)
    lower, upper = set.hull(x)
    truth = nets.exact_minimum(graph, lower[0], upper[0], PAIR[0, 0])
    found = MILP().solve(graph, set, x, PAIR)
    assert float(found.lower) == pytest.approx(truth, abs=1e-6)
    assert float(found.value) == pytest.approx(truth, abs=1e-6)
    assert float(found.lower) <= truth
    assert bool(found.closed.all())
    assert bool(set.contains(x, found.witness[:, 0]).all())
    triangle, narrowed = LP()(graph, set, x, PAIR).lower, LP(narrow=True)(graph, set, x, PAIR).lower
    plain = CROWN(stop_above=None)(graph, set, x, PAIR).lower
    assert float(plain) <= float(triangle) + 1e-6
    assert float(triangle) <= float(narrowed) + 1e-6
    assert float(narrowed) <= truth


@settings(max_examples=5)
@given(seed=SEEDS, size=st.sampled_from(["0.02", "0.1"]), kind=st.sampled_from([Linf, L1]))
def test_every_operator_keeps_every_point_and_lp_lies_between_crown_and_milp(seed, size, kind):
    graph = convolutional(seed % 50)
    x = torch.rand(1, 1, 8, 8, generator=nets.seeded(seed))
    set = kind(size, UNIT)
    C = margin_matrix(graph(x).argmax(1), 3)
    triangle = LP()(graph, set, x, C).lower
    plain = CROWN(stop_above=None)(graph, set, x, C).lower
    assert bool((plain <= triangle + 1e-4).all())
    inside = nets.points(set, x, 60, seed)
    z = graph(inside.flatten(0, 1)).view(1, 60, 3)
    worst = torch.einsum("bmk,bpk->bmp", C, z).amin(2)
    assert bool((triangle <= worst + 1e-5).all())
    if size == "0.02":
        exact = MILP(seconds=20.0).solve(graph, set, x, C)
        assert bool((triangle.double() <= exact.value + 1e-6).all())
        assert bool((exact.lower <= worst.double() + 1e-5).all())
        assert bool(set.contains(x.double(), exact.witness[:, 0]).all())


def deep(seed: int) -> tuple[Graph, Tensor]:
    return nets.mlp((4, 10, 10, 2), seed), torch.rand(2, 4, generator=nets.seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
def test_the_l1_ball_is_exact_on_an_affine_net_and_tighter_than_its_box(seed):
    draw = nets.seeded(seed)
    weight, bias = (torch.randn(*s, generator=draw, dtype=torch.float64) for s in ((2, 6), (2,)))
    x, set = torch.rand(1, 6, generator=draw, dtype=torch.float64), L1("0.7", UNIT)
    affine = nets.affine(weight, bias)
    row = (weight[0] - weight[1])[None]
    truth = float((row * set.lmo(x, -row)).sum() + bias[0] - bias[1])
    assert float(LP()(affine, set, x, PAIR).lower) == pytest.approx(truth, abs=1e-7)
    graph, x = deep(seed)
    ball, box = (LP(enclose=e)(graph, L1("0.3", UNIT), x, PAIR.expand(2, -1, -1)).lower for e in (False, True))
    assert bool((ball >= box - 1e-9).all())


def test_a_set_that_is_no_program_is_refused_or_enclosed_by_name():
    graph, x = deep(0)
    with pytest.raises(NotAvailable, match="no linear program"):
        LP()(graph, L2("0.3", UNIT), x)
    enclosed = LP(enclose=True)
    assert enclosed.name == "lp-box"
    lower = enclosed(graph, L2("0.3", UNIT), x).lower
    z = graph(nets.points(L2("0.3", UNIT), x, 50, 0).flatten(0, 1)).view(2, 50, 2)
    assert bool((lower[:, None] <= z).all())


def test_an_operator_that_is_not_piecewise_linear_is_refused_by_name():
    with pytest.raises(UnsupportedOperator, match="Sigmoid"):
        pieces_of(Sigmoid(), "s")


@settings(max_examples=150)
@given(
    op=st.sampled_from([Relu(), LeakyRelu(0.1), Abs(), Clip(-0.5, 1.0), Clip(0.0, 6.0), Clip(-1.0)]),
    ends=st.tuples(st.floats(-4, 8), st.floats(-4, 8)),
    share=st.floats(0, 1),
)
def test_hulls_enclose_and_gaps_bound(op, ends, share):
    low, high = min(ends), max(ends)
    f = pieces_of(op, "n")
    if high - low < 1e-6:
        return
    p = low + share * (high - low)
    assert f(p) == pytest.approx(float(op(torch.tensor([p], dtype=torch.float64))), abs=1e-12)
    below, above = hull(f, low, high)
    assert all(s * p + t <= f(p) + 1e-12 for s, t in below)
    assert all(s * p + t >= f(p) - 1e-12 for s, t in above)
    tightest = max(s * low + t for s, t in below)  # at the ends the hull is the point itself
    assert tightest == pytest.approx(f(low), abs=1e-9)
    for line in f.lines:
        least, most = gap(f, line, low, high)
        assert least <= f(p) - line[0] * p - line[1] <= most


def test_the_triangle_is_the_hull_of_a_relu():
    below, above = hull(Pieces((0.0,), ((0.0, 0.0), (1.0, 0.0))), -1.0, 3.0)
    assert [s for s, _ in below] == [0.0, 1.0]
    assert above == [pytest.approx((0.75, 0.75))]


def absolute() -> Graph:
    """|x₁ − x₂|, whose minimum over a box around a point with x₁ = x₂ is 0."""
    nodes = (
        Node("z", Linear(torch.tensor([[1.0, -1.0]], dtype=torch.float64)), ("x",), (1,)),
        Node("a", Abs(), ("z",), (1,)),
        Node("y", Linear(torch.tensor([[1.0], [0.0]], dtype=torch.float64)), ("a",), (2,)),
    )
    return Graph(nodes, "x", "y", (2,))


def test_absolute_values_are_a_program_too():
    from saddlepoint.bound.lp import Region
    from saddlepoint.bound.program import build

    span = np.array([-0.4]), np.array([0.6])
    limits = {"x": (np.zeros(2), np.ones(2)), "z": span, "a": (np.zeros(1), np.array([0.6])), "y": (np.zeros(2),) * 2}
    region = Region(np.array([0.2, 0.1]), np.array([0.7, 0.6]))
    built = build(Maps(absolute()), region, limits, exact=True)
    for sign, truth in ((1.0, 0.0), (-1.0, -0.6)):
        aim = built.objective(np.array([sign, 0.0]))
        assert Solver(built.program).minimize(aim.cost).bound == pytest.approx(truth, abs=1e-7)


@settings(max_examples=40)
@given(seed=SEEDS)
def test_any_multipliers_give_a_true_bound_and_the_best_ones_the_optimum(seed):
    draw = np.random.default_rng(seed)
    n, m = 5, 4
    a = draw.normal(size=(m, n)) * (draw.random((m, n)) < 0.7)
    inside = draw.random(n)
    low, high = a @ inside - draw.random(m), a @ inside + draw.random(m)
    high[0] = np.inf
    program = Program(sparse.csr_matrix(a), low, high, np.zeros(n), np.ones(n), np.zeros(n, dtype=bool))
    c = draw.normal(size=n)
    rows = np.vstack([-a, a[1:]]), np.concatenate([-low, high[1:]])
    truth = linprog(c, A_ub=rows[0], b_ub=rows[1], bounds=[(0, 1)] * n).fun
    found = Solver(program).minimize(c)
    assert found.multipliers is not None
    best = safe_bound(program, c, found.multipliers)
    assert best <= truth + 1e-12
    assert best == pytest.approx(truth, abs=1e-7)
    for wild in (draw.normal(size=m) * 3, np.array([np.nan, np.inf, 1.0, -1.0]), np.zeros(m)):
        assert safe_bound(program, c, wild) <= truth + 1e-12


def test_the_proof_holds_the_multipliers_from_which_the_bound_follows():
    graph, x = deep(1)
    C, set = PAIR.expand(2, -1, -1), Linf("0.2", UNIT)
    found = LP()(graph, set, x, C)
    ground = Ground.of(graph, set, x, enclose=False)
    for i in range(2):
        built = ground.program(i, exact=False)
        assert built is not None
        aim = built.objective(C[i, 0].numpy())
        y = found.proof.tensors["dual"][i, 0].numpy()[: len(built.program.row_lower)]
        again = safe_bound(built.program, aim.cost, y) + aim.constant - aim.slack
        assert again == pytest.approx(float(found.lower[i, 0]), abs=1e-12)
        low = found.proof.tensors["low/h0"][i].numpy()
        assert np.array_equal(low, built.limits["z0"][0])
    assert len(found.proof.rows(torch.tensor([1])).tensors["dual"]) == 1


def test_bounds_are_there_at_any_moment():
    graph, x = deep(2)
    late = LP(seconds=0.0)(graph, Linf("0.2", UNIT), x, PAIR.expand(2, -1, -1))
    assert bool((late.lower == -torch.inf).all())
    stopped = MILP(seconds=0.0).solve(graph, Linf("0.2", UNIT), x, PAIR.expand(2, -1, -1))
    assert bool((stopped.lower == -torch.inf).all())
    assert bool((stopped.value == torch.inf).all())
    early = MILP(stop_below=1e9).solve(graph, Linf("0.4", UNIT), x, PAIR.expand(2, -1, -1))
    exact = MILP().solve(graph, Linf("0.4", UNIT), x, PAIR.expand(2, -1, -1))
    assert bool((early.lower <= exact.value).all())


def test_weights_that_are_not_finite_certify_nothing():
    weight = torch.tensor([[torch.nan, 1.0], [1.0, 1.0]], dtype=torch.float64)
    graph = nets.affine(weight, torch.zeros(2, dtype=torch.float64))
    x = torch.full((1, 2), 0.5, dtype=torch.float64)
    assert float(LP()(graph, Linf("0.1", UNIT), x, PAIR).lower) == -torch.inf
    assert float(MILP()(graph, Linf("0.1", UNIT), x, PAIR).lower) == -torch.inf


def test_solving_writes_nothing(capfd):
    graph, x = deep(0)
    LP()(graph, Linf("0.1", UNIT), x, PAIR.expand(2, -1, -1))
    assert capfd.readouterr() == ("", "")
    os.write(1, b"still there")
    assert capfd.readouterr().out == "still there"


def digits_net(widths: tuple[int, ...]) -> nn.Module:
    """A network on digits, trained for a second."""
    data = load_data("digits:train").take(list(range(1000)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = (64, *widths)
        layers = [layer for n, m in zip(sizes, widths, strict=False) for layer in (nn.Linear(n, m), nn.ReLU())]
        net = nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], 10))
        optimiser = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(60):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(data.x), data.y).backward()
            optimiser.step()
    return net.eval()


@pytest.mark.parametrize("widths", [(20,), (16, 16), (64,)])
def test_digits_networks_are_decided_exactly(widths):
    """A hidden layer of 64 and two of 16: the program's minimum is attained, to 1e-6, by a point of the set."""
    net, data = digits_net(widths), load_data("digits:test").take(list(range(2)))
    graph, set = capture(net, data.x), Linf("0.06", UNIT)
    C = margin_matrix(data.y, 10)[:, :4]
    exact = MILP().solve(graph, set, data.x, C)
    assert bool(exact.closed.all())
    assert bool((exact.value - exact.lower <= 1e-6 * (1 + exact.value.abs())).all())
    triangle = LP()(graph, set, data.x, C).lower.double()
    assert bool((triangle <= exact.value + 1e-6).all())
    assert bool(set.contains(data.x.double().repeat_interleave(4, 0), exact.witness.flatten(0, 1)).all())
