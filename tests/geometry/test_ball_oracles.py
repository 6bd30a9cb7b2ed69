"""Projections and maximisers against independent solvers (scipy in float64), the box active."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from geometry_cases import generator
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, linprog

from saddlepoint.geometry import L0, L1, L2, Box, Linf, Patch

UNIT = Box(0, 1)
seeds = st.integers(0, 2**31)
sizes = st.floats(0.01, 4.0)
many = settings(max_examples=25)


def instance(seed, n=9):
    g = generator(seed)
    x0 = torch.rand(1, n, generator=g, dtype=torch.float64)
    x0 = torch.where(torch.rand(1, n, generator=g) < 0.2, x0.round(), x0)
    x = x0 + torch.randn(1, n, generator=g, dtype=torch.float64) * 10 ** (2 * torch.rand(1, generator=g).item() - 1)
    return x0, x


def numpy_instance(seed, n=9):
    x0, x = instance(seed, n)
    return x0.numpy()[0], x.numpy()[0]


def along(f, target):
    """The root of an increasing function on [0, ∞), or None if f stays below the target."""
    high = 1.0
    while f(high) < target:
        high *= 2
        if high > 1e12:
            return None
    return brentq(lambda t: f(t) - target, 0, high, xtol=1e-300, rtol=1e-15)


@many
@given(seed=seeds, size=sizes)
def test_l2_projection_equals_bisection_on_the_kkt_multiplier(seed, size):
    x0, x = numpy_instance(seed)

    def move(mu):  # minimise ‖z − x‖² + μ ‖z − x₀‖² over the box
        return np.clip((x + mu * x0) / (1 + mu), 0, 1) - x0

    want = move(0.0)
    if np.linalg.norm(want) > size:
        want = move(along(lambda mu: -np.linalg.norm(move(mu)), -size))
    got = L2(size, UNIT).project(*instance(seed))[0].numpy()
    np.testing.assert_allclose(got, x0 + want, atol=1e-9)


@many
@given(seed=seeds, size=sizes)
def test_l1_projection_equals_bisection_on_the_kkt_multiplier(seed, size):
    x0, x = numpy_instance(seed)
    u = x - x0

    def move(mu):  # soft threshold, then the box: the prox of μ‖·‖₁ + box, coordinate by coordinate
        return np.clip(np.sign(u) * np.maximum(np.abs(u) - mu, 0), -x0, 1 - x0)

    want = move(0.0)
    if np.abs(want).sum() > size:
        want = move(along(lambda mu: -np.abs(move(mu)).sum(), -size))
    got = L1(size, UNIT).project(*instance(seed))[0].numpy()
    np.testing.assert_allclose(got, x0 + want, atol=1e-9)


@many
@given(seed=seeds, size=sizes)
def test_l2_maximiser_equals_bisection_on_the_level(seed, size):
    x0, g = numpy_instance(seed)

    def move(level):
        return np.clip(level * g, -x0, 1 - x0)

    level = along(lambda t: np.linalg.norm(move(t)), size)
    want = np.where(g > 0, 1 - x0, -x0) if level is None else move(level)
    a = torch.from_numpy(g)[None, None]
    got = L2(size, UNIT).support(torch.from_numpy(x0)[None], a).item()
    assert got == pytest.approx(g @ (x0 + want), abs=1e-9 * np.abs(g).sum())


def linear_program(g, x0, size, norm):
    """max <g, z> over ball ∩ box as a linear program in (z, s), |z − x₀| ≤ s."""
    n = len(g)
    eye = np.eye(n)
    above, below = np.hstack([eye, -eye]), np.hstack([-eye, -eye])
    rows, right = [above, below], [x0, -x0]
    top = np.full(n, np.inf)
    if norm == 1:
        rows, right = [*rows, np.hstack([np.zeros(n), np.ones(n)])[None]], [*right, [size]]
    else:
        top = np.full(n, size)
    bounds = [(0, 1)] * n + [(0, t) for t in top]
    answer = linprog(np.hstack([-g, np.zeros(n)]), np.vstack(rows), np.hstack(right), bounds=bounds)
    assert answer.status == 0
    return -answer.fun


@many
@given(seed=seeds, size=sizes, norm=st.sampled_from([1, "inf"]))
def test_l1_and_linf_support_equal_the_linear_program(seed, size, norm):
    x0, g = numpy_instance(seed)
    s = (L1 if norm == 1 else Linf)(size, UNIT)
    want = linear_program(g, x0, size, norm)
    start, a = torch.from_numpy(x0)[None], torch.from_numpy(g)[None]
    slack = 1e-9 * (1 + np.abs(g).sum())
    assert s.support(start, a[:, None]).item() == pytest.approx(want, abs=slack)
    assert (a * s.lmo(start, a)).sum().item() == pytest.approx(want, abs=slack)


@many
@given(seed=seeds, k=st.integers(0, 4))
def test_l0_equals_enumeration(seed, k):
    x0, g = numpy_instance(seed, n=6)
    start, point = torch.from_numpy(x0)[None], torch.from_numpy(g)[None]
    gains, costs = [], []
    for kept in combinations(range(6), k):
        move = np.array([i in kept for i in range(6)])
        gains.append(g @ np.where(move, np.where(g > 0, 1.0, 0.0), x0))
        costs.append(np.square(g - np.where(move, np.clip(g, 0, 1), x0)).sum())
    s = L0(k, UNIT)
    assert s.support(start, point[:, None]).item() == pytest.approx(max(gains), abs=1e-12 * np.abs(g).sum())
    assert (s.project(start, point) - point).square().sum().item() == pytest.approx(min(costs), rel=1e-12)


@many
@given(seed=seeds, height=st.integers(1, 3), width=st.integers(1, 4))
def test_patch_equals_enumeration(seed, height, width):
    generator_ = generator(seed)
    x0 = torch.rand(1, 2, 3, 4, generator=generator_, dtype=torch.float64)
    g = torch.randn(1, 2, 3, 4, generator=generator_, dtype=torch.float64)
    s = Patch(height, width, "any", UNIT)
    fixed = [Patch(height, width, (r, c), UNIT) for r in range(3 - height + 1) for c in range(4 - width + 1)]
    want = max(p.support(x0, g[:, None]).item() for p in fixed)
    assert s.support(x0, g[:, None]).item() == pytest.approx(want, abs=1e-12)
    nearest = min((p.project(x0, g) - g).square().sum().item() for p in fixed)
    assert (s.project(x0, g) - g).square().sum().item() == pytest.approx(nearest, rel=1e-12)
    z = s.lmo(x0, g)
    assert any(p.contains(x0, z).item() for p in fixed)
    one = s.project(x0, g)
    one[..., 0, 0], one[..., 2, 3] = 0.5, 0.5
    assert s.contains(x0, one).item() == any(p.contains(x0, one).item() for p in fixed)


@many
@given(seed=seeds, share=st.floats(-0.3, 1.3), order=st.sampled_from(["l2", "linf", "l1"]))
def test_hyperplane_projection(seed, share, order):
    """Reaches <w, z> = c iff the box does, and no point of box ∩ hyperplane is nearer."""
    x0, w = numpy_instance(seed)
    x = np.clip(x0 + 0.3 * generator_noise(seed), 0, 1)
    least, most = np.minimum(w, 0).sum(), np.maximum(w, 0).sum()
    c = least + share * (most - least)
    s = {"l2": L2, "linf": Linf, "l1": L1}[order](100, UNIT)
    start, point, normal = (torch.from_numpy(v)[None] for v in (x0, x, w))
    z, exists = s.project_hyperplane(start, point, normal, torch.tensor([c], dtype=torch.float64))
    z = z.numpy()[0]
    if abs(share - np.clip(share, 0, 1)) > 1e-6:
        assert not exists.item()
        return
    if 1e-6 < share < 1 - 1e-6:
        assert exists.item()
    if not exists.item():
        return
    assert w @ z == pytest.approx(c, abs=1e-9 * (1 + np.abs(w).sum()))
    assert ((z >= 0) & (z <= 1)).all()
    if order == "l2":
        # variational inequality against the hardest feasible z: a linear program over box ∩ hyperplane
        hard = linprog(z - x, A_eq=w[None], b_eq=[w @ z], bounds=[(0, 1)] * len(w))
        assert hard.status == 0
        assert (x - z) @ (hard.x - z) <= 1e-8
    else:
        assert norm(z - x, order) <= nearest_by_linear_program(x, w, w @ z, order) + 1e-8


def generator_noise(seed):
    return torch.randn(9, generator=generator(seed + 5), dtype=torch.float64).numpy()


def norm(v, order):
    return np.abs(v).max() if order == "linf" else np.abs(v).sum()


def nearest_by_linear_program(x, w, c, order):
    n = len(x)
    eye = np.eye(n)
    reach = np.ones((n, 1)) if order == "linf" else eye
    k = reach.shape[1]
    a = np.vstack([np.hstack([eye, -reach]), np.hstack([-eye, -reach])])
    cost = np.hstack([np.zeros(n), np.ones(k)])
    equal = np.hstack([w, np.zeros(k)])[None]
    bounds = [(0, 1)] * n + [(0, None)] * k
    answer = linprog(cost, a, np.hstack([x, -x]), A_eq=equal, b_eq=[c], bounds=bounds)
    assert answer.status == 0
    return answer.fun


@pytest.mark.parametrize("order", ["l2", "l1", "linf"])
def test_hyperplane_without_a_box_is_the_dual_norm_distance(order):
    """T2: the distance from x to {<w, z> = c} is |c − <w, x>| / ‖w‖ dual."""
    x = torch.zeros(4, 6, dtype=torch.float64)
    w = torch.randn(4, 6, generator=generator(1), dtype=torch.float64)
    c = torch.tensor([0.5, -0.5, 2.0, 0.0], dtype=torch.float64)
    kind, dual, own = {"l2": (L2, 2, 2), "l1": (L1, torch.inf, 1), "linf": (Linf, 1, torch.inf)}[order]
    z, exists = kind(100).project_hyperplane(x, x, w, c)
    assert exists.all()
    want = c.abs() / torch.linalg.vector_norm(w, ord=dual, dim=1)
    torch.testing.assert_close(torch.linalg.vector_norm(z, ord=own, dim=1), want, atol=1e-12, rtol=1e-12)
