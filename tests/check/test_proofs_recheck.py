"""The checker of interval and CROWN proofs: sound by itself, whatever the proof says."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import bounded_nets as nets
from saddlepoint.bound.crown import CROWN
from saddlepoint.bound.interval import Interval
from saddlepoint.check.proofs import recheck
from saddlepoint.core.errors import InputError, InputOutsideDomain, NotAvailable, UnsupportedOperator
from saddlepoint.geometry import L2, Linf
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import Relu

SEEDS = st.integers(0, 2**20)


def identity(count: int, classes: int) -> Tensor:
    return torch.eye(classes, dtype=torch.float64).expand(count, -1, -1)


def prove(graph, set, x, method=CROWN(stop_above=None)):  # noqa: B008  # frozen
    C = identity(len(x), graph.output_shape[0]).to(x)
    found = method(graph, set, x, C)
    return found, recheck(graph, set.canonical(), x, C, found.proof.tensors, method.name)


@pytest.mark.parametrize("name", ["residual", "maxpool", "relu6"])
@pytest.mark.parametrize("kind", ["linf", "l2", "l1", "l0"])
@pytest.mark.parametrize(
    "method",
    [Interval(), *(CROWN(intermediate=i, stop_above=None) for i in ("interval", "forward", "backward"))],
    ids=lambda m: m.name,
)
def test_the_checker_confirms_claims_and_stays_below_all_points(name, kind, method):
    graph, x = nets.zoo(name)
    x, set = (
        x[:4],
        nets.SETS[kind] if kind == "l0" else nets.SETS[kind].resized({"linf": 0.05, "l2": 0.3, "l1": 0.8}[kind]),
    )
    found, checked = prove(graph, set, x, method)
    scale = found.lower.abs().max()
    # where many members of a pooling window tie, float32 and float64 may single out different ones
    tolerance = 1e-2 if (name, kind) == ("maxpool", "l0") else 1e-5
    assert torch.allclose(checked, found.lower.double(), atol=tolerance * float(scale))
    inside = nets.points(set, x, 80, 5)
    z = graph.to(torch.float64)(inside.flatten(0, 1).double()).view(len(x), 80, 3)
    assert bool((checked[:, None] <= z).all())  # float64 against the real network: no tolerance needed


@settings(max_examples=15)
@given(seed=SEEDS, kind=st.sampled_from(["linf", "l2", "l1", "l0"]))
def test_dense_networks_in_every_set(seed, kind):
    graph = nets.mlp((5, 9, 7, 3), seed)
    x = torch.rand(2, 5, generator=nets.seeded(seed + 1), dtype=torch.float64)
    set = nets.SETS[kind]
    found, checked = prove(graph, set, x)
    assert torch.allclose(checked, found.lower, rtol=1e-6, atol=1e-6)
    inside = nets.points(set, x, 50, seed)
    z = graph(inside.flatten(0, 1)).view(2, 50, 3)
    assert bool((checked[:, None] <= z + 1e-12).all())


def rational_minimum(weight: Tensor, bias: Tensor, x: Tensor, c: Tensor, size: Fraction) -> Fraction:
    """min of ⟨c, W z + b⟩ over |z − x| ≤ size, z in [0, 1], without any rounding."""

    def q(t: Tensor) -> list:
        return [q(v) for v in t] if t.ndim else Fraction(float(t))

    rows, b, point, coefficients = q(weight), q(bias), q(x), q(c)
    total = sum((k * v for k, v in zip(coefficients, b, strict=True)), Fraction(0))
    for j, centre in enumerate(point):
        a = sum((k * row[j] for k, row in zip(coefficients, rows, strict=True)), Fraction(0))
        low, high = max(centre - size, Fraction(0)), min(centre + size, Fraction(1))
        total += min(a * low, a * high)
    return total


@given(
    seed=SEEDS,
    power=st.sampled_from([0, 12, 25, -12, -25, -38]),
    mixed=st.booleans(),
    size=st.sampled_from(["8/255", "1/10", "0", "1/3"]),
)
def test_affine_bounds_lie_below_the_rational_minimum(seed, power, mixed, size):
    draw = nets.seeded(seed)
    scale = 10.0**power
    weight = torch.randn(2, 6, generator=draw) * scale
    if mixed:  # huge and tiny weights side by side
        weight[:, ::2] /= scale
    bias = torch.randn(2, generator=draw) * scale
    x = torch.rand(1, 6, generator=draw)
    c = torch.tensor([1.0, -1.0])
    # put the true margin within about 1e-9 of zero: cancellation is where rounding flips a verdict
    gap = rational_minimum(weight, bias, x[0], c, Fraction(size)) - Fraction(scale) / 10**9
    bias = bias.double()
    bias[0] -= float(gap)
    graph = nets.affine(weight.double(), bias)
    truth = rational_minimum(weight, bias, x[0], c, Fraction(size))
    set, C = Linf(size, nets.UNIT), c.view(1, 1, 2).double()
    for method in (Interval(), CROWN()):
        found = method(graph, set, x.double(), C)
        checked = recheck(graph, set.canonical(), x, C, found.proof.tensors, method.name)
        value = Fraction(float(checked))
        assert value <= truth
        assert truth - value <= Fraction(scale + 1) / 10**12  # and it is not thrown away


@pytest.mark.parametrize("seed", range(4))
def test_hidden_layer_bounds_lie_below_the_exact_minimum(seed):
    graph = nets.mlp((3, 6, 2), seed)
    x = torch.rand(1, 3, generator=nets.seeded(seed), dtype=torch.float64)
    set, C = Linf("0.2", nets.UNIT), torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
    hull = set.hull(x)
    truth = nets.exact_minimum(graph, hull.lower[0], hull.upper[0], C[0, 0])
    found = CROWN(stop_above=None)(graph, set, x, C)
    draw = nets.seeded(seed)
    for _ in range(20):  # any slopes at all are sound
        any_slopes = {n: torch.rand(t.shape, generator=draw) for n, t in found.proof.tensors.items()}
        any_slopes["refined"] = found.proof.tensors["refined"]
        assert float(recheck(graph, set.canonical(), x, C, any_slopes, "crown")) <= truth + 1e-9


@pytest.mark.parametrize("name", ["residual", "maxpool", "relu6"])
def test_tampered_slopes_are_clipped(name):
    graph, x = nets.zoo(name)
    x, set = x[:2], Linf(0.05, nets.UNIT)
    C = identity(len(x), 3)
    found, _ = prove(graph, set, x)
    inside = nets.points(set, x, 60, 2)
    z = graph.to(torch.float64)(inside.flatten(0, 1).double()).view(len(x), 60, 3)
    draw = nets.seeded(1)
    for wild in (1e6, torch.nan, -torch.inf):
        tampered = dict(found.proof.tensors)
        for key, tensor in tampered.items():
            if key.startswith("lower/"):
                noise = torch.randn(tensor.shape, generator=draw) if wild == 1e6 else 1.0
                tampered[key] = torch.full(tensor.shape, wild) * noise
        clipped = {
            k: torch.nan_to_num(t.double(), nan=0.0).clamp(0, 1) if k.startswith("lower/") else t
            for k, t in tampered.items()
        }
        lower = recheck(graph, set.canonical(), x, C, tampered, "crown")
        assert torch.equal(lower, recheck(graph, set.canonical(), x, C, clipped, "crown"))
        assert bool((lower[:, None] <= z).all())


def test_proofs_that_do_not_fit_are_refused():
    graph, x = nets.zoo("residual")
    set, C = Linf(0.05, nets.UNIT), identity(8, 3)
    found, _ = prove(graph, set, x)
    tensors = found.proof.tensors
    for name, tensor in tensors.items():
        with pytest.raises(InputError, match="lacks"):
            recheck(graph, set.canonical(), x, C, {n: t for n, t in tensors.items() if n != name}, "crown")
        with pytest.raises(InputError, match="has shape"):
            recheck(graph, set.canonical(), x, C, tensors | {name: tensor[:4]}, "crown")
    with pytest.raises(NotAvailable, match="alpha"):
        recheck(graph, set.canonical(), x, C, tensors, "alpha-crown")
    with pytest.raises(InputError, match="C has shape"):
        recheck(graph, set.canonical(), x, C[:, :, :2], tensors, "crown")
    with pytest.raises(InputError, match="x0 has shape"):
        recheck(graph, set.canonical(), x[:, :1], C, tensors, "crown")
    with pytest.raises(InputOutsideDomain):
        recheck(graph, set.canonical(), x + 2, C, tensors, "crown")
    with pytest.raises(InputError, match="NaN"):
        recheck(graph, set.canonical(), x * torch.nan, C, tensors, "crown")
    with pytest.raises(NotAvailable, match="spatial"):
        recheck(graph, {"kind": "spatial", "box": None}, x, C, tensors, "crown")
    nodes = tuple(Node(n.name, nets.Unknown(), n.inputs, n.shape) if isinstance(n.op, Relu) else n for n in graph.nodes)
    odd = Graph(nodes, graph.input, graph.output, graph.input_shape)
    with pytest.raises(UnsupportedOperator, match="Unknown"):
        recheck(odd, set.canonical(), x, C, tensors, "crown")


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf, 1e308])
def test_broken_weights_certify_nothing(broken):
    graph = nets.mlp((4, 5, 5, 2), 3)
    x = torch.rand(3, 4, generator=nets.seeded(0), dtype=torch.float64)
    C = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64).expand(3, -1, -1)
    set = Linf(0.1, nets.UNIT)
    proof = CROWN(stop_above=None)(graph, set, x, C).proof.tensors
    for index, node in enumerate(graph.nodes):
        for field, tensor in node.op.tensors().items():
            worse = tensor.clone()
            worse.view(-1)[0] = broken
            nodes = list(graph.nodes)
            op = type(node.op)(**{**node.op.__dict__, field: worse})
            nodes[index] = Node(node.name, op, node.inputs, node.shape)
            hurt = Graph(tuple(nodes), graph.input, graph.output, graph.input_shape)
            z = hurt(x)
            margin = z[:, :1] - z[:, 1:]  # a NaN satisfies no comparison, so there the bound has to be −∞
            for method in ("interval", "crown-interval", "crown"):
                lower = recheck(hurt, set.canonical(), x, C, proof, method)
                assert bool((lower.isneginf() | (lower <= margin)).all())


def test_one_broken_sample_does_not_spoil_the_others():
    graph = nets.mlp((4, 6, 2), 5)
    x = torch.rand(3, 4, generator=nets.seeded(0), dtype=torch.float64)
    set = L2("1/10")
    _, alone = prove(graph, set, x[1:])
    far = x.clone()
    far[0] = 1e308
    _, together = prove(graph, set, far)
    assert bool(together[0].isneginf().all())
    assert torch.allclose(together[1:], alone, rtol=1e-12)


def test_chunks_do_not_change_the_answer():
    graph, x = nets.zoo("residual")
    x, set, C = x[:2], Linf(0.05, nets.UNIT), identity(2, 3)
    found, checked = prove(graph, set, x)
    small = recheck(graph, set.canonical(), x, C, found.proof.tensors, "crown", memory=1)
    assert torch.allclose(checked, small, rtol=1e-10)


def test_the_checker_runs_without_the_search():
    code = "import sys, saddlepoint.check.proofs; print(*[m for m in sys.modules if m.startswith('saddlepoint')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "saddlepoint.check.proofs" in loaded
    for room in ("bound", "attack", "geometry"):
        assert f"saddlepoint.{room}" not in loaded
