"""Smoothing: exact limits, a linear model whose radius is known, and how often certificates are false."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, norm
from torch import Tensor

from saddlepoint.bound.smoothing import (
    ABSTAIN,
    RandomizedSmoothing,
    lower_limit,
    margin_at,
    most_frequent,
    radius_of,
    reach_of,
    votes,
)
from saddlepoint.core.errors import InputError
from saddlepoint.spec import Noise, Smoothing

SIGMA = Noise("gaussian", 0.5)
LAMBDA = Noise("uniform", 0.5)


def linear(w: Tensor, b: float, noise: Noise) -> Smoothing:
    """Class 1 iff ⟨w, x⟩ + b > 0."""

    def base(x: Tensor) -> Tensor:
        side = x.flatten(1) @ w + b
        return torch.stack([-side, side], 1)

    return Smoothing(base, noise)


def test_the_limit_is_that_of_clopper_and_pearson_and_covers_as_it_says():
    for k, n, alpha in [(1, 1, 0.05), (990, 1000, 0.001), (55, 100, 0.05), (100_000, 100_000, 0.001)]:
        assert lower_limit(k, n, alpha) == pytest.approx(float(beta.ppf(alpha, k, n - k + 1)), rel=1e-9)
    assert lower_limit(0, 10, 0.05) == 0
    n, alpha = 60, 0.05
    limits = [lower_limit(k, n, alpha) for k in range(n + 1)]
    for p in (0.01, 0.3, 0.5, 0.77, 0.999):
        assert sum(binom.pmf(k, n, p) for k in range(n + 1) if limits[k] > p) <= alpha + 1e-12


def test_the_largest_radius_of_100_000_draws_is_the_published_one():
    assert radius_of(Noise("gaussian", 1.0), lower_limit(100_000, 100_000, 0.001)) == pytest.approx(3.81, abs=0.005)


@given(st.floats(0.0, 1.0), st.floats(0.0, 5.0), st.sampled_from([SIGMA, LAMBDA]))
@settings(max_examples=200, deadline=None)
def test_the_margin_is_positive_inside_the_radius_only(p: float, r: float, noise: Noise):
    radius = radius_of(noise, p)
    value = margin_at(noise, p, r)
    assert -1 <= value <= 1
    if r < radius * (1 - 1e-6) - 1e-6:
        assert value > 0
    if r >= radius:
        assert value <= 0


def test_a_linear_model_has_the_radius_of_its_margin_in_the_limit():
    """P(y) = Φ(m / (σ ‖w‖)), so σ Φ⁻¹(P) = m / ‖w‖, the distance to the hyperplane, whatever σ is."""
    w, x = torch.tensor([3.0, 4.0]), torch.zeros(1, 2)
    for noise in (Noise("gaussian", 0.25), Noise("gaussian", 1.0)):
        method = RandomizedSmoothing(n0=50, n=400_000, alpha=0.001)
        found = method.certify(linear(w, 1.0, noise), x, ["a"])
        assert int(found.answers[0]) == 1
        assert float(found.radius[0]) <= 0.2  # true, not only likely: the count would have to be off by 3 σ
        assert float(found.radius[0]) == pytest.approx(0.2, abs=0.01)


def test_uniform_noise_has_the_l1_radius_of_a_coordinate_threshold_exactly():
    """x₁ > 0 at x₁ = c: P = 1/2 + c / 2λ, so λ (2 P − 1) = c, the ℓ1 distance."""
    found = RandomizedSmoothing(n0=50, n=200_000).certify(
        linear(torch.tensor([1.0, 0.0]), 0.0, LAMBDA), torch.tensor([[0.2, 0.0]]), ["a"]
    )
    assert float(found.radius[0]) == pytest.approx(0.2, abs=0.01)
    assert float(found.radius[0]) <= 0.2


def false_certificates(p: float, true_radius: float, n: int, runs: int) -> int:
    """How many of `runs` counts from Bin(n, p) certify more than is true, at α = 0.05."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.distributions.Binomial(n, torch.tensor(p, dtype=torch.float64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        drawn = counts.sample((runs,))
    return sum(radius_of(SIGMA, lower_limit(int(k), n, 0.05)) > true_radius for k in drawn.tolist())


@pytest.mark.parametrize("p", [0.51, 0.7, 0.95, 0.9995])
def test_false_certificates_stay_below_alpha(p: float):
    """A certificate is false if its radius exceeds the distance to the hyperplane. 99.9 % limit of Bin(1000, 0.05)."""
    true_radius = SIGMA.scale * float(norm.ppf(p))
    assert false_certificates(p, true_radius, n=1000, runs=1000) <= binom.ppf(0.999, 1000, 0.05)


def test_false_certificates_of_the_whole_procedure_stay_below_alpha():
    """1,000 images at one distance through CERTIFY itself: networks, keyed noise, fresh samples."""
    w, b = torch.tensor([0.6, 0.8]), 0.3
    method = RandomizedSmoothing(n0=10, n=256, alpha=0.05)
    found = method.certify(linear(w, b, SIGMA), torch.zeros(1000, 2), [str(i) for i in range(1000)])
    false = int((found.radius > 0.3).sum())
    assert false <= binom.ppf(0.999, 1000, 0.05)
    assert false >= binom.ppf(1e-6, 1000, 0.02)  # images share no stream: their certificates do not agree by chance


def test_images_have_streams_of_their_own_and_batches_change_nothing():
    smoothing = linear(torch.tensor([1.0, 1.0]), 0.05, SIGMA)
    method, x = RandomizedSmoothing(n0=20, n=1000), torch.zeros(4, 2)
    ids = ["a", "b", "c", "d"]
    whole = method.certify(smoothing, x, ids)
    alone = [method.certify(smoothing, x[i : i + 1], [name], batch=100) for i, name in enumerate(ids)]
    assert whole.votes.tolist() == [int(one.votes) for one in alone]
    assert len(set(whole.votes.tolist())) > 1
    assert method.certify(smoothing, x, ids, seed=1).votes.tolist() != whole.votes.tolist()
    first = votes(smoothing, x[0], ("a", 0, "select"), 1000)
    second = votes(smoothing, x[0], ("a", 0, "estimate"), 1000)
    assert not torch.equal(first, second)  # the draws that count are fresh


def test_a_base_that_answers_nan_is_not_certified():
    def base(x: Tensor) -> Tensor:
        return torch.full((len(x), 3), torch.nan)

    found = RandomizedSmoothing(n0=10, n=100).certify(Smoothing(base, SIGMA), torch.zeros(1, 2), ["a"])
    assert int(found.answers[0]) == ABSTAIN
    assert float(found.radius[0]) == 0


def test_an_open_question_is_abstained_from():
    found = RandomizedSmoothing(n0=100, n=1000).certify(
        linear(torch.tensor([1.0, 0.0]), 0.0, SIGMA), torch.zeros(1, 2), ["a"]
    )
    assert int(found.answers[0]) == ABSTAIN
    assert most_frequent(torch.tensor([520, 480]), 0.001) == ABSTAIN
    assert most_frequent(torch.tensor([1, 600, 400]), 0.001) == 1
    predict = RandomizedSmoothing(n=1000, alpha=0.01).predict(
        linear(torch.tensor([1.0, 0.0]), 0.6, SIGMA), torch.zeros(2, 2), ["a", "b"]
    )
    assert predict.tolist() == [1, 1]


def test_certificates_of_many_images_hold_together():
    one, many = RandomizedSmoothing(alpha=0.05), RandomizedSmoothing(alpha=0.05, images=500)
    assert many.failure == pytest.approx(one.failure / 500)
    assert lower_limit(990, 1000, many.failure) < lower_limit(990, 1000, one.failure)
    # all of them fail together with 1 − (1 − α/N)^N ≤ α
    assert 1 - (1 - many.failure) ** 500 <= 0.05


def test_balls_of_other_norms_are_reached_through_the_noise_s_own():
    assert reach_of(SIGMA, "linf", 0.1, 64) == pytest.approx(0.8)
    assert reach_of(SIGMA, "l1", 0.1, 64) == pytest.approx(0.1)
    assert reach_of(LAMBDA, "l2", 0.1, 64) == pytest.approx(0.8)
    assert reach_of(LAMBDA, "linf", 0.1, 64) == pytest.approx(6.4)
    for noise in (SIGMA, LAMBDA):
        assert reach_of(noise, "linf", 0.1, 64) >= 0.1 * (math.sqrt(64) if noise is SIGMA else 64)
    with pytest.raises(InputError, match="no radius"):
        reach_of(SIGMA, "l0", 3.0, 64)


def test_settings_that_mean_nothing_are_refused():
    for wrong in ({"n": 0}, {"alpha": 0.0}, {"alpha": 1.0}, {"images": 0}):
        with pytest.raises(InputError):
            RandomizedSmoothing(**wrong)
    with pytest.raises(InputError):
        Noise("gaussian", 0.0)
    with pytest.raises(InputError):
        Noise("gaussian", math.inf)
