"""The checker's own enclosures of smooth functions and products: sound for any interval and any choice, and tight."""

from __future__ import annotations

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bounded_nets as nets
from compound_nets import network
from saddlepoint.bound.crown import CROWN
from saddlepoint.bound.interval import Interval
from saddlepoint.bound.rules.curves import CURVES
from saddlepoint.bound.rules.curves import power as search_power
from saddlepoint.check.proofs import recheck
from saddlepoint.check.proofs_curves import image_of, lines_of
from saddlepoint.check.proofs_functions import FUNCTIONS, power
from saddlepoint.check.proofs_products import image_of_product, planes
from saddlepoint.geometry import Linf
from saddlepoint.graph import ops
from smooth_functions import EXACT, POWERS, intervals

ALL = FUNCTIONS | {f"power {p:g}": power(p) for p in POWERS}
SEARCH = CURVES | {f"power {p:g}": search_power(p) for p in POWERS}


@pytest.mark.parametrize("name", sorted(EXACT))
def test_computed_values_err_by_no_more_than_stated(name):
    f = ALL[name]
    draw = torch.Generator().manual_seed(2)
    spread = torch.randn(60, generator=draw, dtype=torch.float64) * torch.logspace(-3, 1.5, 60, dtype=torch.float64)
    x = spread if f.where in ("all", "nonzero") else spread.abs() + 1e-9
    y, s = f.value(x), f.slope(x)
    with mpmath.workdps(50):
        for k in range(len(x)):
            at = mpmath.mpf(float(x[k]))
            assert abs(mpmath.mpf(float(y[k])) - EXACT[name](at)) <= float(f.error(x, y)[k])
            assert abs(mpmath.mpf(float(s[k])) - mpmath.diff(EXACT[name], at)) <= float(f.slope_error(s)[k]) + 1e-25


@pytest.mark.parametrize("name", sorted(ALL))
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**30), free=st.booleans())
def test_lines_and_images_enclose(name, seed, free):
    f = ALL[name]
    lower, upper = intervals(SEARCH[name], seed)
    lower, upper = torch.minimum(lower, upper), torch.maximum(lower, upper)
    choice = torch.rand(len(lower), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    a_low, b_low, a_high, b_high = lines_of(f, lower, upper, choice if free else torch.full_like(lower, 0.5))
    least, most = image_of(f, lower, upper)
    x = lower + torch.linspace(0, 1, 101, dtype=torch.float64)[:, None] * (upper - lower)
    x = torch.minimum(torch.maximum(x, lower), upper)
    y = SEARCH[name].value(x)
    slack = torch.where(torch.isfinite(y), SEARCH[name].value_error(x, y), 0.0)
    assert bool((least <= y + slack).all())
    assert bool((most >= y - slack).all())
    for slope, constant, sign in ((a_low, b_low, 1), (a_high, b_high, -1)):
        assert not bool(torch.isnan(constant).any())
        line = slope * x + constant
        allowed = slack + 4 * torch.finfo(torch.float64).eps * (slope * x).abs()
        assert bool((sign * (y - line) >= -allowed)[torch.isfinite(line)].all())


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_undefined_intervals_bound_nothing(name):
    f = FUNCTIONS[name]
    lower = torch.tensor([float("nan"), 0.5, -1.0, -torch.inf]).double()
    upper = torch.tensor([1.0, float("nan"), 2.0, torch.inf]).double()
    _, b_low, _, b_high = lines_of(f, lower, upper, torch.full_like(lower, 0.5))
    assert bool((b_low[:2] == -torch.inf).all())
    assert bool((b_high[:2] == torch.inf).all())
    if f.where != "all":
        assert bool((b_low[2:] == -torch.inf).all())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**30), matrix=st.booleans(), scale=st.sampled_from([1e-6, 1.0, 1e4]))
def test_planes_contain_all_products(seed, matrix, scale):
    draw = torch.Generator().manual_seed(seed)
    op = ops.MatrixProduct((2, 3, 4), (2, 4, 5)) if matrix else ops.Product((2, 7))
    size = 2 * 3 * 4 + 2 * 4 * 5 if matrix else 28
    lower = torch.randn(3, size, generator=draw, dtype=torch.float64) * scale
    upper = lower + torch.rand(3, size, generator=draw, dtype=torch.float64) ** 4 * scale
    upper[0, ::3] = lower[0, ::3]
    chosen = planes(op, lower, upper, torch.rand(3, *op.shape, generator=draw, dtype=torch.float64))
    mix = torch.rand(60, 3, size, generator=draw, dtype=torch.float64)
    mix[:30] = mix[:30].round()
    x = torch.minimum(lower + mix * (upper - lower), upper)
    y = torch.stack([op(each) for each in x])
    least, most = image_of_product(op, lower, upper)
    assert bool((least <= y).all())
    assert bool((y <= most).all())
    a = torch.randn(6, *op.shape, generator=draw, dtype=torch.float64)
    owner = torch.tensor([0, 0, 1, 1, 2, 2])
    coefficients, constant = chosen.pull(a, owner)
    bound = (coefficients * x[:, owner]).sum(2) + constant
    assert bool((bound <= (a * y[:, owner]).flatten(2).sum(2) + 1e-12 * scale**2).all())


@pytest.mark.parametrize("kind", ["attention", "many"])
@pytest.mark.parametrize("size", ["0", "1/10"])
@pytest.mark.parametrize(
    "method", [Interval(), CROWN(stop_above=None), CROWN(intermediate="forward", stop_above=None)], ids=lambda m: m.name
)
def test_the_checker_confirms_networks_of_all_operators(kind, size, method):
    graph, x = network(kind)
    set, eye = Linf(size), torch.eye(3).expand(len(x), -1, -1)
    # both refine what is loose beyond a threshold, and on the threshold they may differ
    for dtype, tolerance in ((torch.float64, 1e-3), (torch.float32, 1e-2)):
        found = method(graph.to(dtype), set, x.to(dtype), eye.to(dtype))
        checked = recheck(graph, set.canonical(), x, eye, found.proof.tensors, method.name)
        scale = found.lower.abs().max().double()
        assert bool((checked >= found.lower.double() - tolerance * (1 + scale)).all())
    inside = nets.points(set, x, 60, 5)
    z = graph.to(torch.float64)(inside.flatten(0, 1).double()).view(len(x), 60, 3)
    assert bool((checked[:, None] <= z).all())


def test_a_tampered_choice_weakens_at_most():
    graph, x = network("many")
    set, eye = Linf("1/50"), torch.eye(3).expand(len(x), -1, -1)
    found = CROWN(stop_above=None)(graph, set, x, eye)
    inside = nets.points(set, x, 60, 5)
    z = graph.to(torch.float64)(inside.flatten(0, 1).double()).view(len(x), 60, 3)
    for wrong in (float("nan"), -3.0, 1e9):
        proof = {k: t if k == "refined" else torch.full(t.shape, wrong) for k, t in found.proof.tensors.items()}
        checked = recheck(graph, set.canonical(), x, eye, proof, "crown")
        assert bool((checked[:, None] <= z).all())
