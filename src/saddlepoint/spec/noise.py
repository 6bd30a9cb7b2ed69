"""The noise η of a smoothed predictor, and how far its majority reaches.

    g(x) = argmax_c P(f(x + η) = c),       p = P(f(x₀ + η) = y)

    gaussian   η ~ N(0, σ² I)        P(f(x + η) = y) ≥ Φ(Φ⁻¹(p) − r / σ)     for ‖x − x₀‖₂ ≤ r     radius σ Φ⁻¹(p)
    uniform    η ~ U[−λ, λ]^d        P(f(x + η) = y) ≥ p − r / (2 λ)         for ‖x − x₀‖₁ ≤ r     radius λ (2 p − 1)

Gaussian: Neyman–Pearson; Cohen, Rosenfeld, Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML
2019, Theorem 1; as a bound on P everywhere in the ball: Salman et al., NeurIPS 2019, Lemma 2. Uniform: two cubes moved
by δ share ∏(1 − |δ_i| / 2λ) ≥ 1 − ‖δ‖₁ / 2λ of their volume, so P changes by the rest at most; Yang et al.,
"Randomized Smoothing of All Shapes and Sizes", ICML 2020, Table 1. Other norms go through ‖δ‖₂ ≤ √d ‖δ‖_∞ and so on.

Numbers come from a Philox generator under a 128-bit key (row key, stream), in float64 with the tails of a sampler of
full precision, and are rounded to the model's dtype. They stand for the noise of the theorems, which are about reals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from saddlepoint.core.errors import InputError

NoiseKind = Literal["gaussian", "uniform"]


@dataclass(frozen=True)
class Noise:
    """`scale` is σ of a Gaussian, λ of a uniform cube, in raw input units."""

    kind: NoiseKind
    scale: float

    def __post_init__(self) -> None:
        if self.kind not in ("gaussian", "uniform"):
            raise InputError(f"noise of kind {self.kind!r}.", 'There are "gaussian" (l2) and "uniform" (l1).')
        if not 0 < self.scale < float("inf"):
            raise InputError(f"noise of scale {self.scale}.", "Give sigma or lambda above 0, in raw input units.")

    def draw(self, key: int, stream: int, count: int, like: Tensor) -> Tensor:
        """`count` draws for one input `like` (*shape): (count, *shape), a function of key, stream and shape alone."""
        # a NumPy generator: torch's own takes 32 bits of a seed, too few for millions of streams to stay apart
        source = np.random.Generator(np.random.Philox(key=np.array([key, stream], dtype=np.uint64)))
        shape = (count, *like.shape)
        gaussian = self.kind == "gaussian"
        numbers = source.standard_normal(shape) if gaussian else 2.0 * source.random(shape) - 1.0
        return torch.from_numpy(numbers * self.scale).to(like)

    def canonical(self) -> dict[str, Any]:
        """The noise as JSON."""
        return {"kind": self.kind, "scale": self.scale.hex()}
