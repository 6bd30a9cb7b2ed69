"""Exact binomial limits.

Clopper and Pearson (1934): with k of n, the lower limit is the α/2 quantile of Beta(k, n − k + 1) and the upper
limit the 1 − α/2 quantile of Beta(k + 1, n − k). They cover the truth with probability ≥ 1 − α for every p.
"""

from __future__ import annotations

from scipy.stats import beta

from saddlepoint.core.errors import InputError


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided limits of p after k of n; (0, 1) when nothing was seen.

    >>> [round(limit, 4) for limit in clopper_pearson(0, 100)]
    [0.0, 0.0362]
    """
    if not 0 <= k <= n:
        raise InputError(f"{k} of {n} is no count.")
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} is not between 0 and 1.", "0.95 is usual.")
    alpha = 1 - confidence
    lower = float(beta.ppf(alpha / 2, k, n - k + 1)) if k > 0 else 0.0
    upper = float(beta.ppf(1 - alpha / 2, k + 1, n - k)) if k < n else 1.0
    return lower, upper
