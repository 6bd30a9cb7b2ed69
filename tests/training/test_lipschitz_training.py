"""1-Lipschitz networks: layers that never stretch, a bound that sees it, and margins that mean what they say."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import saddlepoint as sp
from saddlepoint.adapters.architectures.lipschitz import GroupSort, OrthogonalConv2d, OrthogonalLinear, cayley
from saddlepoint.adapters.architectures.registry import build
from saddlepoint.adapters.snapshot import normaliser
from saddlepoint.bound import Lipschitz
from saddlepoint.bound.lipschitz import _patches, margin_constants
from saddlepoint.bound.sorting import SortedPairs, join_sorted_pairs
from saddlepoint.core.errors import InputError, UnsupportedModel
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data import load
from saddlepoint.graph.capture import capture
from saddlepoint.training import LipschitzMargin, Trainer, fresh, train, worst_points
from saddlepoint.training.adversarial import Search, cross_entropy


@pytest.fixture(scope="module")
def digits():
    return load("digits:test").take(range(40))


@pytest.fixture(scope="module")
def trained():
    start = fresh(build("lipschitz-s", (1, 8, 8), 10))
    return train(start, load("digits:train"), LipschitzMargin(sp.L2("0.3")), Trainer(epochs=6, rate=5e-3)).net.eval()


def _matrix(layer: nn.Module, *shape: int) -> torch.Tensor:
    """A linear map written out."""
    size = math.prod(shape)
    eye = torch.eye(size, dtype=torch.float64).view(size, *shape)
    return (layer(eye) - layer(torch.zeros_like(eye))).detach().flatten(1)


@given(rows=st.integers(1, 9), columns=st.integers(1, 9), scale=st.floats(0.0, 100.0), seed=st.integers(0, 99))
def test_every_matrix_becomes_orthogonal(rows: int, columns: int, scale: float, seed: int) -> None:
    w = scale * torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    q = cayley(w)
    short = q @ q.t() if rows <= columns else q.t() @ q
    assert torch.allclose(short, torch.eye(min(rows, columns), dtype=torch.float64), atol=1e-9)


def test_the_layers_have_singular_values_of_one_and_never_above() -> None:
    for layer, shape, isometric in (
        (OrthogonalLinear(12, 5), (12,), True),
        (OrthogonalLinear(5, 12), (5,), True),
        (OrthogonalConv2d(2, 12, 2, 2), (2, 6, 6), True),  # windows side by side: the patches are the image
        (OrthogonalConv2d(1, 16, 4, 2), (1, 8, 8), False),
        (OrthogonalConv2d(2, 5, 3, 1, 1), (2, 6, 6), False),
    ):
        values = torch.linalg.svdvals(_matrix(fresh(layer, 3).double(), *shape))
        assert float(values.amax()) <= 1 + 1e-9
        if isometric:
            assert torch.allclose(values, torch.ones_like(values), atol=1e-9)


def test_where_every_pixel_lies_in_as_many_patches_the_convolution_is_an_isometry() -> None:
    x = torch.zeros(1, 1, 12, 12, dtype=torch.float64)
    x[..., 4:8, 4:8] = torch.rand(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    layer = fresh(OrthogonalConv2d(1, 16, 4, 2)).double()
    assert float((layer(x) - layer(0 * x)).detach().norm()) == pytest.approx(float(x.norm()))


def test_group_sort_permutes() -> None:
    x = torch.randn(3, 6, 2, 2, generator=torch.Generator().manual_seed(2))
    y = GroupSort()(x)
    assert torch.equal(y.flatten(1).sort().values, x.flatten(1).sort().values)
    assert bool((y[:, :3] >= y[:, 3:]).all())
    with pytest.raises(InputError, match="5 channels"):
        GroupSort()(x[:, :5])


def test_the_bound_reads_sorted_pairs_as_one_operator_of_constant_one(digits) -> None:
    net = fresh(build("lipschitz-s", (1, 8, 8), 10)).eval()
    graph = capture(net, digits.x[:2])
    joined = join_sorted_pairs(graph)
    assert sum(isinstance(node.op, SortedPairs) for node in joined.nodes) == 3
    assert torch.allclose(joined(digits.x), graph(digits.x))
    rows = torch.eye(10, dtype=torch.float64)[0] - torch.eye(10, dtype=torch.float64)[1:]
    constants = margin_constants(graph.to(torch.float64), rows[None])[0, :, 1]
    # ‖e_y − e_j‖ through orthonormal rows is √2, and every layer before them has a bound of at most 1
    assert bool((constants <= math.sqrt(2) * (1 + 1e-5)).all())
    assert bool((constants >= math.sqrt(2) * 0.5).all())


def test_convolutions_are_bounded_by_their_windows_where_that_is_exact() -> None:
    for stride, dilation, kernel in ((2, 1, 2), (3, 1, 2), (2, 1, 4), (2, 2, 3), (1, 1, 3)):
        conv = nn.Conv2d(2, 4, kernel, stride, dilation=dilation, bias=False).double()
        size = dilation * (kernel - 1) + 1 + 2 * stride
        true = float(torch.linalg.matrix_norm(_matrix(conv, 2, size, size), 2))
        graph = capture(conv.eval(), torch.zeros(2, 2, size, size, dtype=torch.float64))
        bound = _patches(graph.nodes[0].op)
        assert bound >= true
        if stride >= kernel:
            assert bound == pytest.approx(true, rel=0.02)  # Gram iteration: rank^(1/128)


def test_trap_overlapping_or_foreign_halves_are_no_sorted_pairs() -> None:
    class Wrong(nn.Module):
        def __init__(self, other: bool) -> None:
            super().__init__()
            self.other = other

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = x[:, :4]
            b = 2 * x[:, 4:] if self.other else x[:, 3:7]
            return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], 1)

    for other in (False, True):
        graph = capture(Wrong(other).eval(), torch.zeros(2, 8))
        assert join_sorted_pairs(graph) is graph


def test_certified_radii_are_margins_over_root_two_and_no_attack_gets_inside(trained, digits) -> None:
    x, y = digits.x, digits.y
    z = trained(x).detach()
    margins = z.gather(1, y[:, None])[:, 0] - z.scatter(1, y[:, None], -torch.inf).amax(1)
    radius = margins / math.sqrt(2)
    for size in (0.1, 0.3):
        ball = sp.L2(str(size))
        bounds = Lipschitz()(capture(trained, x[:2]), ball, x, _margins(y))
        certified = (bounds.lower > 0).all(1)
        assert torch.equal(certified, radius > size) or int((certified != (radius > size)).sum()) <= 1
        draws = Draws(row_keys(0, digits.ids, "test"))
        worst = worst_points(trained, Search(ball, 20), x, y, draws)
        assert bool((trained(worst).argmax(1) == y)[certified].all())
    assert int(certified.sum()) >= 20  # the test is about something


def _margins(y: torch.Tensor) -> torch.Tensor:
    """(b, 9, 10) rows e_y − e_j."""
    eye = torch.eye(10)
    return torch.stack([eye[c] - eye[[j for j in range(10) if j != c]] for c in y.tolist()])


def test_the_loss_bounds_the_worst_cross_entropy_in_the_ball(trained, digits) -> None:
    ball, x, y = sp.L2("0.3"), digits.x, digits.y
    draws = Draws(row_keys(0, digits.ids, "test"))
    worst = worst_points(trained, Search(ball, 20), x, y, draws)
    attacked = cross_entropy(10.0 * trained(worst), y).mean() / 10.0
    assert float(LipschitzMargin(ball, 10.0)(trained, x, y, draws).detach()) >= float(attacked.detach())
    plain = LipschitzMargin(sp.L2("0"), 10.0)(trained, x, y, draws)
    assert torch.allclose(plain, functional.cross_entropy(10.0 * trained(x), y) / 10.0)


def test_layers_that_may_stretch_are_refused(digits) -> None:
    draws = Draws(row_keys(0, digits.ids, "test"))
    with pytest.raises(UnsupportedModel, match=r"0 .Conv2d.*lipschitz-s"):
        LipschitzMargin(sp.L2("0.3"))(build("cnn-s", (1, 8, 8), 10), digits.x, digits.y, draws)
    with pytest.raises(InputError):
        LipschitzMargin(sp.L2("0.3"), temperature=0.0)
    with pytest.raises(InputError, match="certify no linf set"):
        LipschitzMargin(sp.Linf("0.3"))


def test_a_normalisation_in_front_widens_the_margin_by_what_it_stretches(digits) -> None:
    net = fresh(build("lipschitz-s", (1, 8, 8), 10)).eval()
    x, y, draws = digits.x, digits.y, Draws(row_keys(0, digits.ids, "test"))
    front = normaliser(0.1, 0.2, (1, 8, 8))
    behind = LipschitzMargin(sp.L2("0.1"))(nn.Sequential(front, net), x, y, draws)
    assert torch.allclose(behind, LipschitzMargin(sp.L2("0.5"))(net, front(x), y, draws))

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("factor", torch.tensor(3.0))

    with pytest.raises(UnsupportedModel, match="Scaled"):
        LipschitzMargin(sp.L2("0.1"))(nn.Sequential(Scaled(), net), x, y, draws)
