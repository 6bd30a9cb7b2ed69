"""Ridge logistic regression of two classes with limits on the weights: the base learner of the other methods.

    min over l ≤ w ≤ u, b of  λ/2 ‖w‖² + 1/n Σ_i log(1 + e^(−y_i (⟨w, x_i⟩ + b))),     y_i = ±1

Strictly convex; L-BFGS-B. `residual` is the KKT residual: the largest entry of w − clip(w − ∇, l, u).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import expit

from saddlepoint.core.errors import InputError

_RESIDUAL = 1e-5


@dataclass(frozen=True, eq=False)
class Logistic:
    """The minimiser, its objective and KKT residual."""

    w: Float[np.ndarray, " d"]
    b: float
    objective: float
    residual: float


def logistic(
    x: Float[np.ndarray, "n d"],
    sign: Float[np.ndarray, " n"],
    ridge: float,
    lower: Float[np.ndarray, " d"] | None = None,
) -> Logistic:
    """The minimiser over w ≥ lower. Raises InputError where L-BFGS-B does not reach a small KKT residual."""
    n, d = x.shape
    low = np.append(np.full(d, -np.inf) if lower is None else lower, -np.inf)

    def objective(v: np.ndarray) -> tuple[float, np.ndarray]:
        m = sign * (x @ v[:d] + v[d])
        pull = -sign * expit(-m) / n
        value = np.logaddexp(0.0, -m).mean() + ridge / 2 * (v[:d] ** 2).sum()
        return float(value), np.append(x.T @ pull + ridge * v[:d], pull.sum())

    start = np.maximum(np.zeros(d + 1), low)
    options = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=[(v, None) for v in low], options=options)
    value, gradient = objective(found.x)
    residual = float(np.abs(found.x - np.maximum(found.x - gradient, low)).max())
    if residual > _RESIDUAL:
        raise InputError(
            f"Logistic regression stopped with a KKT residual of {residual:.1e}.", "Scale the features, or raise ridge."
        )
    return Logistic(found.x[:d], float(found.x[d]), value, residual)
