"""Judging certificates of smoothed predictors: the claim is computed again from its counts, and the counts are doubted.

    P(f(x₀ + η) = y) ≥ L(k, n)  with probability ≥ 1 − failure          L: one-sided limit of Clopper and Pearson
    gaussian:  m* ≥ 2 Φ(Φ⁻¹(L) − r / σ) − 1          uniform on [−λ, λ]:  m* ≥ 2 L − 1 − r / λ

over S(x₀) within r of x₀, in ℓ2 (gaussian) or ℓ1 (uniform). m(x) = P(y) − max_j P(j) ≥ 2 P(y) − 1. The reach r of a
ball of another norm: ‖δ‖₂ ≤ ‖δ‖₁, ‖δ‖₂ ≤ √d ‖δ‖_∞, ‖δ‖₁ ≤ √d ‖δ‖₂, ‖δ‖₁ ≤ d ‖δ‖_∞. From the record come k and n alone;
the label, the set and the failure probability are the row's own.

That k of n were right cannot be told from k and n. `doubtful` draws afresh: a record is refused if the fresh draws
show, at failure 1e-6, that P(y) lies below the limit claimed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from scipy.stats import norm
from torch import Tensor

from saddlepoint.check.counts import clopper_pearson
from saddlepoint.core.arithmetic import exact, float_above
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.spec.model import Model, Smoothing

_MARGIN = 1e-11  # on probabilities and relative on radii: scipy's quantiles are accurate to about 1e-14
_FRESH = 256
_FAILURE = 1e-6


def recheck_counts(
    smoothing: Smoothing,
    set_canonical: Mapping[str, Any],
    entries: int,
    proof: Mapping[str, Tensor],
    failure: Float[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """Lower bounds on m* (b,), float64, from "votes" and "drawn" of the proof (for y), each failing with `failure`."""
    kept = _limits(proof, failure)
    r = _reach(smoothing.noise.kind, set_canonical, entries)
    scale = smoothing.noise.scale
    if smoothing.noise.kind == "gaussian":
        moved = norm.cdf(norm.ppf(kept.numpy()) - r / scale)  # Φ⁻¹(0) = −∞ stays −∞
        share = torch.as_tensor(moved, dtype=torch.float64).reshape(kept.shape)
    else:
        share = kept - r / (2 * scale)
    return (2 * share - 1 - _MARGIN).clamp(min=-1.0)


def doubtful(
    model: Model,
    x: Float[Tensor, "b ..."],
    y: Int64[Tensor, " b"],
    proof: Mapping[str, Tensor],
    failure: Float[Tensor, " b"],
) -> Bool[Tensor, " b"]:
    """Where fresh draws contradict the record."""
    how = model.sampling
    if how is None:
        raise NotAvailable(f"{model.name} has no draws.", "Load the smoothed model of the ledger (--smooth).")
    right = torch.zeros(len(x), dtype=torch.int64)
    with torch.no_grad():
        for i in range(_FRESH):
            right += (how.draw(x, how.draws + how.confirm + i).argmax(1) == y).cpu()
    roof = [clopper_pearson(k, _FRESH, 1 - 2 * _FAILURE)[1] for k in right.tolist()]
    return torch.tensor(roof, dtype=torch.float64) < _limits(proof, failure)


def _limits(proof: Mapping[str, Tensor], failure: Tensor) -> Tensor:
    for name in ("votes", "drawn"):
        if name not in proof or proof[name].shape != failure.shape:
            raise InputError(f"the proof lacks {name!r}, one per sample.", "It is damaged, or of another method.")
    if not bool(((failure > 0) & (failure < 1)).all()):
        raise InputError("a certificate from counts without a failure probability.", "It is damaged.")
    pairs = zip(proof["votes"].tolist(), proof["drawn"].tolist(), failure.tolist(), strict=True)
    found = [clopper_pearson(k, n, 1 - 2 * a)[0] - _MARGIN for k, n, a in pairs]
    return torch.tensor(found, dtype=torch.float64).clamp(min=0.0)


def _reach(kind: str, described: Mapping[str, Any], entries: int) -> float:
    root = math.sqrt(entries)
    factors = {"l1": 1.0, "l2": 1.0, "linf": root} if kind == "gaussian" else {"l1": 1.0, "l2": root, "linf": entries}
    if described["kind"] not in factors:
        raise NotAvailable(
            f"smoothing has no radius for a set of kind {described['kind']!r}.", "Use an l2, l1 or linf threat."
        )
    return float_above(exact(described["size"])) * factors[described["kind"]] * (1 + _MARGIN)
