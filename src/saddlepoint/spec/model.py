"""A model under question: a pure function with a domain, a digest and a level of access."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from saddlepoint.core.errors import InputOutsideDomain
from saddlepoint.geometry.box import Box
from saddlepoint.spec.access import Access
from saddlepoint.spec.noise import Noise


@dataclass(frozen=True)
class Sampling:
    """How single answers of a randomised predictor are drawn, and how many decide.

    `draw(x, number)` gives the scores f(x, ω) of one draw; ω is a function of the number alone, so a draw can be had
    again. The model's fn is the mean of the draws 0 … draws − 1, for whoever looks for bad points; those that judge a
    point are the `confirm` draws after them. A judgement on counts fails with probability `failure` at most.
    `plurality`: the predictor answers what most draws answer (a smoothed one), and its margin is P(y) − max_j P(j).
    Otherwise it answers with one draw, and its margin is P(right) − P(wrong).
    """

    draw: Callable[[Tensor, int], Tensor]
    draws: int
    confirm: int = 256
    failure: float = 1e-6
    plurality: bool = False


@dataclass(frozen=True)
class Smoothing:
    """g(x) = argmax_c P(f(x + η) = c): f (normalisation and denoiser inside), η, and how its certificates are counted.

    A certificate looks at `n0` draws to choose the label and at `n` fresh ones for its probability, and fails with
    probability alpha / images at most: so many of them hold together with 1 − alpha.
    """

    base: Callable[[Tensor], Tensor]
    noise: Noise
    n0: int = 100
    n: int = 10_000
    alpha: float = 0.001
    images: int = 1


@dataclass(frozen=True)
class Model:
    """f: (b, *shape) → (b, classes) scores, larger is more likely; the argmax is the label.

    `fn` is the deployed computation in its deployed precision, normalisation included, so that inputs
    and sizes are in raw units. `graph` is the captured graph (graph.Graph) when access is GRAPH.
    `notes` say what was found out on the way in, e.g. why a level of access was dropped.
    `slopes` is what an attacker differentiates in place of fn where fn has no useful gradient: (b, *shape) →
    (b, classes), differentiable. Values, labels and verdicts always come from fn.
    `sampling` marks a randomised predictor: what is claimed is about a single random answer at x, by the margin
    P(right) − P(wrong), and is read from counts over fresh draws (check/draws.py), never from fn.
    `smoothing` marks a smoothed predictor (adapters.smoothed), which has `sampling` too.
    """

    fn: Callable[[Tensor], Tensor]
    domain: Box
    classes: int
    access: Access
    digest: str
    shape: tuple[int, ...]
    stochastic: bool = False
    name: str = "model"
    graph: object | None = None
    notes: tuple[str, ...] = ()
    slopes: Callable[[Tensor], Tensor] | None = None
    sampling: Sampling | None = None
    smoothing: Smoothing | None = None

    def __call__(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b k"]:
        """Scores of a batch in raw input units."""
        return self.fn(x)

    def require_inside(self, x: Float[Tensor, "b ..."]) -> None:
        """Raise InputOutsideDomain, with the values, if any sample leaves the domain."""
        if bool(self.domain.contains(x, x).all()):
            return
        raise InputOutsideDomain(
            f"x spans [{float(x.min()):.9g}, {float(x.max()):.9g}], the model's domain is {self.domain}.",
            "Normalised images? Keep the data raw and give mean= and std= (--mean, --std) with the model; "
            "another range? Give domain= (--domain).",
        )
