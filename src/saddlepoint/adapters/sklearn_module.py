"""scikit-learn estimators rebuilt as torch modules in their own precision: linear, kernel, MLP, pipelines.

    linear    z = X Wᵀ + c             MLP    z = W_L a(… a(W_1 x + c_1) …) + c_L
    kernel    z = Σᵢ αᵢ k(sᵢ, x) + c,  k = exp(−γ‖s − x‖²), (γ s·x + r)^d, tanh(γ s·x + r), s·x
    scaler    x ↦ (x − shift) / scale

The rebuilt module is compared with the estimator's own scores before it is used (`from_sklearn`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler
from sklearn.svm import SVC, NuSVC
from torch import Tensor, nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "logistic": nn.Sigmoid,
    "identity": nn.Identity,
}


def rebuilt(estimator: Any) -> nn.Module | None:
    """A module giving the estimator's decision scores, one column for two classes; None where there is none."""
    if isinstance(estimator, Pipeline):
        steps = [_step(s) for _, s in estimator.steps[:-1] if s is not None and s != "passthrough"]
        last = rebuilt(estimator.steps[-1][1])
        known = [s for s in steps if s is not None]
        return None if last is None or len(known) < len(steps) else nn.Sequential(*known, last)
    if isinstance(estimator, MLPClassifier):
        return _mlp(estimator)
    if isinstance(estimator, (SVC, NuSVC)):
        return _kernel(estimator)
    if _is_linear(estimator):
        return _linear(estimator.coef_, estimator.intercept_)
    return None


def _is_linear(estimator: Any) -> bool:
    """Scores are X coef_ᵀ + intercept_: as scikit-learn's LinearClassifierMixin computes them."""
    kinds = {k.__name__ for k in type(estimator).__mro__ if k.__module__.startswith("sklearn.")}
    return "LinearClassifierMixin" in kinds and hasattr(estimator, "coef_")


def _linear(weight: Any, bias: Any) -> nn.Linear:
    w = np.array(np.atleast_2d(weight.toarray() if hasattr(weight, "toarray") else weight))
    c = np.broadcast_to(np.asarray(bias, w.dtype).reshape(-1), (len(w),)).copy()
    layer = nn.Linear(w.shape[1], w.shape[0], dtype=torch.from_numpy(w[:0]).dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(w))
        layer.bias.copy_(torch.from_numpy(c))
    return layer


def _mlp(estimator: MLPClassifier) -> nn.Module:
    activation = _ACTIVATIONS[estimator.activation]
    layers: list[nn.Module] = []
    for weight, bias in zip(estimator.coefs_, estimator.intercepts_, strict=True):
        layers += [_linear(np.asarray(weight).T, bias), activation()]
    return nn.Sequential(*layers[:-1])  # scores before the softmax or logistic output


def _step(step: Any) -> nn.Module | None:
    fitted: Any = step  # scikit-learn declares fitted attributes as optional
    if isinstance(step, StandardScaler):
        n = fitted.n_features_in_
        shift = fitted.mean_ if fitted.with_mean else np.zeros(n)
        return Affine(shift, fitted.scale_ if fitted.with_std else np.ones(n))
    if isinstance(step, MinMaxScaler) and not fitted.clip:
        return Affine(-fitted.min_ / fitted.scale_, 1 / fitted.scale_)
    if isinstance(step, MaxAbsScaler):
        return Affine(np.zeros_like(fitted.scale_), fitted.scale_)
    if isinstance(step, PCA):
        scale = np.sqrt(fitted.explained_variance_) if fitted.whiten else np.ones(len(fitted.components_))
        weight = fitted.components_ / scale[:, None]
        return _linear(weight, -weight @ fitted.mean_)
    return None


class Affine(nn.Module):
    """(x − shift) / scale, per feature."""

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: np.ndarray, scale: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("shift", torch.from_numpy(np.array(shift, np.float64)))
        self.register_buffer("scale", torch.from_numpy(np.array(scale, np.float64)))

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) -> (b, d)."""
        return (x - self.shift) / self.scale


def _kernel(estimator: SVC | NuSVC) -> nn.Module | None:
    """Two classes only: with more, libsvm lets pairs vote, which is no function with useful gradients."""
    if len(estimator.classes_) != 2 or callable(estimator.kernel) or estimator.kernel == "precomputed":
        return None
    if estimator.kernel == "linear":
        return _linear(estimator.coef_, estimator.intercept_)
    if hasattr(estimator.support_vectors_, "toarray"):
        return None
    return Kernel(estimator)


class Kernel(nn.Module):
    """Σᵢ αᵢ k(sᵢ, x) + c for the rbf, poly and sigmoid kernels."""

    points: Tensor
    weights: Tensor
    constant: Tensor

    def __init__(self, estimator: Any) -> None:
        super().__init__()
        self.kind = str(estimator.kernel)
        # the fitted γ ("scale" and "auto" depend on the training data) is kept under a private name only
        self.gamma = float(estimator._gamma)
        self.degree = int(estimator.degree)
        self.coef0 = float(estimator.coef0)
        self.register_buffer("points", torch.from_numpy(np.array(estimator.support_vectors_, np.float64)))
        self.register_buffer("weights", torch.from_numpy(np.array(estimator.dual_coef_, np.float64)))
        self.register_buffer("constant", torch.from_numpy(np.array(estimator.intercept_, np.float64)))

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) -> (b, 1)."""
        if self.kind == "rbf":
            squares = ((x[:, None] - self.points) ** 2).sum(-1)  # no cancellation, unlike ‖x‖² − 2x·s + ‖s‖²
            k = torch.exp(-self.gamma * squares)
        else:
            inner = self.gamma * x @ self.points.T + self.coef0
            k = inner**self.degree if self.kind == "poly" else torch.tanh(inner)
        return k @ self.weights.T + self.constant

    def extra_repr(self) -> str:
        """Parameters that are no tensors, for the digest."""
        return f"{self.kind}, gamma={self.gamma!r}, degree={self.degree}, coef0={self.coef0!r}"
