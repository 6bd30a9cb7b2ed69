"""What every set promises (design, §8): each test states the theorem and runs it over all sets."""

from __future__ import annotations

import pytest
import torch
from geometry_cases import (
    CASES,
    DTYPES,
    NAMES,
    NESTED,
    NESTED_NAMES,
    Case,
    center,
    cloud,
    directions,
    draws,
    inner,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from saddlepoint.core.errors import InputOutsideDomain, NonFinite, NotAvailable
from saddlepoint.geometry import L0, L2, Linf, from_canonical
from saddlepoint.geometry.interval import IntervalSet

seeds = st.integers(0, 2**31)
every_set = pytest.mark.parametrize("case", CASES, ids=NAMES)
every_nested = pytest.mark.parametrize("case", NESTED, ids=NESTED_NAMES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
few = settings(max_examples=5)  # times two dtypes, sixteen sets, four rows each


@every_dtype
@every_set
@few
@given(seed=seeds)
def test_projection_is_feasible_and_idempotent(case: Case, dtype, seed):
    s, x0, x = case.build(), center(case, seed, dtype), cloud(case, seed, dtype)
    z = s.project(x0, x)
    assert s.contains(x0, x0).all()
    assert z.dtype == dtype
    assert s.contains(x0, z, slack=0).all()
    assert torch.equal(s.project(x0, z), z)


@every_dtype
@every_set
@few
@given(seed=seeds)
def test_projection_is_optimal(case: Case, dtype, seed):
    """Convex: <v − Pv, z − Pv> ≤ 0 for all z in S. Otherwise: no z in S is nearer."""
    s, x0, v = case.build(), center(case, seed, dtype), cloud(case, seed, dtype)
    p = s.project(x0, v).double()
    # the maximiser of <v − Pv, ·> is the hardest z of all
    others = [s.lmo(x0, (v.double() - p).to(dtype)), *(s.sample(x0, draws(seed, restart=i)) for i in range(5))]
    tolerance = 1e-10 if dtype == torch.float64 else 3e-6
    for z in others:
        if case.convex:
            assert (inner(v.double() - p, z.double() - p) <= tolerance).all()
        near, far = v.double() - p, v.double() - z.double()
        assert (inner(near, near) <= inner(far, far) + tolerance).all()


@every_dtype
@every_set
@few
@given(seed=seeds)
def test_lmo_is_feasible_and_beats_every_point(case: Case, dtype, seed):
    s, x0, g = case.build(), center(case, seed, dtype), directions(case, seed, dtype)
    best = s.lmo(x0, g)
    assert s.contains(x0, best, slack=0).all()
    tolerance = 1e-10 if dtype == torch.float64 else 3e-5
    rivals = [s.sample(x0, draws(seed, restart=i)) for i in range(5)]
    rivals += [s.project(x0, cloud(case, seed + i, dtype)) for i in range(3)] + [s.project(x0, x0 + 9 * g)]
    for z in rivals:
        assert s.contains(x0, z, slack=0).all()
        assert (inner(g, z) <= inner(g, best) + tolerance).all()


@every_dtype
@every_set
@few
@given(seed=seeds)
def test_support_is_the_value_of_lmo(case: Case, dtype, seed):
    s, x0 = case.build(), center(case, seed, dtype)
    a = torch.stack([directions(case, seed + 7 * j, dtype) for j in range(3)], dim=1)
    nearest, up = s.support(x0, a), s.support(x0, a, rounding="up")
    assert nearest.dtype == dtype
    assert up.dtype == torch.float64
    tight = 1e-10 if dtype == torch.float64 else 3e-5
    for j in range(3):
        value = inner(a[:, j], s.lmo(x0, a[:, j]))
        torch.testing.assert_close(nearest[:, j].double(), value, atol=tight, rtol=0)
        # "up" bounds every point there is, and is not slack
        assert (up[:, j] >= value).all()
        assert (up[:, j] <= value + tight).all()
        for i in range(3):
            assert (up[:, j] >= inner(a[:, j], s.sample(x0, draws(seed, restart=i)))).all()


@every_set
def test_gradient_of_support_is_the_maximiser(case: Case):
    """Danskin: d/dA max <A, z> = z*."""
    s, x0 = case.build(), center(case, 3, torch.float64)
    a = cloud(case, 5, torch.float64)[:, None].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(s.support(x0, a).sum(), a)
    torch.testing.assert_close(gradient[:, 0], s.lmo(x0, a.detach()[:, 0]), atol=1e-9, rtol=0)


@every_set
@few
@given(seed=seeds)
def test_hull_encloses(case: Case, seed):
    s, x0 = case.build(), center(case, seed, torch.float32)
    lower, upper = s.hull(x0)
    points = [s.sample(x0, draws(seed)), s.lmo(x0, directions(case, seed, torch.float32))]
    for z in points:
        assert ((lower <= z) & (z <= upper)).all()


@every_set
@few
@given(seed=seeds)
def test_hull_is_tight(case: Case, seed):
    """Both ends of every coordinate are reached: the hull is the smallest box."""
    s, x0 = case.build(), center(case, seed, torch.float64, rows=1)
    lower, upper = s.hull(x0)
    n = x0[0].numel()
    axes = torch.eye(n, dtype=torch.float64).reshape(1, n, *case.shape)
    torch.testing.assert_close(s.support(x0, axes), upper.reshape(1, n), atol=1e-9, rtol=0)
    torch.testing.assert_close(-s.support(x0, -axes), lower.reshape(1, n), atol=1e-9, rtol=0)


@every_nested
@few
@given(seed=seeds, factor=st.floats(1.0, 4.0))
def test_nested_in_size_and_gauge_agrees(case: Case, seed, factor):
    s, x0 = case.build(), center(case, seed, torch.float32)
    z = s.sample(x0, draws(seed))
    gauge = s.gauge(x0, z)
    assert (gauge <= float(s.size) * (1 + 1e-9)).all()
    assert s.resized(gauge).contains(x0, z).all()
    assert s.resized(float(s.size) * factor).contains(x0, z).all()
    moved = gauge > 0
    smaller = s.resized(gauge * (1 - 1e-9))  # for l0: a count below the count of moved pixels
    assert not smaller.contains(x0, z)[moved].any()


@every_nested
def test_gauge_is_infinite_outside_the_box(case: Case):
    s, x0 = case.build(), center(case, 1, torch.float32)
    x = x0.clone()
    x[0, ..., 0] = 7.0
    assert torch.isinf(s.gauge(x0, x)[0])
    assert (s.gauge(x0, x)[1:] == 0).all()


@every_dtype
@every_nested
@few
@given(seed=seeds)
def test_size_zero_returns_x0(case: Case, dtype, seed):
    s, x0 = case.build().resized(0), center(case, seed, dtype)
    g, x = directions(case, seed, dtype), cloud(case, seed, dtype)
    for z in (s.project(x0, x), s.lmo(x0, g), s.sample(x0, draws(seed)), *s.hull(x0)):
        assert torch.equal(z, x0)
    assert not s.contains(x0, x).any()
    torch.testing.assert_close(s.support(x0, g[:, None])[:, 0].double(), inner(g, x0), atol=1e-5, rtol=1e-5)


@every_nested
@few
@given(seed=seeds)
def test_per_sample_sizes_equal_the_loop_over_single_sizes(case: Case, seed):
    single = case.build()
    x0, x = center(case, seed, torch.float64), cloud(case, seed, torch.float64)
    g = directions(case, seed, torch.float64)
    ladder = torch.tensor([0.0, 0.4, 1.0, 1.7], dtype=torch.float64) * float(single.size)
    many = single.resized(ladder)
    one_by_one = [single.resized(ladder[i : i + 1]) for i in range(4)]
    row = [slice(i, i + 1) for i in range(4)]

    def loop(f):
        return torch.cat([f(s, r) for s, r in zip(one_by_one, row, strict=True)])

    exactly = {"atol": 1e-12, "rtol": 0}
    torch.testing.assert_close(many.project(x0, x), loop(lambda s, r: s.project(x0[r], x[r])), **exactly)
    torch.testing.assert_close(many.lmo(x0, g), loop(lambda s, r: s.lmo(x0[r], g[r])), **exactly)
    for rounding in ("nearest", "up"):
        torch.testing.assert_close(
            many.support(x0, g[:, None], rounding=rounding),
            loop(lambda s, r, how=rounding: s.support(x0[r], g[r, None], rounding=how)),
            **exactly,
        )
    assert torch.equal(many.contains(x0, x), loop(lambda s, r: s.contains(x0[r], x[r])))
    picked = many.rows(torch.tensor([2, 0]))
    assert torch.equal(picked.project(x0[[2, 0]], x[[2, 0]]), many.project(x0, x)[[2, 0]])
    # a scalar size is the same size for everybody
    same = single.resized(torch.full((4,), float(single.size), dtype=torch.float64))
    torch.testing.assert_close(same.project(x0, x), single.project(x0, x), atol=1e-9, rtol=0)


@every_dtype
@every_set
@few
@given(seed=seeds)
def test_a_row_does_not_depend_on_its_batch(case: Case, dtype, seed):
    s, x0, x = case.build(), center(case, seed, dtype), cloud(case, seed, dtype)
    g, numbers = directions(case, seed, dtype), draws(seed)
    order = torch.tensor([2, 0, 3])
    close = {"atol": 0, "rtol": 0} if isinstance(s, (IntervalSet, L0)) else {"atol": 2e-7, "rtol": 0}
    for f in (
        lambda i: s.project(x0[i], x[i]),
        lambda i: s.lmo(x0[i], g[i]),
        lambda i: s.sample(x0[i], numbers.take(i)),
    ):
        whole = f(torch.arange(4))
        torch.testing.assert_close(f(order), whole[order], **close)
        torch.testing.assert_close(f(torch.tensor([1])), whole[[1]], **close)


@every_set
def test_canonical_round_trip(case: Case):
    s = case.build()
    again = from_canonical(s.canonical())
    assert again == s
    assert hash(again) == hash(s)
    assert again.canonical() == s.canonical()


@every_set
def test_maps_are_pure(case: Case):
    s = case.build()
    x0, x = center(case, 11, torch.float32), cloud(case, 11, torch.float32)
    before = x0.clone(), x.clone()
    for f in (s.project, s.lmo, s.contains):
        f(x0, x)
    s.support(x0, x[:, None], rounding="up")
    s.sample(x0, draws(0))
    assert torch.equal(x0, before[0])
    assert torch.equal(x, before[1])


@every_set
def test_a_center_outside_the_domain_is_named(case: Case):
    if case.name == "box":
        pytest.skip("the box does not look at x0")
    s, x0 = case.build(), center(case, 1, torch.float32)
    x0[0, ..., 0] = -2.12
    with pytest.raises(InputOutsideDomain, match=r"min -2\.12.*std"):
        s.project(x0, x0)


@every_set
def test_nan_points_are_refused_and_never_contained(case: Case):
    s, x0 = case.build(), center(case, 1, torch.float32)
    x = x0.clone()
    x[0] = torch.nan
    assert not s.contains(x0, x)[0]
    with pytest.raises(NonFinite):
        s.project(x0, x)


def test_maps_without_a_cheap_form_say_what_to_use_instead():
    x0 = torch.rand(2, 3, 4, 4)
    with pytest.raises(NotAvailable, match="within"):
        L0(3).lmo(x0, x0)
    with pytest.raises(NotAvailable, match="L1"):
        L0(3).project_hyperplane(x0, x0, x0, torch.zeros(2))
    with pytest.raises(NotAvailable, match="project"):
        L2(1).hull(x0, rounding="in")
    with pytest.raises(NotAvailable, match="L2 & Linf"):
        (L2(1) & Linf(0.1)).project(x0, x0)
    with pytest.raises(NotAvailable, match="per-sample"):
        Linf(torch.ones(2)).canonical()


def test_without_a_box_the_balls_are_the_free_ones():
    """T1: the support function of a free ball is the dual norm."""
    x0 = torch.zeros(5, 6, dtype=torch.float64)
    a = torch.randn(5, 6, dtype=torch.float64)
    for s, order in ((Linf(0.3), 1), (L2(0.3), 2), (from_canonical({"kind": "l1", "size": "3/10"}), torch.inf)):
        dual = 0.3 * torch.linalg.vector_norm(a, ord=order, dim=1)
        torch.testing.assert_close(s.support(x0, a[:, None])[:, 0], dual, atol=1e-12, rtol=0)
        assert (s.support(x0, a[:, None], rounding="up")[:, 0] >= dual).all()
