"""Directed rounding and exact comparison, judged by rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from geometry_cases import draws, generator
from hypothesis import example, given
from hypothesis import strategies as st

from saddlepoint.geometry import Box, Linf, snap

numbers = st.floats(-1e6, 1e6).map(lambda v: v + 0.0)
small = st.floats(-1e-12, 1e-12)
singles = st.floats(-2, 2, width=32)


def t(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


@given(a=numbers | small, b=numbers | small)
def test_two_sum_loses_nothing(a, b):
    s, e = snap.two_sum(t(a), t(b))
    assert Fraction(s.item()) + Fraction(e.item()) == Fraction(a) + Fraction(b)


@given(a=numbers | small, b=numbers | small)
def test_sums_are_rounded_to_their_side(a, b):
    exact = Fraction(a) + Fraction(b)
    low, high = snap.add_down(t(a), t(b)).item(), snap.add_up(t(a), t(b)).item()
    assert Fraction(low) <= exact <= Fraction(high)
    assert high <= math.nextafter(low, math.inf)


@given(v=numbers | small)
def test_conversions_are_rounded_to_their_side(v):
    low, high = snap.round_down(t(v), torch.float32), snap.round_up(t(v), torch.float32)
    assert low.double() <= v <= high.double()
    assert (torch.nextafter(low, high) >= high).all()


@given(x=singles, d=st.floats(-1, 1) | small)
@example(x=0.5, d=0.0)
def test_toward_never_goes_past(x, d):
    for dtype in (torch.float32, torch.float64):
        z = snap.toward(t(x, dtype=dtype)[None], t(d)[None])[0, 0].item()
        low, high = sorted((Fraction(x), Fraction(x) + Fraction(d)))
        assert low <= Fraction(z) <= high
        ulp = math.ulp(z) if dtype == torch.float64 else torch.finfo(torch.float32).eps * max(abs(z), 1e-37)
        assert abs(Fraction(z) - Fraction(x) - Fraction(d)) <= 2 * ulp


@given(x=singles, size=st.fractions(0, 1, max_denominator=255))
def test_linf_limits_are_the_outermost_floats(x, size):
    """Inward: inside, and the next float is outside. Outward: encloses, by one float at most."""
    x0 = t(x, dtype=torch.float32)[None]
    (low, high), (under, over) = Linf(size).hull(x0, rounding="in"), Linf(size).hull(x0)
    exact = Fraction(x) - size, Fraction(x) + size
    assert exact[0] <= Fraction(low.item())
    assert Fraction(high.item()) <= exact[1]
    infinite = torch.full_like(high, torch.inf)
    assert Fraction(torch.nextafter(high, infinite).item()) > exact[1]
    assert Fraction(torch.nextafter(low, -infinite).item()) < exact[0]
    assert Fraction(under.item()) <= exact[0]
    assert exact[1] <= Fraction(over.item())
    assert over <= torch.nextafter(high, infinite)
    assert under >= torch.nextafter(low, -infinite)


@given(
    x=singles,
    size=st.sampled_from([Fraction(8, 255), Fraction(1, 10), Fraction(1, 3), Fraction(1, 4)]),
    ulps=st.integers(-2, 2),
    sign=st.sampled_from([-1.0, 1.0]),
)
def test_linf_membership_is_the_rational_comparison(x, size, ulps, sign):
    """Around the boundary, in float64, contains answers |x' − x₀| ≤ ε as rationals do."""
    point = x + sign * float(size)
    for _ in range(abs(ulps)):
        point = math.nextafter(point, math.copysign(math.inf, ulps))
    want = abs(Fraction(point) - Fraction(x)) <= size
    assert Linf(size).contains(t(x)[None], t(point)[None]).item() is want


@given(fraction=st.integers(-3, 3))
def test_membership_where_the_difference_is_no_float64(fraction):
    """x₀ = −2⁻⁷⁰·k makes x − x₀ need more than 53 bits; the rational decides."""
    tiny = fraction * 2.0**-70
    want = Fraction(0.25) - Fraction(tiny) <= Fraction(1, 4)
    assert Linf("1/4").contains(t(tiny)[None], t(0.25)[None]).item() is want


def test_box_limits_in_float32_lie_inside():
    box = Box(0.1, 0.7)
    lower, upper = box.limits(torch.zeros(1, 1))
    assert Fraction(lower.item()) >= Fraction(0.1)
    assert Fraction(upper.item()) <= Fraction(0.7)
    x0 = torch.full((4, 6), 0.65)
    z = Linf(0.3, box).sample(x0, draws(0))
    assert box.contains(x0, z).all()
    out = box.limits(torch.zeros(1, 1), "out")
    assert out.lower < lower
    assert out.upper > upper


def test_support_up_bounds_the_rational_maximum():
    """max over a float64 box, summed in rationals, never exceeds the inflated float."""
    g = generator(3)
    x0 = torch.rand(1, 200, generator=g, dtype=torch.float64)
    for seed in range(20):
        a = torch.randn(1, 1, 200, generator=generator(seed), dtype=torch.float64) * 10 ** (seed % 7 - 3)
        size, total = Fraction(8, 255), Fraction(0)
        for w, x in zip(a[0, 0].tolist(), x0[0].tolist(), strict=True):
            edge = min(Fraction(x) + size, Fraction(1)) if w > 0 else max(Fraction(x) - size, Fraction(0))
            total += Fraction(w) * edge
        up = Fraction(Linf(size, Box(0, 1)).support(x0, a, rounding="up").item())
        assert total <= up
        assert up - total <= Fraction(1, 10**9) * Fraction(a.abs().sum().item())
