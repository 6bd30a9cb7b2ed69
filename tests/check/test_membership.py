"""The checker's own membership and rendering, against exact arithmetic and the geometry it shares no code with."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saddlepoint.check.membership import inside
from saddlepoint.check.render import in_range, render
from saddlepoint.core.errors import NotAvailable
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.geometry import L0, L1, L2, Box, Linf, Mask, Patch, RotationTranslation

BOX = Box(0, 1)
SHAPE = (3, 6, 5)
SETS = {
    "linf": Linf("8/255", BOX),
    "l2": L2("0.5", BOX),
    "l1": L1("3", BOX),
    "l0": L0(4, BOX),
    "patch": Patch(2, 3, "any", BOX),
    "patch at": Patch(2, 3, (1, 1), BOX),
    "mask": Mask(torch.rand(SHAPE[1:], generator=torch.Generator().manual_seed(0)) < 0.3, BOX),
    "box": BOX,
}


def images(count, seed):
    return Draws(row_keys(seed, [str(i) for i in range(count)], "test")).uniform(SHAPE)


@pytest.mark.parametrize("name", SETS)
def test_what_geometry_makes_the_checker_admits(name):
    made = SETS[name]
    x0 = images(16, 1)
    draws = Draws(row_keys(2, [str(i) for i in range(16)], "points"))
    points = [made.sample(x0, draws), made.lmo(x0, draws.normal(SHAPE))]
    for point in points:
        assert bool(inside(made.canonical(), x0, point).all())
        assert torch.equal(inside(made.canonical(), x0, point), made.contains(x0, point))


@pytest.mark.parametrize("name", [name for name in SETS if name != "box"])
def test_points_outside_are_refused(name):
    made = SETS[name]
    x0 = images(8, 3).clamp(0.2, 0.8)
    far = (1 - x0) if name != "linf" else x0 + 0.1
    assert not bool(inside(made.canonical(), x0, far).any())


def test_one_ulp_matters():
    size = Fraction(8, 255)
    x0 = torch.full((1, 1, 1, 1), 0.25)
    edge = torch.tensor(0.25 + float(size), dtype=torch.float32)
    inner = edge if Fraction(float(edge)) - Fraction(1, 4) <= size else torch.nextafter(edge, torch.tensor(0.0))
    outer = torch.nextafter(inner, torch.tensor(1.0))
    described = Linf(size).canonical()
    assert bool(inside(described, x0, inner.reshape(1, 1, 1, 1)))
    assert not bool(inside(described, x0, outer.reshape(1, 1, 1, 1)))


@given(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), st.sampled_from(["l1", "l2"]))
def test_balls_agree_with_rational_arithmetic(values, kind):
    power = 1 if kind == "l1" else 2
    x0, x = torch.zeros(1, 3), torch.tensor([values], dtype=torch.float32)
    total = sum(abs(Fraction(float(v))) ** power for v in x[0])
    size = Fraction(3, 5)
    described = {"kind": kind, "size": "3/5", "box": None}
    assert bool(inside(described, x0, x)) == (total <= size**power)


def test_exact_boundary_of_the_l2_ball():
    x0, x = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])
    assert bool(inside({"kind": "l2", "size": "5", "box": None}, x0, x))
    assert not bool(inside({"kind": "l2", "size": "4.999999999999999999", "box": None}, x0, x))


def test_nan_is_in_no_set():
    for made in SETS.values():
        assert not bool(inside(made.canonical(), images(1, 0), torch.full((1, *SHAPE), float("nan"))))


def test_unknown_and_parametric_kinds_are_refused():
    for kind in ("spatial", "feature ball"):
        with pytest.raises(NotAvailable):
            inside({"kind": kind}, images(1, 0), images(1, 0))


def test_set_algebra():
    x0 = torch.full((2, 1, 1, 2), 0.5)
    x = torch.tensor([[0.55, 0.5], [0.5, 0.9]]).reshape(2, 1, 1, 2)
    parts = [Linf("0.1").canonical(), L0(1).canonical()]
    assert inside({"kind": "union", "sets": parts}, x0, x).tolist() == [True, True]
    assert inside({"kind": "intersection", "sets": parts}, x0, x).tolist() == [True, False]


def test_two_renderings_agree():
    spatial = RotationTranslation("30", "3", BOX)
    x0 = images(64, 5)
    params = spatial.sample(x0, Draws(row_keys(0, [str(i) for i in range(64)], "params")))
    theirs, ours = spatial.render(x0, params), render(spatial.canonical(), x0, params)
    torch.testing.assert_close(theirs, ours, atol=2e-5, rtol=0)
    assert bool(in_range(spatial.canonical(), params).all())
    assert not bool(in_range(spatial.canonical(), params + torch.tensor([61.0, 0, 0])).any())


def test_rendering_knows_right_angles_and_whole_shifts():
    square = images(4, 6)[:, :, :5, :5]
    quarter = render({"kind": "spatial", "rotation": "90", "shift": "0"}, square, torch.tensor([[90.0, 0, 0]] * 4))
    turned = [torch.allclose(quarter, torch.rot90(square, k, (2, 3)), atol=1e-6) for k in (1, 3)]
    assert sum(turned) == 1
    moved = render({"kind": "spatial", "rotation": "0", "shift": "1"}, square, torch.tensor([[0.0, 1, 0]] * 4))
    assert torch.equal(moved[:, :, 1:], square[:, :, :-1])
    assert bool((moved[:, :, 0] == 0).all())


def test_boxes_with_a_limit_for_every_entry():
    low = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) / 2
    box = Box(tuple(low.flatten().tolist()), tuple((low + 0.25).flatten().tolist()))
    x0 = (low + 0.1)[None]
    assert bool(inside(box.canonical(), x0, x0).all())
    assert not bool(inside(box.canonical(), x0, x0 + 0.2).any())
    assert bool(inside(Linf("0.1", box).canonical(), x0, x0 + 0.05).all())


def test_rendering_stays_in_the_box():
    box = Box(0.5, 1)
    spatial = RotationTranslation("45", "2", box)
    x0 = images(4, 2) / 2 + 0.5
    moved = render(spatial.canonical(), x0, torch.tensor([[45.0, 1, 1]] * 4))
    assert float(moved.min()) >= 0.5
    torch.testing.assert_close(moved, spatial.render(x0, torch.tensor([[45.0, 1, 1]] * 4)), atol=2e-5, rtol=0)
