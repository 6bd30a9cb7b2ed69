"""Which modules stop the gradient, found by what they do: placeholder of the search."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from saddlepoint.spec import Model


@dataclass(frozen=True)
class Suspect:
    """A module whose backward does not tell how its output moves.

    path             as `with_backward` takes it
    why              what was seen, in words
    zero             share of samples whose gradient through it is zero (or missing, or not finite)
    cosine           median cosine between the gradient it passes back and the measured response; nan: none is passed
    same_shape       whether its output has its input's shape
    suggestion       "identity", "straight-through" (rounding, comparisons inside), or "": a function g must be given
    """

    path: str
    why: str
    zero: float
    cosine: float
    same_shape: bool
    suggestion: str


def suspects(model: Model, x: Tensor, y: Tensor) -> list[Suspect]:
    """Candidates for `with_backward`, the worst first; [] where every module's gradient is usable."""
    raise NotImplementedError
