"""Randomised smoothing (Cohen, Rosenfeld, Kolter, ICML 2019): a certificate from counts.

    g(x) = argmax_c P(f(x + η) = c)        radius R with g = y on ‖x − x₀‖ < R

CERTIFY(n0, n, α): n0 noisy copies of x₀ choose the label c; n *fresh* ones count it, k times. With probability
≥ 1 − α, p = P(f(x₀ + η) = c) ≥ p̲, the one-sided Clopper–Pearson limit of k of n; where p̲ > 1/2 the label holds within
R = σ Φ⁻¹(p̲) in ℓ2 (their Theorem 1), or λ (2 p̲ − 1) in ℓ1 for uniform noise (spec/noise.py); else it abstains.
PREDICT(n, α): the most frequent label of n, if a two-sided binomial test rejects that the second is as probable.

α is the failure probability of one image. `images` = N splits it, so that N certificates hold together with 1 − α.
As a bound on the margin of g, m(x) = P(y) − max_j P(j) ≥ 2 P(y) − 1, over the ball of radius r:

    m* ≥ 2 Φ(Φ⁻¹(p̲) − r / σ) − 1       (> 0 iff r < R)           m* ≥ 2 p̲ − 1 − r / λ   for uniform noise

Cost: n0 + n forwards of f per image. Noise is keyed by (seed, sample id): no two images share a stream, and batches,
order and workers change nothing. An answer that is not finite counts for no label. check/smoothing.py does the
statistics again by other means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from scipy.special import betainc, betaincinv, ndtr, ndtri
from torch import Tensor

from saddlepoint.core.errors import InputError
from saddlepoint.core.rng import row_keys
from saddlepoint.spec.model import Smoothing
from saddlepoint.spec.noise import Noise

ABSTAIN = -1
BLOCK = 256  # noisy copies under one key: part of what the keys mean, so no setting
_SLACK = 1e-12  # relative: the incomplete beta function and Φ⁻¹ are accurate to a few ulps


@dataclass(frozen=True)
class Certificates:
    """Per image: the label chosen (ABSTAIN: no answer was finite), how often of `drawn` it came up, p̲, the radius."""

    label: Int64[Tensor, " b"]
    votes: Int64[Tensor, " b"]
    drawn: Int64[Tensor, " b"]
    probability: Float[Tensor, " b"]
    radius: Float[Tensor, " b"]
    alpha: float

    @property
    def answers(self) -> Int64[Tensor, " b"]:
        """What CERTIFY returns: the label where a radius was certified, else ABSTAIN."""
        return torch.where(self.radius > 0, self.label, ABSTAIN)


@dataclass(frozen=True)
class RandomizedSmoothing:
    """CERTIFY with `n0` draws to choose and `n` fresh ones to count, at failure probability alpha / images each."""

    n0: int = 100
    n: int = 10_000
    alpha: float = 0.001
    images: int = 1

    def __post_init__(self) -> None:
        if self.n0 < 1 or self.n < 1 or self.images < 1:
            raise InputError(f"n0 = {self.n0}, n = {self.n}, images = {self.images}.", "Each is at least 1.")
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha = {self.alpha}.", "A failure probability lies between 0 and 1; 0.001 is usual.")

    @property
    def name(self) -> str:
        """The method's name in evidence."""
        return "smoothing"

    @property
    def failure(self) -> float:
        """Of one certificate."""
        return self.alpha / self.images

    def certify(
        self, smoothing: Smoothing, x: Float[Tensor, "b ..."], ids: Sequence[str], seed: int = 0, batch: int = 1024
    ) -> Certificates:
        """Certificates of g at every image; `batch` is the most noisy copies in one forward."""
        found = [self._one(smoothing, image, name, seed, batch) for image, name in zip(x, ids, strict=True)]
        label, votes, drawn, probability, radius = zip(*found, strict=True) if found else ((),) * 5
        return Certificates(
            torch.tensor(label, dtype=torch.int64),
            torch.tensor(votes, dtype=torch.int64),
            torch.tensor(drawn, dtype=torch.int64),
            torch.tensor(probability, dtype=torch.float64),
            torch.tensor(radius, dtype=torch.float64),
            self.failure,
        )

    def _one(
        self, smoothing: Smoothing, image: Tensor, name: str, seed: int, batch: int
    ) -> tuple[int, int, int, float, float]:
        first = votes(smoothing, image, (name, seed, "select"), self.n0, batch)
        if int(first.sum()) == 0:  # no finite answer at all
            return ABSTAIN, 0, 0, 0.0, 0.0
        chosen = int(first.argmax())
        count = int(votes(smoothing, image, (name, seed, "estimate"), self.n, batch)[chosen])
        p = lower_limit(count, self.n, self.failure)
        return chosen, count, self.n, p, radius_of(smoothing.noise, p)

    def predict(
        self, smoothing: Smoothing, x: Float[Tensor, "b ..."], ids: Sequence[str], seed: int = 0, batch: int = 1024
    ) -> Int64[Tensor, " b"]:
        """g(x) per image, ABSTAIN where `n` draws leave it open; wrong with probability ≤ alpha / images each."""
        counts = [votes(smoothing, image, (i, seed, "predict"), self.n, batch) for image, i in zip(x, ids, strict=True)]
        return torch.tensor([most_frequent(c, self.failure) for c in counts], dtype=torch.int64)


@torch.no_grad()
def votes(
    smoothing: Smoothing, image: Float[Tensor, " ..."], stream: tuple[str, int, str], count: int, batch: int = 1024
) -> Int64[Tensor, " k"]:
    """How often f answers each class on `count` noisy copies of one image; `stream`: (sample id, seed, purpose)."""
    name, seed, purpose = stream
    key = int(row_keys(seed, [name], f"smoothing {purpose}")[0])
    total, waiting, held = None, [], 0
    for block in range(-(-count // BLOCK)):
        copies = min(BLOCK, count - block * BLOCK)
        waiting.append(image + smoothing.noise.draw(key, block, BLOCK, image)[:copies])
        held += copies
        if held >= batch or (block + 1) * BLOCK >= count:
            seen = torch.cat([_labels(smoothing.base, part) for part in torch.cat(waiting).split(batch)])
            total = seen.sum(0) if total is None else total + seen.sum(0)
            waiting, held = [], 0
    if total is None:
        raise InputError(f"{count} draws were asked for.", "Give at least 1.")
    return total.cpu()


def _labels(base: Callable[[Tensor], Tensor], points: Tensor) -> Int64[Tensor, "b k"]:
    """One-hot answers; a row of zeros where a score is not finite."""
    z = base(points)
    hot = torch.nn.functional.one_hot(torch.nan_to_num(z).argmax(1), z.shape[1])
    return hot * z.isfinite().all(1, keepdim=True)


def lower_limit(k: int, n: int, alpha: float) -> float:
    """One-sided Clopper–Pearson limit: p̲ with P(p ≥ p̲) ≥ 1 − α for every p; the p at which P(X ≥ k) = α.

    >>> round(lower_limit(100_000, 100_000, 0.001), 5)
    0.99993
    """
    if not 0 <= k <= n:
        raise InputError(f"{k} of {n} is no count.")
    if k == 0:
        return 0.0
    p = float(betaincinv(k, n - k + 1, alpha)) * (1 - _SLACK)
    # P(X ≥ k) = I_p(k, n − k + 1) grows with p; where the inverse came out too large it is not used
    return p if float(betainc(k, n - k + 1, p)) <= alpha else 0.0


def radius_of(noise: Noise, p: float) -> float:
    """The radius that P(y) ≥ p certifies, in the noise's own norm (ℓ2 Gaussian, ℓ1 uniform); 0 where p ≤ 1/2."""
    if not p > 0.5:
        return 0.0
    return float(noise.scale * ndtri(p)) * (1 - _SLACK) if noise.kind == "gaussian" else noise.scale * (2 * p - 1)


def margin_at(noise: Noise, p: float, reach: float) -> float:
    """m* ≥ this over all points within `reach` in the noise's norm, if P(y) ≥ p at the centre."""
    if not p > 0:
        return -1.0
    gaussian = noise.kind == "gaussian"
    kept = float(ndtr(ndtri(p) - reach / noise.scale)) if gaussian else p - reach / (2 * noise.scale)
    return max(-1.0, 2 * kept - 1 - 4 * _SLACK)


def reach_of(noise: Noise, kind: str, size: float, entries: int) -> float:
    """The radius in the noise's norm of a ball of `kind` "l2", "l1" or "linf": ‖δ‖₂ ≤ √d ‖δ‖_∞, ‖δ‖₁ ≤ √d ‖δ‖₂, ….

    Raises InputError for other sets.
    """
    root = math.sqrt(entries)
    factors = (
        {"l2": 1.0, "l1": 1.0, "linf": root} if noise.kind == "gaussian" else {"l1": 1.0, "l2": root, "linf": root**2}
    )
    if kind not in factors:
        raise InputError(f"smoothing has no radius for a set of kind {kind!r}.", "Use l2, l1 or linf.")
    return size * factors[kind] * (1 + _SLACK)


def most_frequent(counts: Int64[Tensor, " k"], alpha: float) -> int:
    """PREDICT: the top label, or ABSTAIN if a two-sided binomial test of top against second keeps p = 1/2.

    P(X ≥ a) for X ~ Bin(a + b, 1/2) is I_{1/2}(a, b + 1); the two-sided value is twice that (Hung, Fithian 2019).
    """
    top, second = counts.sort(descending=True)[0][:2].tolist()
    if top == 0 or min(1.0, 2 * float(betainc(top, second + 1, 0.5))) > alpha:
        return ABSTAIN
    return int(counts.argmax())
