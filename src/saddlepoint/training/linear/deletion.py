"""Feature deletion (Globerson & Roweis, "Nightmare at Test Time", ICML 2006): at most K features are set to 0.

    min over w, b of  λ/2 ‖w‖² + 1/n Σ_i [1 − y_i (⟨w, x_i⟩ + b) + s_i(w)]₊,     y_i = ±1
    s_i(w) = sum of the K largest positive y_i w_j x_ij          what deletion costs sample i at worst

s_i is a maximum over sets of K features, so this is a quadratic programme with one row per sample and set. Rows, and
tangents of w², are added as they are violated (sorting finds a sample's worst set); the optimum so far is a lower
bound, the true objective an upper one. Their eq. 8 dualises s_i into n d more columns instead; few sets ever matter.
Two classes. No forwards or backwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.training.linear.predictor import LinearFit, binary, judged_pair, samples
from saddlepoint.training.linear.programme import Programme, Squares, scaled_identity

_ROUNDS = 300


@dataclass(frozen=True)
class FeatureDeletion:
    """`deleted` is K; `ridge` is λ > 0; `tolerance` is relative to an objective of at least 1."""

    deleted: int
    ridge: float = 1e-2
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        if self.deleted < 0 or not self.ridge > 0 or not self.tolerance > 0:
            raise InputError(
                f"deleted={self.deleted}, ridge={self.ridge}, tolerance={self.tolerance}.",
                "Give deleted ≥ 0 and positive ridge and tolerance.",
            )

    def fit(self, x: Float[np.ndarray, "n ..."], y: Int64[np.ndarray, " n"]) -> LinearFit:
        """Weights whose objective is within the tolerance of the minimum, and the gap that is left."""
        features, labels, k = samples(x, y)
        if k != 2:
            raise NotAvailable(f"{k} classes: feature deletion is solved for two.", "Train one class against the rest.")
        sign, p = 2.0 * labels - 1.0, Programme()
        w, b = p.columns(features.shape[1]), p.columns(1)
        losses = p.columns(len(features), lower=0.0, cost=1 / len(features))
        squares = Squares(p, w, self.ridge)
        point, best = np.zeros(p.width), None
        for _ in range(_ROUNDS):
            kept = sign[:, None] * features * ~worst_deletion(point[w], features, sign, self.deleted)
            rows = np.flatnonzero(point[losses] < 1 - kept @ point[w] - sign * point[b] - self.tolerance / 4)
            if len(rows):
                # loss ≥ 1 − y (⟨w, x without the set⟩ + b) for the set that is worst here
                parts = [(w, kept[rows]), (b, sign[rows, None]), (losses[rows], scaled_identity(len(rows)))]
                p.rows(parts, lower=1.0)
            squares.cut(point, self.tolerance / 8)
            bound, point = p.solve()
            margins = sign * (features @ point[w] + point[b]) - deletion_cost(point[w], features, sign, self.deleted)
            objective = float(np.maximum(1 - margins, 0).mean() + self.ridge / 2 * (point[w] ** 2).sum())
            if best is None or objective < best.objective:
                best = binary(point[w], float(point[b][0]), objective, bound)
            if best.objective - bound <= self.tolerance * max(1.0, best.objective):
                return LinearFit(best.weight, best.bias, best.objective, bound)
        raise InputError(f"{_ROUNDS} rounds did not reach the tolerance.", "Raise ridge or tolerance.")


def worst_deletion(w: np.ndarray, x: np.ndarray, sign: np.ndarray, deleted: int) -> np.ndarray:
    """Bool (n, d): the features whose deletion lowers each margin most, K at most."""
    gain = sign[:, None] * x * w
    chosen = np.zeros(gain.shape, dtype=bool)
    if deleted:
        top = np.argsort(-gain, axis=1, kind="stable")[:, :deleted]
        np.put_along_axis(chosen, top, True, axis=1)
    return chosen & (gain > 0)


def deletion_cost(w: np.ndarray, x: np.ndarray, sign: np.ndarray, deleted: int) -> Float[np.ndarray, " n"]:
    """s_i: how much the worst deletion lowers each margin."""
    return (sign[:, None] * x * w * worst_deletion(w, x, sign, deleted)).sum(1)


def deletion_error(fit: LinearFit, x: np.ndarray, y: np.ndarray, deleted: int) -> float:
    """Share of samples that some deletion of K features misclassifies, exactly.

    Raises NotAvailable for more than two classes, InputError for K < 0, DataError for samples that are not the fit's.
    """
    if deleted < 0:
        raise InputError(f"deleted={deleted}.", "Give 0 or more.")
    x, labels = judged_pair(fit, x, y)
    sign = 2.0 * labels - 1.0
    w, b = fit.weight[1] - fit.weight[0], fit.bias[1] - fit.bias[0]
    margins = sign * (x @ w + b) - deletion_cost(w, x, sign, deleted)
    return float((margins <= 0).mean())
