"""Feature reweighting (Kolcz & Teo, "Feature Weighting for Improved Classifier Robustness", CEAS 2009).

    w⁰ = fit on x;      a_j = (|w⁰_j| + mean |w⁰|)^(−γ), scaled to mean 1;      w = fit on a ⊙ x, read back as a ⊙ w

An adversary deletes or forges what weighs most. Features that a first fit leans on are scaled down, so that the ridge
makes the second fit spread its weight over the others. γ = 0 is the first fit. Two logistic regressions, two classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.training.linear.logistic import logistic
from saddlepoint.training.linear.predictor import LinearFit, binary, samples


@dataclass(frozen=True)
class FeatureWeighting:
    """`strength` is γ ≥ 0, `ridge` is λ > 0."""

    strength: float = 1.0
    ridge: float = 1e-2

    def __post_init__(self) -> None:
        if not self.strength >= 0 or not self.ridge > 0:
            raise InputError(f"strength={self.strength}, ridge={self.ridge}.", "Give strength ≥ 0 and ridge > 0.")

    def fit(self, x: Float[np.ndarray, "n ..."], y: Int64[np.ndarray, " n"]) -> LinearFit:
        """Weights on the features as they came; the objective is the second fit's, at its minimum."""
        features, sign = two_classes(x, y)
        first = np.abs(logistic(features, sign, self.ridge).w)
        scale = (first + max(float(first.mean()), 1e-12)) ** -self.strength
        scale /= scale.mean()
        second = logistic(features * scale, sign, self.ridge)
        return binary(scale * second.w, second.b, second.objective)


def two_classes(x: np.ndarray, y: np.ndarray) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
    """Features, and labels as ±1. Raises NotAvailable for more than two classes."""
    features, labels, k = samples(x, y)
    if k != 2:
        raise NotAvailable(f"{k} classes: this method is made for two.", "Train one class against the rest.")
    return features, 2.0 * labels - 1.0


def evenness(fit: LinearFit) -> float:
    """Entropy of |w| / Σ|w| as a share of log d: 1 where all features weigh the same."""
    p = np.abs(fit.weight[1] - fit.weight[0])
    p = p[p > 0] / p.sum()
    return float(-(p * np.log(p)).sum() / np.log(fit.weight.shape[1]))
