"""Deletion of features at test time (Globerson & Roweis, "Nightmare at Test Time", ICML 2006): at most K are set to 0.

    s_i(w) = sum of the K largest positive y_i w_j x_ij          what deletion costs sample i at worst,  y_i = ±1

Exact for linear models with two classes, by sorting. No forwards or backwards.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from saddlepoint.training.linear.predictor import LinearFit


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
    """Share of samples that some deletion of K features misclassifies, exactly (two classes)."""
    x, sign = np.asarray(x, dtype=np.float64).reshape(len(x), -1), 2.0 * np.asarray(y) - 1.0
    w, b = fit.weight[1] - fit.weight[0], fit.bias[1] - fit.bias[0]
    margins = sign * (x @ w + b) - deletion_cost(w, x, sign, deleted)
    return float((margins <= 0).mean())
