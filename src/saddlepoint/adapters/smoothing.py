"""The smoothed predictor of a model: a subject of its own, attacked and certified as such.

    g(x) = argmax_c P(f(x + η) = c),       margin  m(x) = P(f(x + η) = y) − max_{j≠y} P(f(x + η) = j)

A certificate of g says nothing about f, so g has its own digest: of f, of the noise, of the denoiser. Attackers see

    log (1/N) Σ_{i<N} softmax(f(x + η_i))          with its gradient, N fixed draws at once

(SmoothAdv: Salman et al., NeurIPS 2019, eq. 5). Whether a point breaks g is counted over fresh draws (check/draws.py),
and how far g holds is counted by CERTIFY (bound/smoothing.py). Cohen, Rosenfeld, Kolter, ICML 2019; the denoiser in
front of f: Salman et al., "Denoised Smoothing", NeurIPS 2020. Noise is added in raw input units, so normalisation stays
inside f. Cost: N forwards and backwards of f for one of g.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.adapters.imports import import_object
from saddlepoint.adapters.probe import probe_inputs
from saddlepoint.core.arithmetic import exact
from saddlepoint.core.digests import digest_json, digest_tensors
from saddlepoint.core.errors import InputError, StochasticModel
from saddlepoint.core.rng import row_keys
from saddlepoint.spec import Access, Model
from saddlepoint.spec.model import Sampling, Smoothing
from saddlepoint.spec.noise import Noise

Denoiser = Callable[[Tensor], Tensor]
DRAWS = 16
CONFIRM = 1000


@dataclass(frozen=True)
class Counting:
    """How certificates are counted (spec.model.Smoothing); they are no part of what g is."""

    n0: int = 100
    n: int = 10_000
    alpha: float = 0.001
    images: int = 1

    def __post_init__(self) -> None:
        if self.n0 < 1 or self.n < 1 or self.images < 1 or not 0 < self.alpha < 1:
            raise InputError(f"{self} cannot be counted.", "n0, n, images from 1; alpha between 0 and 1.")


def smoothed(
    model: Model, noise: Noise, counting: Counting | None = None, denoiser: Denoiser | None = None, seed: int = 0
) -> Model:
    """g as a model. `denoiser` maps noisy inputs to inputs of the same shape and is part of the base classifier.

    Raises StochasticModel for a random f, InputError for a denoiser that changes the shape.
    """
    if model.stochastic or model.sampling is not None:
        raise StochasticModel(f"{model.name} is random itself.", "Smooth a deterministic model.")
    how = counting or Counting()
    about = {"smoothed": model.digest, "noise": noise.canonical()}
    if denoiser is not None:
        about["denoiser"] = _digest(denoiser, model)
    base = model.fn if denoiser is None else Denoised(denoiser, model.fn)
    slopes = model.slopes if denoiser is None or model.slopes is None else Denoised(denoiser, model.slopes)
    draw = Noisy(base, noise, seed)
    symbol = "sigma" if noise.kind == "gaussian" else "lambda"
    return replace(
        model,
        fn=Mean(draw, DRAWS),
        slopes=None if slopes is None else Mean(Noisy(slopes, noise, seed), DRAWS),
        digest=digest_json(about),
        access=model.access & Access.GRADIENT,
        graph=None,
        name=f"{model.name} smoothed, {noise.kind} {symbol} {noise.scale:g}",
        notes=(
            *model.notes,
            f"smoothed with {noise.kind} noise: certificates count {how.n} draws, attacks are judged on {CONFIRM}",
        ),
        sampling=Sampling(draw, DRAWS, CONFIRM, plurality=True),
        smoothing=Smoothing(base, noise, how.n0, how.n, how.alpha, how.images),
    )


@dataclass(frozen=True)
class Denoised:
    """f(D(x))."""

    denoiser: Denoiser
    base: Callable[[Tensor], Tensor]

    def __call__(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b k"]:
        return self.base(self.denoiser(x))


@dataclass(frozen=True)
class Noisy:
    """f(x + η_i): one draw, the same η for every row, named by its number."""

    base: Callable[[Tensor], Tensor]
    noise: Noise
    seed: int

    def __call__(self, x: Float[Tensor, "b ..."], number: int) -> Float[Tensor, "b k"]:
        key = int(row_keys(self.seed, [str(number)], "smoothing draw")[0])
        return self.base(x + self.noise.draw(key, 0, 1, x[0]))


@dataclass(frozen=True)
class Mean:
    """log of the mean probabilities of the first `draws` draws."""

    draw: Noisy
    draws: int

    def __call__(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b k"]:
        if len(x) == 0:
            return self.draw.base(x)
        each = [torch.log_softmax(self.draw(x, i), 1) for i in range(self.draws)]
        return torch.logsumexp(torch.stack(each), 0) - math.log(self.draws)


def parse_smoothing(text: str) -> tuple[Noise, Counting, Denoiser | None]:
    """`sigma=0.25,n0=100,n=10000,alpha=0.001,images=500,denoiser=package.module:name`, or lambda= for uniform noise.

    >>> noise, counting, _ = parse_smoothing("sigma=1/4,n=1000")
    >>> noise.kind, noise.scale, counting.n
    ('gaussian', 0.25, 1000)
    """
    remedy = "Write sigma=0.25,n0=100,n=10000,alpha=0.001,images=1,denoiser=package.module:name; lambda= for l1."
    given: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in ("sigma", "lambda", "n0", "n", "alpha", "images", "denoiser") or name in given:
            raise InputError(f"--smooth {text}: {part!r} is unknown or said twice.", remedy)
        given[name] = value
    if ("sigma" in given) == ("lambda" in given):
        raise InputError(f"--smooth {text} names {'two noises' if 'sigma' in given else 'no noise'}.", remedy)
    noise = (
        Noise("gaussian", _number(given, "sigma")) if "sigma" in given else Noise("uniform", _number(given, "lambda"))
    )
    whole = {name: int(given[name]) for name in ("n0", "n", "images") if name in given and given[name].isdigit()}
    if any(name in given and name not in whole for name in ("n0", "n", "images")):
        raise InputError(f"--smooth {text}: n0, n and images are whole numbers.", remedy)
    counting = replace(Counting(), **whole)
    if "alpha" in given:
        counting = replace(counting, alpha=_number(given, "alpha"))
    return noise, counting, _denoiser(given["denoiser"]) if "denoiser" in given else None


def _number(given: dict[str, str], name: str) -> float:
    return float(exact(given[name]))


def _denoiser(path: str) -> Denoiser:
    """The callable at an import path; a class or a factory without arguments is called once."""
    found: Any = import_object(path)
    if isinstance(found, type):
        found = found()
    if isinstance(found, torch.nn.Module):
        found = found.eval()
    if callable(found):
        return cast(Denoiser, found)
    raise InputError(f"denoiser {path} is {type(found).__name__}.", "Name a function or a module on tensors.")


@torch.no_grad()
def _digest(denoiser: Denoiser, model: Model) -> str:
    """What it answers on keyed points of the domain. Raises InputError where that has another shape, or is random."""
    x = probe_inputs(model.domain, model.shape, 5)
    seen, again = denoiser(x), denoiser(x)
    if not isinstance(seen, Tensor) or seen.shape != x.shape:
        what = tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__
        raise InputError(f"the denoiser maps {tuple(x.shape)} to {what}.", "It must return inputs of the same shape.")
    if not torch.equal(seen, again):
        raise InputError("the denoiser is random: twice the same input gave different outputs.", "Fix its randomness.")
    return digest_tensors({"answers": seen})
