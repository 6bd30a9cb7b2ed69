"""The checker's own support functions against the sets' own maps."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bounded_nets as nets
from saddlepoint.check.support import region
from saddlepoint.core.errors import InputOutsideDomain, NotAvailable
from saddlepoint.geometry import L0, L1, L2, Box, Linf, Mask, Patch

UNIT = Box(0, 1)
CHANNELS = Box((0.0, -0.5), (1.0, 0.5))
SETS = {
    "linf": Linf("8/255", UNIT),
    "linf free": Linf("1/10"),
    "l2": L2("1/2", UNIT),
    "l2 wide": L2(50, UNIT),
    "l2 free": L2("1/2"),
    "l1": L1("3/2", UNIT),
    "l1 wide": L1(900, UNIT),
    "l1 free": L1("3/2"),
    "l0": L0(5, UNIT),
    "box": UNIT,
    "patch": Patch(2, 3, box=UNIT),
    "patch placed": Patch(2, 3, at=(1, 2), box=UNIT),
    "mask": Mask(torch.rand(6, 6, generator=nets.seeded(1)) < 0.3, UNIT),
    "union": Linf("1/50", UNIT) | L2("1/4", UNIT),
}


@pytest.mark.parametrize("name", SETS)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**20), power=st.sampled_from([0, 0, 20, -20]), sparse=st.booleans())
def test_never_below_the_maximum_and_tight(name, seed, power, sparse):
    draw, set = nets.seeded(seed), SETS[name]
    x = torch.rand(4, 2, 6, 6, generator=draw).mul(1.3).sub(0.1).clamp(0, 1)
    a = torch.randn(4, 2, 6, 6, generator=draw, dtype=torch.float64) * 10.0**power
    if sparse:
        a *= torch.rand(a.shape, generator=draw) < 0.2
    found = region(set.canonical(), x).maximum(a)
    points = [set.sets[i].lmo(x, a) for i in (0, 1)] if name == "union" else [set.lmo(x, a)]
    for point in points:  # inside the set, so its exact value bounds the maximum from below
        for row in range(4):
            pairs = zip(a[row].flatten().tolist(), point[row].flatten().tolist(), strict=True)
            assert sum(Fraction(u) * Fraction(v) for u, v in pairs) <= Fraction(float(found[row]))
    exact = set.support(x, a.unsqueeze(1))[:, 0]
    scale = a.abs().flatten(1).sum(1)
    assert bool((found - exact <= 1e-6 * scale + 1e-300).all())


@pytest.mark.parametrize("name", SETS)
def test_the_enclosing_box_holds_the_set(name):
    x = torch.rand(4, 2, 6, 6, generator=nets.seeded(0))
    set = SETS[name]
    where, hull = region(set.canonical(), x), set.hull(x)
    assert bool((where.lower >= hull.lower.double() - 1e-6).all())
    assert bool((where.upper <= hull.upper.double() + 1e-6).all())
    for row in range(4):
        point = (set.sets[0] if name == "union" else set).lmo(x, torch.randn(x.shape, generator=nets.seeded(row)))
        assert bool(((where.lower <= point) & (point <= where.upper)).all())


def test_limits_per_channel_and_zero_coefficients():
    x = torch.rand(3, 2, 4, 4, generator=nets.seeded(0)) * 0.5
    for set in (Linf("1/4", CHANNELS), L2("1/2", CHANNELS), L1(2, CHANNELS), L0(3, CHANNELS)):
        a = torch.randn(3, 2, 4, 4, generator=nets.seeded(1), dtype=torch.float64)
        a[0] = 0
        found = region(set.canonical(), x).maximum(a)
        assert torch.allclose(found, set.support(x, a.unsqueeze(1))[:, 0], rtol=1e-6, atol=1e-9)


def test_unbounded_sets_give_infinity_and_unknown_ones_are_refused():
    x = torch.rand(2, 2, 4, 4, generator=nets.seeded(0))
    a = torch.ones(2, 2, 4, 4, dtype=torch.float64)
    assert bool(region(L0(1).canonical(), x).maximum(a).isinf().all())
    with pytest.raises(NotAvailable, match="spatial"):
        region({"kind": "spatial", "box": None}, x)
    with pytest.raises(InputOutsideDomain):
        region(L1(1, Box(0, 0.1)).canonical(), x)
