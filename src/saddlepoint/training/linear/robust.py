"""ℓp-robust support vector machines and logistic regression, solved to a stated gap.

    min over W, b of  λ/2 Σ ‖w‖₂² + 1/n Σ_i loss( m_ij − ε ‖w_y − w_j‖_q : j ≠ y_i ),   m_ij = z_y(x_i) − z_j(x_i)

The dual norm is the exact worst case of each margin (T1, T2, T4), so hinge training is the exact min–max problem
(Xu, Caramanis & Mannor 2009, Theorem 3; Bertsimas et al. 2019, Theorem 3):
    hinge     max(0, max_j 1 − m_j)          maxima over δ and j commute: exact for any number of classes
    logistic  log(1 + Σ_j e^(−m_j))          exact for two classes; for more, an upper bound of the worst-case loss
With two classes w = w₁ − w₀ is the only variable, and λ weighs ‖w‖².

A linear programme: dual norms as rows (norms.py), every sample's convex loss and every w²/2 by tangents, added at each
point found until objective − optimum ≤ tolerance (Kelley 1960). Hinge with two classes is written out, and quadratic
for λ > 0 unless q = 2. The gap is part of the result. No forwards or backwards. Seconds for hundreds of samples of 64
features.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64
from scipy import sparse
from scipy.special import logsumexp, softmax

from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.geometry import PerturbationSet
from saddlepoint.training.linear.norms import dual_order, epigraph, norm, size_of, tangent
from saddlepoint.training.linear.predictor import LinearFit, binary, judged, samples
from saddlepoint.training.linear.programme import Programme, Squares, scaled_identity

_ROUNDS = 300


@dataclass(frozen=True)
class RobustLinear:
    """`ridge` is λ; `tolerance` is relative to an objective of at least 1."""

    set: PerturbationSet
    loss: Literal["hinge", "logistic"] = "hinge"
    ridge: float = 0.0
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        dual_order(self.set)
        if self.loss not in ("hinge", "logistic"):
            raise InputError(f"loss={self.loss!r}.", "Choose hinge or logistic.")
        if not self.ridge >= 0 or not self.tolerance > 0:
            raise InputError(f"ridge={self.ridge}, tolerance={self.tolerance}.", "Give ridge ≥ 0 and tolerance > 0.")

    def fit(self, x: Float[np.ndarray, "n ..."], y: Int64[np.ndarray, " n"]) -> LinearFit:
        """Weights whose objective is within the tolerance of the minimum.

        Raises InputError where tangents do not get there: without ridge, logistic regression of robustly separable
        data has no minimiser.
        """
        features, labels, k = samples(x, y)
        if k > 2 and self.set.kind == "l2":
            raise NotAvailable(
                f"{k} classes against an ℓ2 ball: the cone of every pair of classes is too slow for tangents.",
                "Fit two classes at a time (one against the rest), or train against Linf or L1.",
            )
        problem = _Problem(self, features, labels, k)
        best: LinearFit | None = None
        for _ in range(_ROUNDS):
            bound, point = problem.programme.solve()
            fit = problem.read(point, bound)
            best = fit if best is None or fit.objective < best.objective else best
            if best.objective - bound <= self.tolerance * max(1.0, best.objective):
                return LinearFit(best.weight, best.bias, best.objective, bound)
            problem.cut(point)
        raise InputError(
            f"After {_ROUNDS} rounds the objective is known to {best.gap if best else np.inf:.1e} only.",
            "Give ridge > 0 (separable data have no best logistic regression), or a larger tolerance.",
        )


class _Problem:
    """Columns: weights (blocks, d), biases, norms s of the pairs, margins (n, k − 1), losses (n,)."""

    def __init__(self, config: RobustLinear, x: np.ndarray, y: np.ndarray, k: int) -> None:
        self.config, self.x, self.y, self.k = config, x, y, k
        self.q, self.size = dual_order(config.set), size_of(config.set)
        self.programme = p = Programme()
        self.blocks = 1 if k == 2 else k
        self.round: list[tuple[np.ndarray, np.ndarray]] = []  # (e, s) of norms that grow by tangents
        n, d = x.shape
        self.w = p.columns(self.blocks * d).reshape(self.blocks, d)
        self.b = p.columns(self.blocks)
        self.losses = p.columns(n, lower=0.0, cost=1 / n)
        self.margins = p.columns(n * (k - 1)).reshape(n, k - 1)
        if k == 2:
            s = self._norm(self.w[0])
            sign = 2.0 * y - 1.0
            self._tie(np.arange(n), 0, [(self.w[0], sign[:, None] * x), (self.b, sign[:, None])], s)
        else:
            self._pairs()
        self.squares: Squares | None = None
        if config.ridge > 0 and config.loss == "hinge" and k == 2 and self.q != 2.0:
            p.square = (self.w.ravel(), config.ridge)
        elif config.ridge > 0:
            self.squares = Squares(p, self.w.ravel(), config.ridge)
        if config.loss == "hinge":
            self._all_pieces()
        else:
            self.cut(np.zeros(p.width))

    def _norm(self, e: np.ndarray) -> np.ndarray:
        """A column s ≥ ‖e‖_q."""
        if self.q != 2.0 or not self.config.ridge:
            return epigraph(self.programme, e, self.q)
        s = self.programme.columns(1, lower=0.0)
        self.round.append((e, s))
        return s

    def _pairs(self) -> None:
        """Differences of two classes' weights, their norms, and the margins of the samples they concern."""
        p, eye = self.programme, scaled_identity(self.x.shape[1])
        for a, c in itertools.combinations(range(self.k), 2):
            e = p.columns(self.x.shape[1])
            p.rows([(e, eye), (self.w[a], -eye), (self.w[c], eye)], lower=0.0, upper=0.0)
            s = self._norm(e)
            for own, other, sign in ((a, c, 1.0), (c, a, -1.0)):
                rows = np.flatnonzero(self.y == own)
                if len(rows):
                    ones = np.full((len(rows), 1), 1.0)
                    biases = [(self.b[[own]], ones), (self.b[[other]], -ones)]
                    place = other - (other > own)
                    self._tie(rows, place, [(e, sign * self.x[rows]), *biases], s)

    def _tie(self, rows: np.ndarray, place: int, parts: list[tuple[np.ndarray, np.ndarray]], s: np.ndarray) -> None:
        """margin = Σ parts − ε s."""
        mine = self.margins[rows, place]
        ties = [(mine, scaled_identity(len(rows), -1.0)), (s, np.full((len(rows), 1), -self.size))]
        self.programme.rows([*parts, *ties], lower=0.0, upper=0.0)

    def _all_pieces(self) -> None:
        """loss ≥ 1 − m_j for every j: with the column's lower limit 0, the whole hinge."""
        for j in range(self.k - 1):
            eye = scaled_identity(len(self.x))
            self.programme.rows([(self.losses, eye), (self.margins[:, j], eye)], lower=1.0)

    def cut(self, point: np.ndarray) -> None:
        """Tangents at a point: of each sample's loss that is too low there, and of round norms."""
        m = point[self.margins]
        value, slope = self._loss(m)
        rows = np.flatnonzero(point[self.losses] < value - self.config.tolerance / 4)
        if len(rows):
            # loss ≥ value + ⟨slope, m' − m⟩
            parts = [(self.losses[rows], scaled_identity(len(rows)))]
            parts += [(self.margins[rows, j], sparse.diags_array(-slope[rows, j])) for j in range(m.shape[1])]
            self.programme.rows(parts, lower=(value - (slope * m).sum(1))[rows])
        if self.squares is not None:
            self.squares.cut(point, self.config.tolerance / 8)
        for e, s in self.round:
            tangent(self.programme, e, s, point)

    def _loss(self, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loss (n,) of margins (n, k − 1), and a subgradient."""
        if self.config.loss == "hinge":
            worst = m.argmin(1)
            value = 1 - m[np.arange(len(m)), worst]
            slope = np.zeros_like(m)
            slope[np.arange(len(m)), worst] = np.where(value > 0, -1.0, 0.0)
            # at 0 loss the tangent is the hinge's other piece, which the column's lower limit holds already
            return np.maximum(value, 0.0), slope
        padded = np.concatenate([np.zeros((len(m), 1)), -m], axis=1)
        return np.asarray(logsumexp(padded, axis=1)), -np.asarray(softmax(padded, axis=1))[:, 1:]

    def read(self, point: np.ndarray, bound: float) -> LinearFit:
        """Weights at a point, with the true objective there."""
        w, b = point[self.w], point[self.b]
        fit = binary(w[0], float(b[0]), 0.0, bound) if self.k == 2 else LinearFit(w, b, 0.0, bound)
        value, _ = self._loss(worst_margins(fit, self.x, self.y, self.config.set))
        objective = float(value.mean() + self.config.ridge / 2 * (w**2).sum())
        return LinearFit(fit.weight, fit.bias, objective, bound)


def worst_margins(
    fit: LinearFit, x: Float[np.ndarray, "n ..."], y: np.ndarray, ball: PerturbationSet
) -> Float[np.ndarray, "n m"]:
    """min over the ball of z_y − z_j for each j ≠ y in order: margin − ε ‖w_y − w_j‖_q (T2, T4).

    Raises DataError for samples that are not the fit's: NaN, other features, labels that are none of its classes.
    """
    x, y = judged(fit, x, y)
    k = len(fit.weight)
    others = np.array([[j for j in range(k) if j != own] for own in range(k)])[y]
    z = fit.scores(x)
    lengths = norm(fit.weight[:, None] - fit.weight[None], dual_order(ball))
    plain = np.take_along_axis(z, y[:, None], 1) - np.take_along_axis(z, others, 1)
    return plain - size_of(ball) * lengths[y[:, None], others]


def robust_error(fit: LinearFit, x: np.ndarray, y: np.ndarray, ball: PerturbationSet) -> float:
    """Share of samples whose worst margin over the ball is ≤ 0, exactly. Raises: see `worst_margins`."""
    return float((worst_margins(fit, x, y, ball).min(1) <= 0).mean())
