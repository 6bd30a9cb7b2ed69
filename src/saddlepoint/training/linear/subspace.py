"""Random-subspace ensembles (Biggio, Fumera & Roli, "Multiple Classifier Systems for Robust Classifier Design in
Adversarial Environments", 2010).

    w = 1/B Σ_k w^(k),    w^(k) fitted on a random share of the features, 0 on the others

The mean of linear scores is linear, so the ensemble is one linear model. A member that does not see the strongest
features must lean on others; their mean is more even, and forging a few features moves it less.
B logistic regressions, two classes. Features of member k are keyed by (seed, k).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from saddlepoint.core.errors import InputError
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.training.linear.logistic import logistic
from saddlepoint.training.linear.predictor import LinearFit, binary
from saddlepoint.training.linear.weighting import two_classes


@dataclass(frozen=True)
class SubspaceEnsemble:
    """`members` is B; `share` of the features each of them sees."""

    members: int = 30
    share: float = 0.5
    ridge: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.members < 1 or not 0 < self.share <= 1 or not self.ridge > 0:
            raise InputError(
                f"members={self.members}, share={self.share}, ridge={self.ridge}.",
                "Give members ≥ 1, share in (0, 1] and ridge > 0.",
            )

    def fit(self, x: Float[np.ndarray, "n ..."], y: Int64[np.ndarray, " n"]) -> LinearFit:
        """The members' mean; the objective is the mean of theirs."""
        features, sign = two_classes(x, y)
        d = features.shape[1]
        draws = Draws(row_keys(self.seed, [str(k) for k in range(self.members)], "subspace"))
        order = draws.uniform((d,)).argsort(dim=1, stable=True)[:, : max(1, round(self.share * d))].numpy()
        w, b, objective = np.zeros(d), 0.0, 0.0
        for chosen in order:
            fit = logistic(features[:, chosen], sign, self.ridge)
            w[chosen] += fit.w / self.members
            b += fit.b / self.members
            objective += fit.objective / self.members
        return binary(w, b, objective)
