"""EOT: a randomised predictor as the mean of draws, to be attacked, and judged on fresh ones.

    g(x) = log (1/N) Σ_{i<N} softmax(f(x, ω_i) / T)     ∇g = the gradient of the averaged predictor, all draws at once

ω_1 … ω_N are fixed by the seed, so g is a deterministic function, a sample average. Probabilities are averaged since
logits of different draws have no common scale, and log p is a logit. T = 1, but where logits are so far apart that each
draw is as good as certain (logits × 100, say) T brings them to a spread of 10: else g counts votes and has no slope.
Points that break g are found by looking at these draws and may break nothing but them, so a verdict is never read from
g: single answers of further draws are counted (check/draws.py).

Athalye, Carlini, Wagner, Obfuscated Gradients Give a False Sense of Security, ICML 2018, §4.2; Athalye, Engstrom,
Ilyas, Kwok, Synthesizing Robust Adversarial Examples, ICML 2018, eq. 1. Cost: N forwards and backwards of f for one
of g.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.adapters.draw import Asked, Draw, draw_key, generators_kept, seed_others, shares
from saddlepoint.adapters.probe import probe_inputs
from saddlepoint.core.digests import digest_json
from saddlepoint.core.errors import InputError, StochasticModel
from saddlepoint.spec import Model
from saddlepoint.spec.model import Sampling

_SPREAD = 10.0  # between the logits of a draw: e^-10 is still a slope in float32
_ROWS = (2, 3)  # two batch sizes show which random tensors have a batch axis


def averaged(model: Model, draws: int = 20, seed: int = 0, confirm: int = 256) -> Model:
    """The mean of `draws` keyed draws of a random model, as a model of its own; a deterministic one is returned as is.

    What is claimed of it is about single answers of the random model: P(right) − P(wrong), from `confirm` fresh draws.

    Raises InputError for fewer than 1 draw, StochasticModel where the model's random numbers cannot be fixed.
    """
    if draws < 1 or confirm < 1:
        raise InputError(f"draws = {draws}, confirm = {confirm}.", "Give at least 1; 20 and 256 are usual.")
    if not model.stochastic:
        return model
    x = probe_inputs(model.domain, model.shape, 3)
    fn = Drawn(model.fn, seed)
    fn.learn(x)
    _require_fixed(fn, x, model.name)
    temperature = _temperature(fn, x)
    slopes = None
    if model.slopes is not None:
        slopes = Drawn(model.slopes, seed)
        slopes.learn(x)
    return replace(
        model,
        fn=Mean(fn, draws, temperature),
        slopes=None if slopes is None else Mean(slopes, draws, temperature),
        digest=digest_json({"mean of draws": model.digest, "draws": draws, "seed": seed}),
        stochastic=False,
        name=f"mean of {draws} draws of {model.name}",
        notes=(*model.notes, f"mean of {draws} keyed draws; verdicts count single answers of {confirm} fresh draws"),
        sampling=Sampling(fn, draws, confirm),
    )


class Drawn:
    """f(x, ω): scores of one draw, a function of x and the draw's number; rows do not depend on their batch."""

    def __init__(self, call: Callable[[Tensor], Tensor], seed: int) -> None:
        self.call = call
        self.seed = seed
        self.known: list[tuple[Asked, int]] = []

    def __call__(self, x: Float[Tensor, "b ..."], number: int) -> Float[Tensor, "b k"]:
        """Scores (b, classes) of draw `number`."""
        with generators_kept(x):
            return self.one(x, number)[0]

    def one(self, x: Tensor, number: int) -> tuple[Tensor, list[Asked]]:
        """The same inside `generators_kept`, and what random numbers were asked for."""
        seed_others(draw_key(self.seed, number))
        with Draw(self.seed, number, len(x), self.known) as mode:
            return self.call(x), mode.asked

    def learn(self, x: Tensor) -> None:
        """Find out which random tensors have a batch axis."""
        small, large = _ROWS
        with torch.no_grad(), generators_kept(x):
            self.known = shares(self.one(x[:small], 0)[1], self.one(x[:large], 0)[1], _ROWS)


class Mean:
    """g(x) = log of the mean of the first `draws` draws' probabilities at a temperature."""

    def __init__(self, draw: Drawn, draws: int, temperature: float) -> None:
        self.draw = draw
        self.draws = draws
        self.temperature = temperature

    def __call__(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b k"]:
        """Scores (b, classes)."""
        with generators_kept(x):
            each = [torch.log_softmax(self.draw.one(x, i)[0] / self.temperature, 1) for i in range(self.draws)]
        return torch.logsumexp(torch.stack(each), 0) - math.log(self.draws)


def _temperature(fn: Drawn, x: Tensor) -> float:
    """1, or what brings the logits' usual spread down to `_SPREAD`."""
    with torch.no_grad():
        z = fn(x, 0)
    return max(1.0, float((z.amax(1) - z.amin(1)).median()) / _SPREAD)


def _require_fixed(fn: Drawn, x: Tensor, name: str) -> None:
    with torch.no_grad():
        first, again = fn(x, 0), fn(x, 0)
    if not torch.allclose(first, again, rtol=1e-5, atol=1e-5):
        raise StochasticModel(
            f"{name} draws random numbers that cannot be fixed: twice the same draw gave different scores.",
            "Draw from torch (any generator), or from Python's or NumPy's global generator.",
        )
