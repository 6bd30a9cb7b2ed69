"""Linear models: the optimum of other solvers, closed forms against enumeration, and what the methods are for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from scipy.special import logsumexp

import saddlepoint as sp
from saddlepoint.core.errors import DataError, InputError, NotAvailable
from saddlepoint.data import load
from saddlepoint.training.linear import (
    FeatureDeletion,
    FeatureWeighting,
    MonotoneLinear,
    RobustLinear,
    SubspaceEnsemble,
)
from saddlepoint.training.linear.deletion import deletion_cost, deletion_error
from saddlepoint.training.linear.logistic import logistic
from saddlepoint.training.linear.monotone import addition_error
from saddlepoint.training.linear.norms import LOSS, epigraph
from saddlepoint.training.linear.predictor import binary, samples
from saddlepoint.training.linear.programme import Programme
from saddlepoint.training.linear.robust import robust_error, worst_margins
from saddlepoint.training.linear.weighting import evenness

BALLS = {"linf": sp.Linf("0.3"), "l2": sp.L2("0.5"), "l1": sp.L1("0.7")}
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


def _clouds(n: int = 60, d: int = 6, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping Gaussian clouds: no classifier separates them."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return random.normal(size=(n, d)) + 1.2 * random.normal(size=(classes, d))[y], y


def _digits(split: str, pair: tuple[int, int] = (4, 7)) -> tuple[np.ndarray, np.ndarray]:
    batch = load(f"digits:{split}")
    everything = batch.take(range(len(batch)))
    y = everything.y.numpy()
    keep = np.isin(y, pair)
    return everything.x.numpy().reshape(len(y), -1)[keep].astype(np.float64), (y[keep] == pair[1]).astype(np.int64)


def test_the_robust_svm_reaches_the_linear_programme_written_out() -> None:
    # T5, with w = w⁺ − w⁻: min mean ξ, y(⟨w, x⟩ + b) − ε Σ(w⁺ + w⁻) ≥ 1 − ξ
    x, y = _clouds()
    n, d = x.shape
    sign = 2 * y - 1.0
    a = np.hstack([sign[:, None] * x - 0.3, -sign[:, None] * x - 0.3, sign[:, None], -sign[:, None], np.eye(n)])
    expected = linprog(np.r_[np.zeros(2 * d + 2), np.full(n, 1 / n)], A_ub=-a, b_ub=-np.ones(n)).fun
    fit = RobustLinear(BALLS["linf"]).fit(x, y)
    assert fit.objective == pytest.approx(expected, abs=1e-8)
    assert -1e-9 <= fit.gap <= 1e-6


@pytest.mark.parametrize("kind", BALLS)
@pytest.mark.parametrize(("loss", "ridge"), [("hinge", 0.0), ("hinge", 0.05), ("logistic", 0.0), ("logistic", 0.05)])
def test_the_gap_is_small_and_no_direction_improves(kind: str, loss: str, ridge: float) -> None:
    x, y = _clouds()
    fit = RobustLinear(BALLS[kind], loss, ridge).fit(x, y)
    assert fit.gap <= 1e-6

    def objective(v: np.ndarray) -> float:
        m = (2 * y - 1) * (x @ v[:-1] + v[-1]) - float(BALLS[kind].size) * np.linalg.norm(v[:-1], DUAL[kind])
        losses = np.maximum(1 - m, 0) if loss == "hinge" else np.logaddexp(0, -m)
        return losses.mean() + ridge / 2 * (v[:-1] ** 2).sum()

    v = np.append(fit.weight[1] - fit.weight[0], fit.bias[1] - fit.bias[0])
    assert objective(v) == pytest.approx(fit.objective, abs=1e-12)
    # an independent descent from there, and from elsewhere, finds nothing lower than the bound
    for start in (v, v + 0.1, np.zeros_like(v)):
        other = minimize(objective, start, method="Powell", options={"maxiter": 20})
        assert other.fun >= fit.bound - 1e-9
        if start is v:
            assert other.fun >= fit.objective - 1e-6


@pytest.mark.parametrize("kind", ["linf", "l1"])
@pytest.mark.parametrize(("loss", "ridge"), [("hinge", 0.0), ("logistic", 0.0), ("hinge", 0.05)])
def test_three_classes(kind: str, loss: str, ridge: float) -> None:
    x, y = _clouds(45, 4, 3)
    ball = BALLS[kind]
    fit = RobustLinear(ball, loss, ridge).fit(x, y)
    assert fit.gap <= 1e-6 * max(1.0, fit.objective)
    margins = worst_margins(fit, x, y, ball)
    value = np.maximum(0, 1 - margins).max(1) if loss == "hinge" else logsumexp(np.c_[np.zeros(45), -margins], axis=1)
    assert fit.objective == pytest.approx(value.mean() + ridge / 2 * (fit.weight**2).sum(), abs=1e-12)


def test_the_worst_margins_are_those_of_the_set() -> None:
    # T2, T4: minus the set's support at w_j − w_y, for every norm
    x, y = _clouds(20, 5, 3)
    fit = RobustLinear(BALLS["linf"]).fit(x, y)
    points = torch.from_numpy(x)
    for ball in BALLS.values():
        found = worst_margins(fit, x, y, ball)
        for i in range(20):
            others = [j for j in range(3) if j != y[i]]
            rows = torch.from_numpy(fit.weight[others] - fit.weight[y[i]])[None]
            worst = ball.support(points[i : i + 1], rows)[0].numpy()
            assert found[i] == pytest.approx(fit.bias[y[i]] - fit.bias[others] - worst, abs=1e-9)


def test_robust_error_is_that_of_the_vertices() -> None:
    x, y = _clouds(30, 5)
    ball = sp.Linf("0.2")
    fit = RobustLinear(ball, ridge=0.01).fit(x, y)
    corners = np.array(list(itertools.product((-0.2, 0.2), repeat=5)))
    z = (x[:, None] + corners) @ (fit.weight[1] - fit.weight[0]) + fit.bias[1] - fit.bias[0]
    assert robust_error(fit, x, y, ball) == ((2 * y - 1)[:, None] * z <= 0).any(1).mean()


def test_the_tower_of_cones_is_the_norm_to_its_stated_loss() -> None:
    random = np.random.default_rng(1)
    for d in (1, 2, 3, 7):
        value = random.normal(size=d)
        p = Programme()
        e = p.columns(d)
        p.rows([(e, np.eye(d))], lower=value, upper=value)
        s = epigraph(p, e, 2.0)
        p._highs.changeColsCost(1, s, np.ones(1))
        found, length = p.solve()[0], np.linalg.norm(value)
        assert (1 - LOSS) ** 3 * length - 1e-8 <= found <= length + 1e-8


def test_robust_training_is_robust_and_the_module_says_the_same() -> None:
    (x, y), (x_test, y_test) = _digits("train"), _digits("test")
    ball = sp.Linf("0.15")
    plain = RobustLinear(sp.Linf("0"), "logistic", 1e-3).fit(x, y)
    hard = RobustLinear(ball, "logistic", 1e-3).fit(x, y)
    assert robust_error(hard, x_test, y_test, ball) < 0.5 * robust_error(plain, x_test, y_test, ball)
    module = hard.module(torch.float64)
    z = module(torch.from_numpy(x_test.reshape(-1, 1, 8, 8)))
    assert z.numpy() == pytest.approx(hard.scores(x_test), abs=1e-12)
    model = sp.from_torch(hard.module(), domain=(0, 1), shape=(1, 8, 8))
    assert model.classes == 2


def test_deletion_cost_is_that_of_all_sets() -> None:
    random = np.random.default_rng(2)
    w, x, sign = random.normal(size=6), random.normal(size=(8, 6)), random.choice([-1.0, 1.0], 8)
    for k in range(7):
        sets = [s for r in range(k + 1) for s in itertools.combinations(range(6), r)]
        worst = [max(sum(sign[i] * w[j] * x[i, j] for j in s) for s in sets) for i in range(8)]
        assert deletion_cost(w, x, sign, k) == pytest.approx(worst, abs=1e-12)


def test_feature_deletion_reaches_the_optimum_of_the_dualised_programme() -> None:
    # Globerson & Roweis eq. 8: s_i = min K z + Σ v, z + v_j ≥ y x_j w_j, v ≥ 0, z ≥ 0; solved by another solver
    x, y = _clouds(14, 3)
    sign, n, d, k, ridge = 2 * y - 1.0, 14, 3, 1, 0.1
    fit = FeatureDeletion(k, ridge, 1e-6).fit(x, y)
    assert fit.gap <= 1e-6

    def split(v: np.ndarray) -> list[np.ndarray]:
        return np.split(v, np.cumsum([d, 1, n, n]))

    def value(v: np.ndarray) -> float:
        w, _, loss, _, _ = split(v)
        return loss.mean() + ridge / 2 * w @ w

    def slack(v: np.ndarray) -> np.ndarray:
        w, b, loss, z, u = split(v)
        u = u.reshape(n, d)
        hinge = loss - (1 - sign * (x @ w + b) + k * z + u.sum(1))
        return np.concatenate([hinge, (z[:, None] + u - sign[:, None] * x * w).ravel()])

    limits = [(None, None)] * (d + 1) + [(0, None)] * (2 * n + n * d)
    start = np.r_[np.zeros(d + 1), np.full(n, 2.0), np.ones(n), np.ones(n * d)]
    constraint = [{"type": "ineq", "fun": slack}]
    options = {"maxiter": 500, "ftol": 1e-10}
    other = minimize(value, start, method="SLSQP", bounds=limits, constraints=constraint, options=options)
    assert other.success
    assert fit.objective == pytest.approx(other.fun, abs=1e-5)


def test_deletion_training_beats_a_plain_machine_under_deletion() -> None:
    (x, y), (x_test, y_test) = _digits("train"), _digits("test")
    plain, hard = (FeatureDeletion(k, 1e-3, 1e-3).fit(x, y) for k in (0, 4))
    assert deletion_error(hard, x_test, y_test, 4) <= deletion_error(plain, x_test, y_test, 4) - 0.3
    assert deletion_error(hard, x_test, y_test, 0) <= deletion_error(plain, x_test, y_test, 0) + 0.05
    assert evenness(hard) > evenness(plain)
    errors = [deletion_error(hard, x_test, y_test, k) for k in range(0, 21, 4)]
    assert errors == sorted(errors)  # T14: more deletions, never fewer errors


def _curve(fit, x: np.ndarray, y: np.ndarray) -> float:
    """Mean accuracy over 0 … 20 worst deletions, each chosen against this model."""
    return float(np.mean([1 - deletion_error(fit, x, y, k) for k in range(21)]))


def test_even_weights_survive_more_deletions() -> None:
    (x, y), (x_test, y_test) = _digits("train"), _digits("test")
    base = FeatureWeighting(strength=0.0, ridge=1e-3).fit(x, y)
    weighted = FeatureWeighting(strength=1.0, ridge=1e-3).fit(x, y)
    ensemble = SubspaceEnsemble(members=50, share=0.2, ridge=1e-3).fit(x, y)
    plain = logistic(x, 2.0 * y - 1, 1e-3)
    assert base.weight[1] - base.weight[0] == pytest.approx(plain.w, abs=1e-3)  # γ = 0 changes nothing
    for fit in (weighted, ensemble):
        assert evenness(fit) > evenness(base)
        assert _curve(fit, x_test, y_test) >= 1.05 * _curve(base, x_test, y_test)
        assert deletion_error(fit, x_test, y_test, 0) <= deletion_error(base, x_test, y_test, 0) + 0.01


def test_the_ensemble_is_seeded_and_a_full_share_is_the_base_learner() -> None:
    x, y = _clouds()
    first, second = (SubspaceEnsemble(5, 0.5, seed=3).fit(x, y) for _ in range(2))
    assert np.array_equal(first.weight, second.weight)
    assert not np.array_equal(first.weight, SubspaceEnsemble(5, 0.5, seed=4).fit(x, y).weight)
    whole = SubspaceEnsemble(3, 1.0).fit(x, y)
    assert whole.weight[1] - whole.weight[0] == pytest.approx(logistic(x, 2.0 * y - 1, 1e-2).w, abs=1e-5)


def test_a_monotone_model_loses_nothing_to_additions() -> None:
    random = np.random.default_rng(0)
    y = np.arange(400) % 2
    rate = np.where(y[:, None] == 1, np.linspace(0.2, 0.8, 40), np.linspace(0.45, 0.35, 40))
    x = (random.random((400, 40)) < rate).astype(np.float64)
    free, monotone = logistic(x, 2.0 * y - 1, 1e-2), MonotoneLinear().fit(x, y)
    assert (monotone.weight[1] >= monotone.weight[0]).all()
    clean = addition_error(monotone, x, y, 0)
    assert clean < 0.15
    assert all(addition_error(monotone, x, y, k) == clean for k in (1, 5, 40))  # T24
    unconstrained = binary(free.w, free.b, free.objective)
    assert addition_error(unconstrained, x, y, 5) > clean + 0.2
    # brute force over pairs of additions
    w, b = free.w, free.b
    sets = [list(s) for r in range(3) for s in itertools.combinations(range(40), r)]
    worst = np.array([min(np.where(np.isin(range(40), s), 1.0, row) @ w + b for s in sets) for row in x[1:21:2]])
    assert addition_error(unconstrained, x[1:21:2], y[1:21:2], 2) == (worst <= 0).mean()
    some = MonotoneLinear(addable=(0, 1)).fit(x, y)
    assert (some.weight[1] - some.weight[0])[:2].min() >= 0 > (some.weight[1] - some.weight[0]).min()


def test_limited_logistic_regression_satisfies_its_optimality_conditions() -> None:
    x, y = _clouds(80, 5)
    sign = 2.0 * y - 1
    fit = logistic(x, sign, 0.1, np.zeros(5))
    gradient = x.T @ (-sign / (1 + np.exp(sign * (x @ fit.w + fit.b)))) / 80 + 0.1 * fit.w
    assert fit.residual < 1e-5
    assert (fit.w >= 0).all()
    assert np.abs(gradient[fit.w > 1e-6]).max() < 1e-5
    assert (gradient[fit.w <= 1e-6] >= -1e-5).all()


def test_what_cannot_be_solved_is_said() -> None:
    x, y = _clouds()
    with pytest.raises(NotAvailable, match="without a box"):
        RobustLinear(sp.Linf("0.1", box=sp.Box(0.0, 1.0)))
    with pytest.raises(NotAvailable, match="one against the rest"):
        RobustLinear(sp.L2("0.1")).fit(*_clouds(30, 4, 3))
    with pytest.raises(NotAvailable, match="one class against the rest"):
        FeatureWeighting().fit(*_clouds(30, 4, 3))
    with pytest.raises(DataError, match="two at least"):
        RobustLinear(sp.L1("0.1")).fit(x, np.zeros_like(y))
    with pytest.raises(DataError, match="NaN"):
        RobustLinear(sp.L1("0.1")).fit(np.full_like(x, np.nan), y)
    for wrong in (
        lambda: RobustLinear(BALLS["l1"], ridge=-1.0),
        lambda: FeatureWeighting(ridge=0.0),
        lambda: MonotoneLinear(ridge=0.0),
        lambda: SubspaceEnsemble(share=0.0),
    ):
        with pytest.raises(InputError):
            wrong()
    with pytest.raises(InputError, match="from 0 to 5"):
        MonotoneLinear(addable=(9,)).fit(x, y)


@pytest.mark.parametrize("seed", range(3))
def test_round_norms_with_a_ridge_come_to_an_end(seed: int) -> None:
    # nearly parallel tangents are no matter for a quadratic programme
    draw = np.random.default_rng(seed)
    x, y = draw.normal(size=(60, 5)), draw.integers(0, 2, 60)
    assert RobustLinear(sp.L2("1/4"), "hinge", ridge=0.01).fit(x, y).gap <= 1e-6


def test_labels_between_classes_are_refused() -> None:
    with pytest.raises(DataError, match="whole"):
        samples(np.eye(3), np.array([0.0, 1.0, 0.5]))


def test_errors_are_counted_on_samples_of_the_fits_own_kind_only() -> None:
    x, y = _clouds()
    fit = RobustLinear(BALLS["linf"]).fit(x, y)
    three = RobustLinear(BALLS["linf"]).fit(*_clouds(classes=3))
    errors = {
        "robust": lambda f, x, y: robust_error(f, x, y, BALLS["linf"]),
        "deletion": lambda f, x, y: deletion_error(f, x, y, 1),
        "addition": lambda f, x, y: addition_error(f, x, y, 1),
    }
    for error in errors.values():
        whole = error(fit, x, y)
        assert error(fit, x, y.astype(bool)) == error(fit, x, y.astype(float)) == whole
        for wrong in (np.full_like(x, np.nan), np.where(np.arange(len(x))[:, None] % 2, np.nan, x)):
            with pytest.raises(DataError, match="NaN"):
                error(fit, wrong, y)
        for labels in (2 * y - 1, y + 1, y + 0.5, y[:-1]):
            with pytest.raises(DataError, match="abel"):
                error(fit, x, labels)
        with pytest.raises(DataError, match="features"):
            error(fit, x[:, 1:], y)
    for name in ("deletion", "addition"):
        with pytest.raises(NotAvailable, match="3 classes"):
            errors[name](three, x, y)
    for count in (deletion_error, addition_error):
        with pytest.raises(InputError, match="-1"):
            count(fit, x, y, -1)
