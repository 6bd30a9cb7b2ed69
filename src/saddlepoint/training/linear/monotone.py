"""Monotone linear models for threats that can only add (Šrndić & Laskov 2013; Incer et al., "Adversarially Robust
Malware Detection Using Monotonic Classification", 2018).

    z₁ − z₀ = ⟨w, x⟩ + b with w_j ≥ 0 for every feature j that the adversary can raise

Adding cannot lower the score of class 1, so no sample of class 1 is ever turned into class 0: accuracy on class 1 under
any number of additions equals clean accuracy (T24). Nothing is promised for class 0, whose owner has no reason to add.
One logistic regression with limits on the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from saddlepoint.core.errors import InputError
from saddlepoint.training.linear.logistic import logistic
from saddlepoint.training.linear.predictor import LinearFit, binary, judged_pair
from saddlepoint.training.linear.weighting import two_classes


@dataclass(frozen=True)
class MonotoneLinear:
    """`addable`: numbers of the features that can be raised; None: all. Class 1 is the one to be kept detected."""

    addable: tuple[int, ...] | None = None
    ridge: float = 1e-2

    def __post_init__(self) -> None:
        if not self.ridge > 0:
            raise InputError(f"ridge={self.ridge}.", "Give ridge > 0.")

    def fit(self, x: Float[np.ndarray, "n ..."], y: Int64[np.ndarray, " n"]) -> LinearFit:
        """The minimiser over weights ≥ 0 on the addable features."""
        features, sign = two_classes(x, y)
        found = logistic(features, sign, self.ridge, self._limits(features.shape[1]))
        return binary(found.w, found.b, found.objective)

    def _limits(self, d: int) -> np.ndarray:
        chosen: Sequence[int] = range(d) if self.addable is None else self.addable
        if any(not 0 <= j < d for j in chosen):
            raise InputError(f"addable={list(chosen)} with {d} features.", f"Give numbers from 0 to {d - 1}.")
        limits = np.full(d, -np.inf)
        limits[list(chosen)] = 0.0
        return limits


def addition_error(fit: LinearFit, x: np.ndarray, y: np.ndarray, additions: int, ceiling: float = 1.0) -> float:
    """Share of errors when class 1 may raise at most so many features to `ceiling`, exactly.

    Raises NotAvailable for more than two classes, InputError for fewer than 0 additions or a ceiling that is no
    number, DataError for samples that are not the fit's.
    """
    if additions < 0 or not np.isfinite(ceiling):
        raise InputError(f"additions={additions}, ceiling={ceiling}.", "Give 0 or more, up to a finite ceiling.")
    x, labels = judged_pair(fit, x, y)
    w, b = fit.weight[1] - fit.weight[0], fit.bias[1] - fit.bias[0]
    falls = np.minimum((ceiling - x).clip(min=0) * w, 0.0)  # what raising each feature does to the score
    worst = np.sort(falls, axis=1)[:, :additions].sum(1)
    score = x @ w + b
    return float(np.where(labels == 1, score + worst <= 0, score >= 0).mean())
