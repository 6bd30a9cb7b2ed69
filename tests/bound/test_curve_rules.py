"""Lines and intervals of the smooth rules enclose their functions: on dense grids, for any interval and choice."""

from __future__ import annotations

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saddlepoint.bound.rules import curve as engine
from saddlepoint.bound.rules.curves import CURVES, power
from saddlepoint.bound.rules.steps import StepRule
from saddlepoint.graph.ops import Elementwise
from smooth_functions import EXACT, POWERS, intervals

ALL = CURVES | {f"power {p:g}": power(p) for p in POWERS}


@pytest.mark.parametrize("name", sorted(EXACT))
def test_computed_values_err_by_no_more_than_stated(name):
    curve = ALL[name]
    draw = torch.Generator().manual_seed(1)
    spread = torch.randn(60, generator=draw, dtype=torch.float64) * torch.logspace(-3, 1.5, 60, dtype=torch.float64)
    x = spread.abs() + 1e-9 if curve.domain[0] > -1 else spread
    y, s = curve.value(x), curve.slope(x)
    with mpmath.workdps(50):
        for k in range(len(x)):
            at = mpmath.mpf(float(x[k]))
            value, slope = EXACT[name](at), mpmath.diff(EXACT[name], at)
            assert abs(mpmath.mpf(float(y[k])) - value) <= float(curve.value_error(x, y)[k])
            assert abs(mpmath.mpf(float(s[k])) - slope) <= float(curve.slope_error(s)[k]) + 1e-25


@pytest.mark.parametrize("name", sorted(ALL))
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**30), single=st.booleans(), free=st.booleans())
def test_lines_and_intervals_enclose_the_function(name, seed, single, free):
    curve = ALL[name]
    ends = intervals(curve, seed)
    lower, upper = (e.to(torch.float32 if single else torch.float64) for e in ends)
    lower, upper = torch.minimum(lower, upper), torch.maximum(lower, upper)
    choice = torch.rand(len(lower), generator=torch.Generator().manual_seed(seed)) * 2 - 0.5 if free else None
    lines = engine.enclose(curve, lower, upper, choice)
    low, high = engine.interval(curve, lower, upper)
    mix = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    x = torch.minimum(torch.maximum(lower.double() + mix * (upper.double() - lower.double()), lower.double()), upper)
    y = curve.value(x)
    slack = curve.value_error(x, y) * 2  # what the evaluation here may err
    assert bool((low <= y + slack).all())
    assert bool((high >= torch.where(torch.isfinite(y), y - slack, y)).all())
    for slope, constant, sign in (
        (lines.lower_slope, lines.lower_constant, 1),
        (lines.upper_slope, lines.upper_constant, -1),
    ):
        line = slope.double() * x + constant.double()
        finite = torch.isfinite(line)  # a constant of ±∞ bounds nothing, and is never NaN inside the domain
        assert not bool(torch.isnan(constant).any())
        allowed = slack + 4 * torch.finfo(torch.float64).eps * (slope.double() * x).abs()
        assert bool((sign * (y - line) >= -allowed)[finite].all())


@pytest.mark.parametrize("name", sorted(ALL))
def test_the_default_lines_touch_the_function(name):
    curve = ALL[name]
    draw = torch.Generator().manual_seed(2)
    lower = torch.randn(200, generator=draw, dtype=torch.float64) * 2
    width = torch.rand(200, generator=draw, dtype=torch.float64) * 3 + 0.1
    if curve.pole is not None or curve.domain[0] > -1:
        lower = lower.abs() + 0.1
    upper = lower + width
    lines = engine.enclose(curve, lower, upper, None)
    x = lower + torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None] * (upper - lower)
    y = curve.value(x)
    span = y.amax(0) - y.amin(0)
    below = (y - lines.lower_slope * x - lines.lower_constant).amin(0)
    above = (lines.upper_slope * x + lines.upper_constant - y).amin(0)
    assert bool((below <= 1e-5 * span + 1e-12).all())
    assert bool((above <= 1e-5 * span + 1e-12).all())
    # and the lower line is not far below: the gap is at most that of two constants
    assert bool((lines.upper_slope * x + lines.upper_constant - y <= 1.5 * span + 1e-12).float().mean() > 0.95)


@pytest.mark.parametrize("name", ["Sigmoid", "Gelu", "Exp", "Reciprocal", "Sin", "power 3"])
def test_lines_are_differentiable_in_the_choice(name):
    curve = ALL[name]
    lower = torch.tensor([0.2, 0.5, 1.0, -1.5 if name != "Reciprocal" else 0.3], dtype=torch.float64)
    upper = lower + 1.7
    choice = torch.full((4,), 0.4, dtype=torch.float64, requires_grad=True)
    at = (lower + upper) / 2

    def heights(c):
        lines = engine.enclose(curve, lower, upper, c)
        return lines.lower_slope * at + lines.lower_constant, lines.upper_slope * at + lines.upper_constant

    low, high = heights(choice)
    (gradient,) = torch.autograd.grad((low - high).sum(), choice)
    h = 1e-5
    with torch.no_grad():
        ahead, back = heights(choice + h), heights(choice - h)
    slope = ((ahead[0] - ahead[1]) - (back[0] - back[1])) / (2 * h)
    assert torch.allclose(gradient, slope, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", sorted(CURVES))
def test_nan_and_undefined_intervals_bound_nothing(name):
    curve = CURVES[name]
    lower = torch.tensor([float("nan"), 0.5, -1.0, -torch.inf, 1.0])
    upper = torch.tensor([1.0, float("nan"), 2.0, torch.inf, torch.inf])
    lines, (low, high) = engine.enclose(curve, lower, upper, None), engine.interval(curve, lower, upper)
    assert bool((low[:2] <= max(curve.image[0], -torch.inf)).all())
    if curve.domain[0] > -1 or curve.pole is not None:
        assert bool((low[2:4] == -torch.inf).all())
        assert bool((high[2:4] == torch.inf).all())
        assert bool((lines.lower_constant[2:4] == -torch.inf).all())
    y = curve.value(torch.tensor([1.0, 5.0, 80.0, 1e4]).double())
    assert bool((low[4].double() <= y + 1e-12).all())
    assert bool((high[4].double() >= y - 1e-12)[torch.isfinite(y)].all())


@settings(max_examples=60)
@given(
    function=st.sampled_from(["Sign", "Floor", "Ceil", "Round"]),
    lower=st.one_of(st.floats(-6, 6), st.integers(-3, 3).map(float)),
    width=st.one_of(st.floats(0, 6), st.integers(0, 3).map(float)),
)
def test_steps(function, lower, width):
    op, rule = Elementwise(function), StepRule()
    lo, up = torch.tensor([[lower]]).double(), torch.tensor([[lower + width]]).double()
    x = torch.cat([lo + torch.linspace(0, 1, 401).double()[:, None] * (up - lo), lo, up]).clamp(lo, up)
    y, lines = op(x), rule.relax(op, lo, up, None)
    low, high = rule.interval(op, lo, up)
    assert bool((low <= y).all())
    assert bool((y <= high).all())
    assert bool((lines.lower_slope * x + lines.lower_constant <= y + 1e-12).all())
    assert bool((lines.upper_slope * x + lines.upper_constant >= y - 1e-12).all())
