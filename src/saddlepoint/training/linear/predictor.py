"""What a linear training method gives back: weights, and how far its objective can be from the optimum.

    z = W x + b,    optimum in [bound, objective]

`module` is a plain torch network that `from_torch` takes. With two classes W holds (−w/2, w/2): z₁ − z₀ = ⟨w, x⟩ + b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import nn

from saddlepoint.core.errors import DataError, NotAvailable


@dataclass(frozen=True, eq=False)
class LinearFit:
    """W (k, d), b (k,), the objective at them, and a lower bound of its minimum (−∞ where a method has none)."""

    weight: Float[np.ndarray, "k d"]
    bias: Float[np.ndarray, " k"]
    objective: float
    bound: float = -np.inf

    @property
    def gap(self) -> float:
        """objective − bound: how much lower the optimum can be."""
        return self.objective - self.bound

    def scores(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """z."""
        return x @ self.weight.T + self.bias

    def module(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Flatten and Linear, in evaluation mode."""
        layer = nn.Linear(self.weight.shape[1], self.weight.shape[0], dtype=dtype)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(self.weight))
            layer.bias.copy_(torch.from_numpy(self.bias))
        return nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)


def binary(w: Float[np.ndarray, " d"], b: float, objective: float, bound: float = -np.inf) -> LinearFit:
    """From the difference of scores ⟨w, x⟩ + b."""
    return LinearFit(np.stack([-w / 2, w / 2]), np.array([-b / 2, b / 2]), objective, bound)


def samples(x: Float[np.ndarray, "n ..."], y: np.ndarray) -> tuple[Float[np.ndarray, "n d"], np.ndarray, int]:
    """x as float64 (n, d), y as integers 0..k−1, k. Raises DataError for what no classifier can be trained on."""
    features, labels = _rows(x, y)
    if labels.min() < 0 or len(np.unique(labels)) < 2:
        raise DataError(f"Labels {np.unique(labels).tolist()} are no classes.", "Give classes from 0, two at least.")
    return features, labels, int(labels.max()) + 1


def judged(
    fit: LinearFit, x: Float[np.ndarray, "n ..."], y: np.ndarray
) -> tuple[Float[np.ndarray, "n d"], Int64[np.ndarray, " n"]]:
    """x and y as `samples` gives them, for a fit that is there. Raises DataError where they are not of its kind."""
    features, labels = _rows(x, y)
    k, d = fit.weight.shape
    if features.shape[1] != d:
        raise DataError(f"The samples have {features.shape[1]} features, the model {d}.")
    if labels.min() < 0 or labels.max() >= k:
        raise DataError(f"Labels {np.unique(labels).tolist()} are not all among its {k} classes.", "Count from 0.")
    return features, labels


def judged_pair(
    fit: LinearFit, x: Float[np.ndarray, "n ..."], y: np.ndarray
) -> tuple[Float[np.ndarray, "n d"], Int64[np.ndarray, " n"]]:
    """The same for a fit of two classes. Raises NotAvailable for more."""
    if len(fit.weight) != 2:
        raise NotAvailable(f"{len(fit.weight)} classes: this error is counted for two.", "Take one against the rest.")
    return judged(fit, x, y)


def _rows(x: np.ndarray, y: np.ndarray) -> tuple[Float[np.ndarray, "n d"], Int64[np.ndarray, " n"]]:
    features = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    given = np.asarray(y)
    labels = given.astype(np.int64)
    if not np.array_equal(labels, given):
        raise DataError("Labels are not whole numbers.", "Give classes from 0.")
    if len(features) == 0 or labels.shape != (len(features),):
        raise DataError(f"{len(features)} samples and labels of shape {labels.shape}.", "Give one label a sample.")
    if not np.isfinite(features).all():
        raise DataError("The features hold NaN or infinity.")
    return features, labels
