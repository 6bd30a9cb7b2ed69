"""Exact sizes, directed rounding, keyed random numbers, digests, errors and extras."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saddlepoint.core.arithmetic import exact, float_above, float_below, gamma
from saddlepoint.core.digests import canonical_json, digest_tensors, sample_digest
from saddlepoint.core.errors import InputError, MissingExtra
from saddlepoint.core.extras import require
from saddlepoint.core.rng import Draws, row_keys


@given(st.fractions(min_value=-1000, max_value=1000), st.sampled_from([torch.float32, torch.float64]))
def test_directed_rounding_encloses_by_neighbours(value, dtype):
    below, above = float_below(value, dtype), float_above(value, dtype)
    assert Fraction(below) <= value <= Fraction(above)
    step = torch.nextafter(torch.tensor(below, dtype=dtype), torch.tensor(math.inf, dtype=dtype))
    assert above in (below, float(step))


@pytest.mark.parametrize(("text", "value"), [("8/255", Fraction(8, 255)), (0.1, Fraction(1, 10)), (" 3 ", Fraction(3))])
def test_sizes_are_what_their_author_wrote(text, value):
    assert exact(text) == value


@pytest.mark.parametrize("text", ["", "eight", "1/0", float("nan"), float("inf"), "0x1"])
def test_no_number_is_refused(text):
    with pytest.raises(InputError, match="not a number"):
        exact(text)


def test_gamma_grows_and_refuses_the_meaningless():
    assert 0 < gamma(1) < gamma(10) < 1e-14
    with pytest.raises(InputError):
        gamma(2**60)


def test_philox_known_answer():
    # Salmon et al. 2011, known-answer test of Philox4x32-10 for key 0 and counter 0
    words = Draws(torch.tensor([0]))._words(4, 0)[0].tolist()
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@given(st.integers(0, 5), st.integers(1, 40))
def test_trap_07_draws_do_not_depend_on_the_batch(start, count):
    keys = row_keys(3, [str(i) for i in range(50)], "pgd", 1)
    whole, part = Draws(keys), Draws(keys[start : start + count])
    for kind in ("uniform", "normal", "sign"):
        assert torch.equal(getattr(whole, kind)((2, 3))[start : start + count], getattr(part, kind)((2, 3)))


def test_draws_are_distributed_as_said():
    draws = Draws(row_keys(0, [str(i) for i in range(200)], "any"))
    uniform, normal = draws.uniform((500,)), draws.normal((500,))
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(float(uniform.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / 1e5)
    assert abs(float(normal.mean())) < 4 / math.sqrt(1e5)
    assert abs(float(normal.var()) - 1) < 4 * math.sqrt(2 / 1e5)
    counts = torch.bincount(draws.integers((500,), 7).flatten(), minlength=7)
    expected = 1e5 / 7
    assert float(((counts - expected) ** 2 / expected).sum()) < 22.5  # χ² with 6 degrees of freedom, p = 0.001
    assert not torch.equal(draws.uniform((5,), stream=0), draws.uniform((5,), stream=1))


def test_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    Draws(row_keys(0, ["a"], "m")).normal((10,))
    assert torch.equal(before, torch.random.get_rng_state())


def test_digests_see_values_names_types_and_shapes():
    a = torch.arange(6.0)
    ways = [{"w": a}, {"v": a}, {"w": a.double()}, {"w": a.reshape(2, 3)}, {"w": a + 1}]
    assert len({digest_tensors(way) for way in ways}) == len(ways)
    assert sample_digest(a, 1) != sample_digest(a, 2)
    assert sample_digest(a, 1) == sample_digest(a.clone(), 1)


def test_canonical_json_is_one_text_and_refuses_nan():
    assert canonical_json({"b": [1, 2], "a": None}) == canonical_json({"a": None, "b": [1, 2]})
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))


def test_missing_extra_says_how_to_install():
    with pytest.raises(MissingExtra, match=r"is not installed\. Install"):
        require("a_package_that_is_not_there")
