"""The traps of the field that live in geometry, as named tests."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from geometry_cases import generator
from sklearn.datasets import load_digits

from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.geometry import L1, L2, Box, Linf

UNIT = Box(0, 1)


def keys(n):
    return Draws(row_keys(0, [str(i) for i in range(n)], "trap"))


def exact_linf(x0, z):
    """max |z − x₀| as a rational number."""
    return max(abs(Fraction(a) - Fraction(b)) for a, b in zip(z.flatten().tolist(), x0.flatten().tolist(), strict=True))


@pytest.mark.parametrize("size", ["8/255", "1/10", "3/10", "1/255"])
def test_trap_02_float_overshoot(size):
    """Peers' (x + ε).clamp(0, 1) leaves the ball on every image; none of ours does, judged in exact arithmetic."""
    x0 = torch.rand(64, 3, 32, 32, generator=generator(0))
    s, g = Linf(size, UNIT), torch.randn(64, 3, 32, 32, generator=generator(1))
    eps = float(Fraction(size))
    naive = torch.clamp(torch.clamp(x0 + eps * g.sign(), x0 - eps, x0 + eps), 0, 1)
    assert not s.contains(x0, naive).any()  # the trap is real
    ours = [s.project(x0, naive), s.lmo(x0, g), s.sample(x0, keys(64))]
    lower, upper = s.hull(x0, rounding="in")
    ours += [lower, upper, torch.clamp(naive, lower, upper)]
    for z in ours:
        assert s.contains(x0, z, slack=0).all()
        assert exact_linf(x0[:2], z[:2]) <= Fraction(size)
    # and nothing is given away: one float further out is outside, unless a wall is there
    beyond = torch.nextafter(upper, torch.full_like(upper, 2.0))
    assert ((beyond.double() - x0.double() > eps) | (upper == 1)).all()
    for ball in (L2("1/2", UNIT), L1("10", UNIT)):
        for z in (ball.project(x0, x0 + g), ball.lmo(x0, g), ball.sample(x0, keys(64))):
            assert ball.contains(x0, z, slack=0).all()


def test_trap_02_the_sum_of_exact_squares_stays_within_the_size():
    x0 = torch.rand(3, 40, generator=generator(4))
    g = torch.randn(3, 40, generator=generator(5))
    for s, power, limit in ((L2("1/2", UNIT), 2, Fraction(1, 4)), (L1("1/3", UNIT), 1, Fraction(1, 3))):
        for z in (s.project(x0, x0 + g), s.lmo(x0, g)):
            for a, b in zip(z.tolist(), x0.tolist(), strict=True):
                total = sum(abs(Fraction(p) - Fraction(q)) ** power for p, q in zip(a, b, strict=True))
                assert limit * Fraction(99999, 100000) < total <= limit


def test_trap_14_projection_is_around_the_original():
    """Many small steps never leave the ball of x₀, in each of which a peer re-centred on the previous iterate."""
    x0 = torch.rand(8, 3, 6, 6, generator=generator(2))
    step = torch.randn(8, 3, 6, 6, generator=generator(3))
    for s in (Linf("8/255", UNIT), L2("1/2", UNIT), L1(2, UNIT)):
        x = x0
        for _ in range(30):
            x = s.project(x0, x + 0.05 * step)
            assert s.contains(x0, x, slack=0).all()
            assert ((x >= 0) & (x <= 1)).all()
        assert (s.gauge(x0, x) >= 0.99 * float(s.size)).all() or isinstance(s, L1)


def test_trap_15_random_start_is_uniform_in_the_l2_ball():
    """P(‖δ‖ ≤ r ε) = r^d. Peers draw the radius itself uniformly and so start near the centre."""
    n, d = 4000, 6
    x0 = torch.full((n, d), 0.5, dtype=torch.float64)
    z = L2("1/10", UNIT).sample(x0, keys(n))
    radius = (z - x0).square().sum(-1).sqrt() / 0.1
    for r in (0.5, 0.7, 0.8, 0.9, 0.95):
        share, want = (radius <= r).double().mean().item(), r**d
        assert abs(share - want) < 4 * (want * (1 - want) / n) ** 0.5 + 1e-9
    # every direction alike: the mean is 0 within its error, the covariance a multiple of the identity
    u = (z - x0) / 0.1
    assert (u.mean(0).abs() < 5 * u.std() / n**0.5).all()
    covariance = u.T @ u / n
    torch.testing.assert_close(covariance, torch.eye(d, dtype=torch.float64) / (d + 2), atol=0.012, rtol=0)


def test_trap_15_random_starts_lie_in_ball_and_box():
    x0 = torch.rand(200, 3, 8, 8, generator=generator(6)).round()  # every pixel on a wall
    for s in (Linf("8/255", UNIT), L2(1, UNIT), L1(5, UNIT)):
        z = s.sample(x0, keys(200))
        assert s.contains(x0, z, slack=0).all()
        assert (z != x0).flatten(1).any(-1).all()


def test_trap_15_l1_sample_is_uniform_in_the_l1_ball():
    """P(‖δ‖₁ ≤ r ε) = r^d, and every coordinate has one share."""
    n, d = 4000, 5
    x0 = torch.full((n, d), 0.5, dtype=torch.float64)
    z = L1("2/5", UNIT).sample(x0, keys(n))
    size = (z - x0).abs().sum(-1) / 0.4
    for r in (0.5, 0.7, 0.9):
        share, want = (size <= r).double().mean().item(), r**d
        assert abs(share - want) < 4 * (want * (1 - want) / n) ** 0.5 + 1e-9
    torch.testing.assert_close(
        (z - x0).abs().mean(0) / 0.4, torch.full((d,), 1 / (d + 1), dtype=torch.float64), atol=0.012, rtol=0
    )


def test_trap_16_l1_projection_is_not_a_radial_rescale():
    x0 = torch.tensor([[0.5, 0.5, 0.5, 0.9]], dtype=torch.float64)
    x = x0 + torch.tensor([[0.4, -0.3, 0.05, 0.3]], dtype=torch.float64)
    s = L1("1/2", UNIT)
    z = s.project(x0, x)
    # by hand: the wall takes 0.1 of the last coordinate; μ = 0.15 leaves .25 + .15 + 0 + .1 = .5
    want = x0 + torch.tensor([[0.25, -0.15, 0.0, 0.1]], dtype=torch.float64)
    torch.testing.assert_close(z, want, atol=1e-12, rtol=0)
    radial = torch.clamp(x0 + (x - x0) * 0.5 / (x - x0).abs().sum(), 0, 1)
    assert (z - x).norm() < (radial - x).norm() - 1e-3


def test_trap_16_the_row_on_which_a_peer_leaves_the_ball():
    """A published ℓ1 ∩ box projection returns ‖z‖₁ = .485 > ε = .206 for points like this one."""
    x0 = torch.tensor([[0.022, 0.169, 0.294]]).expand(600, 3)
    scale = torch.tensor([1.0, 10.0, 100.0]).repeat(200)[:, None]
    x = x0 + scale * torch.randn(600, 3, generator=generator(0))
    s = L1("0.206", UNIT)
    z = s.project(x0, x)
    assert s.contains(x0, z, slack=0).all()
    assert ((z.double() - x0.double()).abs().sum(-1) > 0.206 * (1 - 1e-5)).any()


def test_interior_points_stay_where_they_are():
    """A peer clamps the tensor instead of the factor and moves (.3, .4) at ε = 1 to the sphere."""
    x0 = torch.zeros(1, 2)
    x = torch.tensor([[0.3, 0.4]])
    assert torch.equal(L2(1).project(x0, x), x)
    far = L2(100).project(x0, torch.tensor([[-30.0, -40.0]]))
    assert torch.equal(far, torch.tensor([[-30.0, -40.0]]))
    torch.testing.assert_close(L2(1).project(x0, torch.tensor([[-30.0, -40.0]])), torch.tensor([[-0.6, -0.8]]))


def test_support_is_zero_at_the_wall_where_there_is_no_room():
    """Peers' ℓ2 and ℓ1 concretisation ignores the walls; at a corner no coordinate can follow its weight."""
    x0 = torch.ones(1, 5, dtype=torch.float64)
    a = torch.rand(1, 1, 5, dtype=torch.float64) + 0.1
    for s in (Linf(0.3, UNIT), L2(0.3, UNIT), L1(0.3, UNIT)):
        torch.testing.assert_close(s.support(x0, a), a.sum(-1), atol=1e-12, rtol=0)


def test_real_images_stay_strictly_inside():
    x0 = torch.from_numpy(load_digits().images).float()[:256, None] / 16
    g = torch.randn(x0.shape, generator=generator(9))
    for s in (Linf("3/10", UNIT), L2("3/2", UNIT), L1(5, UNIT)):
        for z in (s.project(x0, x0 + g), s.lmo(x0, g), s.sample(x0, keys(256))):
            assert s.contains(x0, z, slack=0).all()
