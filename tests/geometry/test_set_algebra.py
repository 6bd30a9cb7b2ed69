"""Box, sizes, & and |, JSON: the nouns' own arithmetic and their refusals."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
import torch
from geometry_cases import HALF, draws, generator

from saddlepoint.core.errors import InputError, InputOutsideDomain, NotAvailable
from saddlepoint.geometry import (
    L0,
    L1,
    L2,
    Box,
    Intersection,
    Linf,
    Mask,
    Patch,
    RotationTranslation,
    Union,
    from_canonical,
)

UNIT = Box(0, 1)


def test_sizes_are_kept_as_written():
    assert Linf("8/255").size == Fraction(8, 255)
    assert Linf(0.1).size == Fraction(1, 10)
    assert Linf("8/255") == Linf(Fraction(8, 255))
    assert Linf("8/255") != L2("8/255")
    assert Linf("8/255") != Linf("8/255", UNIT)
    assert hash(Linf(0.1)) == hash(Linf("1/10"))
    assert Linf(torch.ones(3)) == Linf(torch.ones(3))
    assert Linf(torch.ones(3)) != Linf(1)


@pytest.mark.parametrize("size", [-1, "-1/3", float("nan"), float("inf"), "eight"])
def test_sizes_that_are_no_sizes(size):
    with pytest.raises(InputError):
        Linf(size)


def test_per_sample_sizes_must_fit_the_batch():
    with pytest.raises(InputError, match="rows"):
        Linf(torch.ones(3)).project(torch.rand(2, 4), torch.rand(2, 4))
    with pytest.raises(InputError):
        Linf(torch.ones(3, 1))
    with pytest.raises(InputError, match="negative"):
        Linf(torch.tensor([-1.0]))


def test_intersections_become_their_simplest_form():
    assert Linf(0.1) & UNIT == Linf(0.1, UNIT)
    assert UNIT & L2(1) == L2(1, UNIT)
    assert Box(0, 2) & Box(-1, 1) == UNIT
    assert Linf(0.1, UNIT) & Linf(0.3, Box(0.2, 2)) == Linf(0.1, Box(0.2, 1))
    many = Linf(torch.tensor([0.1, 0.5])) & Linf(torch.tensor([0.3, 0.2]))
    assert many == Linf(torch.tensor([0.1, 0.2]))
    both = Linf(0.1) & L2(0.5) & UNIT
    assert isinstance(both, Intersection)
    assert from_canonical(both.canonical()) == both
    x0 = torch.full((2, 2, 5, 4), 0.5)
    z = x0.clone()
    z[0] += 0.09  # inside the cube, outside the ball: 0.09 √40 = .57
    z[1, 0, 0, 0] += 0.09
    assert both.contains(x0, z).tolist() == [False, True]
    assert (both.hull(x0).upper <= 0.6 + 1e-6).all()
    with pytest.raises(NotAvailable):
        both.support(x0, x0[:, None])


def test_an_intersection_of_boxes_is_a_box():
    s = Linf("1/5", UNIT) & Mask(HALF, UNIT)
    x0, g = torch.rand(3, 2, 5, 4), torch.randn(3, 2, 5, 4, generator=generator(0))
    z = s.lmo(x0, g)
    assert torch.equal(z[:, :, ~HALF], x0[:, :, ~HALF])
    free = Linf("1/5", UNIT).lmo(x0, g)
    assert torch.equal(z[:, :, HALF], free[:, :, HALF])


def test_a_union_takes_the_better_member():
    a, b = Linf("1/100", UNIT), L2(1, UNIT)
    s = a | b
    assert isinstance(s, Union)
    assert len((s | L1(1)).sets) == 3
    x0 = torch.full((2, 400), 0.5, dtype=torch.float64)
    g = torch.zeros(2, 400, dtype=torch.float64)
    g[0], g[1, 0] = 1.0, 1.0  # ℓ2 moves 20 of a full direction (ℓ∞: 4), half of a single coordinate's
    values = s.support(x0, g[:, None])[:, 0]
    torch.testing.assert_close(values, torch.maximum(a.support(x0, g[:, None]), b.support(x0, g[:, None]))[:, 0])
    assert s.gauge(x0, x0).tolist() == [1.0, 1.0]  # a union has one size, its own
    assert torch.isinf(s.gauge(x0, x0 + 2)).all()


def test_box_by_channel_and_coordinate():
    channels = Box((0.0, 0.5), 1)
    x = torch.full((3, 2, 4, 4), 0.4)
    assert not channels.contains(x, x).any()
    assert channels.contains(x[:, :1].expand(3, 2, 4, 4), channels.project(x, x)).all()
    coordinates = Box([0.0, 0.1, 0.2], [1.0, 0.3, 0.2])
    z = coordinates.sample(torch.zeros(5, 3, dtype=torch.float64), draws(0, rows=5))
    assert coordinates.contains(z, z).all()
    assert (z[:, 2] == 0.2).all()
    with pytest.raises(InputError, match=r"0\.2 holds no torch.float32"):
        coordinates.project(torch.zeros(1, 3), torch.zeros(1, 3))
    with pytest.raises(InputError, match="one per channel"):
        channels.limits(torch.zeros(1, 3, 2, 2))
    with pytest.raises(InputError, match="empty"):
        Box(1, 0)
    with pytest.raises(InputError, match="empty"):
        Box(0, float("nan"))
    with pytest.raises(InputError):
        Box((0.0, 0.0), (1.0, 1.0, 1.0))
    with pytest.raises(NotAvailable, match="unbounded"):
        Box(0, float("inf")).sample(torch.zeros(1, 2), draws(0, rows=1))
    free = Box(float("-inf"), float("inf"))
    assert from_canonical(json.loads(json.dumps(free.canonical()))) == free
    assert torch.isinf(free.support(torch.zeros(1, 2), torch.tensor([[[1.0, 0.0]]])))


def test_domain_errors_carry_the_remedy():
    with pytest.raises(InputOutsideDomain, match=r"min -2.*max 2.*\[0, 1\].*mean="):
        UNIT.require_inside(torch.tensor([[-2.0, 2.0]]))
    UNIT.require_inside(torch.tensor([[0.0, 1.0]]))
    with pytest.raises(InputOutsideDomain):
        UNIT.require_inside(torch.tensor([[torch.nan, 0.5]]))


def test_canonical_texts():
    """What check/ and the ledger read; a change here is a change of every stored key."""
    unit = {"kind": "box", "lower": [0.0], "upper": [1.0]}
    assert Linf("8/255", UNIT).canonical() == {"kind": "linf", "size": "8/255", "box": unit}
    assert L0(20).canonical() == {"kind": "l0", "size": "20", "box": None}
    assert Patch(5, 4, (0, 3), UNIT).canonical() == {
        "kind": "patch",
        "height": 5,
        "width": 4,
        "at": [0, 3],
        "box": unit,
    }
    assert Mask(HALF).canonical()["rows"] == ["1010"] * 4 + ["0001"]
    flat = Mask(torch.tensor([True, False]), UNIT)
    assert from_canonical(flat.canonical()) == flat
    sets = (Linf(1) | L2(1), RotationTranslation(5, 1), Box((0.0, 1.0), 2), L1("1/3") & Linf(0.1))
    for s in sets:
        assert from_canonical(json.loads(json.dumps(s.canonical()))) == s
    with pytest.raises(InputError, match="Known kinds"):
        from_canonical({"kind": "l3"})
    with pytest.raises(InputError, match="without 'size'"):
        from_canonical({"kind": "linf"})


def test_patches_and_masks_refuse_what_does_not_fit():
    x0 = torch.rand(1, 1, 4, 4)
    with pytest.raises(InputError, match="leaves"):
        Patch(2, 2, (3, 0), UNIT).project(x0, x0)
    with pytest.raises(InputError):
        Patch(0, 2)
    with pytest.raises(InputError, match="any"):
        Patch(2, 2, "somewhere")
    with pytest.raises(InputError, match="booleans"):
        Mask(torch.ones(2, 2))
    with pytest.raises(InputError, match="meets"):
        Mask(HALF, UNIT).project(x0, x0)
    with pytest.raises(NotAvailable, match="within"):
        Patch(2, 2).lmo(x0, x0)


def test_half_precision_points_are_refused():
    with pytest.raises(InputError, match="float32"):
        Linf(0.1).project(torch.rand(1, 4).half(), torch.rand(1, 4).half())


def test_an_empty_batch_is_no_special_case():
    x0 = torch.rand(0, 3, 4, 4)
    for s in (Linf(0.1, UNIT), L2(1, UNIT), L1(1, UNIT), L0(2, UNIT), Patch(2, 2, "any", UNIT)):
        assert s.project(x0, x0).shape == x0.shape
        assert s.contains(x0, x0).shape == (0,)
