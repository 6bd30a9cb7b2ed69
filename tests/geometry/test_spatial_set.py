"""Rotation + translation: exact where pixels map to pixels, differentiable elsewhere, strict on its parameters."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from geometry_cases import draws, generator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from saddlepoint.core.errors import NonFinite, NotAvailable
from saddlepoint.geometry import Box, Linf, RotationTranslation, from_canonical

UNIT = Box(0, 1)
SPATIAL = RotationTranslation("30", "3", UNIT)


def images(*shape, dtype=torch.float32):
    return torch.rand(*shape, generator=generator(0), dtype=dtype)


def still(angle=0.0, dy=0.0, dx=0.0, rows=2, dtype=torch.float32):
    return torch.tensor([[angle, dy, dx]], dtype=dtype).expand(rows, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", [5, 8])
@pytest.mark.parametrize("quarters", [-4, -3, -2, -1, 0, 1, 2, 3, 4])
def test_quarter_turns_copy_pixels(side, quarters, dtype):
    x = images(2, 3, side, side, dtype=dtype)
    out = SPATIAL.render(x, still(90.0 * quarters, dtype=dtype))
    assert torch.equal(out, torch.rot90(x, quarters, (-2, -1)))


def test_half_turn_of_an_image_that_is_not_square():
    x = images(2, 1, 4, 7)
    assert torch.equal(SPATIAL.render(x, still(180.0)), torch.rot90(x, 2, (-2, -1)))


@settings(max_examples=25)
@given(dy=st.integers(-6, 6), dx=st.integers(-6, 6))
def test_whole_pixel_shifts_copy_pixels_and_let_zeros_in(dy, dx):
    x = images(2, 3, 5, 6)
    # the content moves down by dy and right by dx
    wide = functional.pad(x, (6, 6, 6, 6))
    want = wide[:, :, 6 - dy : 11 - dy, 6 - dx : 12 - dx]
    assert torch.equal(SPATIAL.render(x, still(0.0, float(dy), float(dx))), want)


def test_turn_first_then_shift():
    x = images(2, 1, 6, 6)
    turned = torch.rot90(x, 1, (-2, -1))
    want = functional.pad(turned, (0, 0, 2, 0))[:, :, :6]
    assert torch.equal(SPATIAL.render(x, still(90.0, 2.0, 0.0)), want)


@settings(max_examples=15)
@given(angle=st.floats(-180, 180), dy=st.floats(-3, 3), dx=st.floats(-3, 3))
def test_agrees_with_grid_sample(angle, dy, dx):
    """torch's own resampler, given the same positions, to rounding."""
    x = images(1, 2, 7, 9, dtype=torch.float64)
    theta = torch.deg2rad(torch.tensor(angle, dtype=torch.float64))
    r, c = torch.arange(7.0, dtype=torch.float64)[:, None] - 3 - dy, torch.arange(9.0, dtype=torch.float64) - 4 - dx
    row, column = c * theta.sin() + r * theta.cos(), c * theta.cos() - r * theta.sin()
    grid = torch.stack((column / 4, row / 3), -1)[None]  # in [-1, 1], align_corners
    want = functional.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    got = RotationTranslation(180, 3).render(x, still(angle, dy, dx, 1, torch.float64))
    torch.testing.assert_close(got, want, atol=1e-10, rtol=0)


def test_gradients_agree_with_finite_differences():
    x = images(2, 2, 6, 6, dtype=torch.float64).requires_grad_()
    params = torch.tensor([[13.3, 0.37, -1.21], [-71.2, 1.61, 0.27]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(RotationTranslation(180, 3).render, (x, params), eps=1e-7, atol=1e-6)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_parameters_stay_strictly_inside(seed, dtype):
    s = RotationTranslation("100/3", "1/3", UNIT)
    x0 = images(4, 1, 5, 5, dtype=dtype)
    wild = torch.randn(4, 3, generator=generator(seed), dtype=dtype) * 50
    points = (s.project(x0, wild), s.lmo(x0, wild), s.sample(x0, draws(seed)))
    for params in points:
        assert params.dtype == dtype
        assert s.contains(x0, params, slack=0).all()
        assert all(abs(Fraction(v)) <= Fraction(100, 3) for v in params[:, 0].tolist())
        image = s.render(x0, params)
        assert ((image >= 0) & (image <= 1)).all()
        assert (s.gauge(x0, params) <= 1 + 1e-9).all()
        assert s.resized(s.gauge(x0, params)).contains(x0, params).all()
    best = (wild.double() * s.lmo(x0, wild).double()).sum(-1)
    for params in points:
        assert ((wild.double() * params.double()).sum(-1) <= best).all()
    up = s.support(x0, wild[:, None], rounding="up")[:, 0]
    assert (up >= best).all()
    torch.testing.assert_close(s.support(x0, wild[:, None])[:, 0].double(), best, atol=1e-9, rtol=1e-6)
    outside = torch.nextafter(s.hull(x0, rounding="in").upper, torch.tensor(torch.inf, dtype=dtype))
    assert not s.contains(x0, outside).any()


def test_per_sample_sizes_scale_the_limits():
    s = SPATIAL.resized(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    x0 = images(3, 1, 5, 5)
    corner = s.lmo(x0, torch.ones(3, 3))
    torch.testing.assert_close(corner, torch.tensor([[0.0, 0, 0], [15, 1.5, 1.5], [30, 3, 3]]), atol=1e-5, rtol=0)
    assert s.contains(x0, corner).all()
    assert torch.equal(s.rows(torch.tensor([1])).lmo(x0[:1], torch.ones(1, 3)), corner[1:2])
    with pytest.raises(NotAvailable, match="rows"):
        s.params_grid()


def test_grid():
    grid = SPATIAL.params_grid(angles=31, shifts=5)
    assert grid.shape == (775, 3)
    assert len(torch.unique(grid, dim=0)) == 775
    assert (grid == 0).all(-1).any()
    assert torch.equal(grid.amax(0), torch.tensor([30.0, 3, 3]))
    assert torch.equal(-grid.amin(0), torch.tensor([30.0, 3, 3]))
    assert SPATIAL.contains(torch.zeros(775, 1, 2, 2), grid, slack=0).all()
    assert torch.equal(torch.unique(grid[:, 1]), torch.tensor([-3.0, -1.5, 0, 1.5, 3]))
    assert RotationTranslation(0, 2).params_grid(31, 5).shape == (25, 3)
    half = SPATIAL.resized("1/2").params_grid(3, 3)
    assert torch.equal(half.amax(0), torch.tensor([15.0, 1.5, 1.5]))


def test_canonical_round_trip_and_refusals():
    assert SPATIAL.canonical() == {
        "kind": "spatial",
        "rotation": "30",
        "shift": "3",
        "size": "1",
        "padding": "zeros",
        "box": {"kind": "box", "lower": [0.0], "upper": [1.0]},
    }
    assert from_canonical(SPATIAL.canonical()) == SPATIAL
    assert SPATIAL.parametric
    with pytest.raises(NonFinite):
        SPATIAL.project(images(2, 1, 4, 4), torch.full((2, 3), torch.nan))
    with pytest.raises(Exception, match="do not combine"):
        SPATIAL | Linf(0.1)
