"""Counting: what k wrong of n fresh draws show, and how often that is not so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from saddlepoint.check.draws import count
from saddlepoint.check.witness import replay
from saddlepoint.core.errors import NotAvailable
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.geometry import Box, Linf
from saddlepoint.spec import Access, Model, Threat, Untargeted
from saddlepoint.spec.model import Sampling

UNIT = Box(0.0, 1.0)


def coin(seen: bool | None = None, confirm: int = 256, draws: int = 20) -> Model:
    """Two classes; a draw at x is class 1 with probability x. `seen`: whether the first draws are all class 1."""

    def draw(x: Tensor, number: int) -> Tensor:
        u = Draws(row_keys(7, [str(number)], "coin")).uniform((1,), dtype=torch.float64)[0]
        one = (u < x.double()).float()
        if seen is not None and number < draws:
            one = torch.full_like(one, float(seen))
        return torch.cat([1 - one, one], 1)

    def fn(x: Tensor) -> Tensor:
        return torch.stack([draw(x, i) for i in range(draws)]).mean(0)

    return Model(fn, UNIT, 2, Access.SCORES, "coin", (1,), sampling=Sampling(draw, draws, confirm))


def points(*p: float) -> tuple[Tensor, Tensor]:
    return torch.tensor(p)[:, None], torch.zeros(len(p), dtype=torch.int64)


def test_a_point_breaks_the_model_only_if_a_single_answer_is_surely_wrong_more_often_than_right():
    found = count(coin(seen=True), Untargeted(), *points(0.0, 0.3, 0.5, 0.7, 1.0))
    assert found.drawn.tolist() == [256] * 5
    assert (found.value <= 0).tolist() == [False, False, False, True, True]
    assert found.wrong[0] == 0
    assert found.value[0] == 1
    assert found.failure_probability.tolist() == [0.0] + [1e-6] * 4
    assert found.value[4] == pytest.approx(1 - 2 * 1e-6 ** (1 / 256))  # L(n, n) = α^(1/n)


def test_the_bound_fails_no_more_often_than_it_says():
    """P(value < true margin) by summing the binomial over all counts, for many true shares."""
    n, how = 40, Sampling(lambda x, i: x, 40, 40, failure=0.01)
    limits = [count_limit(k, n, how.failure) for k in range(n + 1)]
    for p in (0.05, 0.2, 0.5, 0.51, 0.8, 0.99):
        fails = sum(binom.pmf(k, n, p) for k in range(n + 1) if limits[k] > p)
        assert fails <= how.failure + 1e-12


def count_limit(k: int, n: int, failure: float) -> float:
    """The limit that `count` uses for k wrong draws of n."""
    wrong = torch.arange(n) < k
    told = Sampling(lambda x, i: torch.tensor([[0.5, float(i == 0 or wrong[i - 1])]]).repeat(len(x), 1), 1, n, failure)
    model = Model(lambda x: x, UNIT, 2, Access.SCORES, "told", (1,), sampling=told)
    return float((1 - count(model, Untargeted(), *points(0.5)).value[0]) / 2)


def test_how_many_are_drawn_is_decided_by_other_draws():
    """A point that the optimised draws do not break costs few draws; they are none of those that judge."""
    few, many = (count(coin(seen=s), Untargeted(), *points(1.0)) for s in (False, True))
    assert (few.drawn.tolist(), few.wrong.tolist()) == ([20], [20])  # fresh ones: the first 20 were all right
    assert (many.drawn.tolist(), many.wrong.tolist()) == ([256], [256])


def test_draws_that_are_not_finite_are_no_success():
    model = coin(seen=True)
    bad = replace(model, sampling=Sampling(lambda x, i: torch.full((len(x), 2), torch.nan), 20))
    found = count(bad, Untargeted(), *points(1.0))
    assert (found.wrong[0], found.value[0]) == (0, 1)


def test_a_replay_counts_the_same_draws_again_and_membership_stays_exact():
    model, (x, y) = coin(), points(0.55, 0.9)
    threat = Threat(Linf("0.1", box=UNIT))
    first, again = (replay(model, threat.canonical(), x, y, x + 0.05) for _ in range(2))
    assert first.counted is not None
    assert again.counted is not None
    assert torch.equal(first.counted.wrong, again.counted.wrong)
    assert bool(first.allowed.all())
    assert (first.value <= 0).tolist() == [False, True]
    outside = replay(model, threat.canonical(), x, y, x + 0.2)
    assert bool(outside.value.isnan().all())


def test_a_model_that_is_not_random_has_nothing_to_count():
    plain = Model(lambda x: x, UNIT, 2, Access.SCORES, "plain", (2,))
    with pytest.raises(NotAvailable, match="no draws to count"):
        count(plain, Untargeted(), torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
