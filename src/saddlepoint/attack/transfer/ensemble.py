"""Several surrogates as one: averaged logits, which transfer better than averaged losses or probabilities.

z = Σ_k w_k z_k,   Σ w = 1            Dong et al. 2018, §3.2, eq. 8 (fusing logits); Liu et al. 2017 first
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.core.digests import digest_json
from saddlepoint.core.errors import InputError
from saddlepoint.spec.access import Access
from saddlepoint.spec.model import Model


@dataclass(frozen=True)
class Averaged:
    """A weighted sum of functions."""

    functions: tuple[Callable[[Tensor], Tensor], ...]
    weights: tuple[float, ...]

    def __call__(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b k"]:
        """Σ w_k f_k(x)."""
        return torch.stack([w * f(x) for f, w in zip(self.functions, self.weights, strict=True)]).sum(0)


def ensemble(models: Sequence[Model], weights: Sequence[float] | None = None) -> Model:
    """A model whose logits are the weighted mean of the others'; the only one itself if there is one.

    Raises InputError where they differ in domain, shape or classes, or where the weights do not fit.
    """
    if not models:
        raise InputError("an ensemble of no models.", "Give at least one.")
    if len(models) == 1 and weights is None:
        return models[0]
    first = models[0]
    for other in models[1:]:
        if (other.shape, other.classes, other.domain) != (first.shape, first.classes, first.domain):
            raise InputError(
                f"{other.name} takes {other.shape} in {other.domain} and has {other.classes} classes, {first.name} "
                f"takes {first.shape} in {first.domain} and has {first.classes}.",
                "Surrogates need one kind of input and one list of classes.",
            )
    given = [1.0] * len(models) if weights is None else [float(w) for w in weights]
    if len(given) != len(models) or min(given) < 0 or sum(given) <= 0:
        raise InputError(f"weights {given} for {len(models)} models.", "One weight ≥ 0 each, not all 0.")
    shares = tuple(w / sum(given) for w in given)
    replaced = any(m.slopes is not None for m in models)
    return Model(
        fn=Averaged(tuple(models), shares),
        domain=first.domain,
        classes=first.classes,
        access=Access.GRADIENT & reduce(and_, (m.access for m in models)),
        digest=digest_json([[m.digest, w] for m, w in zip(models, shares, strict=True)]),
        shape=first.shape,
        stochastic=any(m.stochastic for m in models),
        name=" + ".join(m.name for m in models),
        slopes=Averaged(tuple(m.slopes or m for m in models), shares) if replaced else None,
    )
