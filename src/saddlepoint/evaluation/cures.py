"""Cures: what a finding prescribes, in a short form that can be written down and applied again.

    straight-through   every rounding, threshold and detached value gets a straight-through backward
    bpda:PATH          the module at PATH passes gradients back as if it were the identity
    smooth:R           gradients are averaged over neighbours within R input units in every coordinate
    eot:N              the predictor is the mean of N draws, judged on fresh ones
    loss:margin        attacks maximise the margin beside the cross-entropy       (plan)
    steps:N            attacks take N steps                                       (plan)
    square             the search that needs scores alone is added                (plan)

The first three change what is differentiated and leave values, digest and verdicts alone; eot makes a random model a
subject of its own. The others change the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.adapters.averaging import averaged
from saddlepoint.adapters.backward import Replacement, with_backward, with_straight_through
from saddlepoint.adapters.probe import gradient_obstacle, probe_inputs
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.spec import Access, Model

NEIGHBOURS = 16
_KINDS = ("straight-through", "bpda", "smooth", "eot", "loss", "steps", "square")


def cured(model: Model, cures: Sequence[str], seed: int = 0) -> Model:
    """The model as attackers should differentiate it. Plan cures change nothing here.

    Raises InputError for a cure that is none, and what with_backward, with_straight_through and averaged raise.
    """
    parts = [_parsed(cure) for cure in cures]
    paths: dict[str, Replacement] = {rest: "identity" for kind, rest in parts if kind == "bpda"}
    if paths:
        model = with_backward(model, paths)
    if ("straight-through", "") in parts:
        model = with_straight_through(model)
    for kind, rest in parts:
        if kind == "smooth":
            model = smoothed(model, float(rest))
    for kind, rest in parts:
        if kind == "eot":
            model = averaged(model, int(rest), seed)
    return model


def draws_of(cures: Sequence[str]) -> int | None:
    """N of eot:N, None where there is none."""
    return next((int(rest) for kind, rest in map(_parsed, cures) if kind == "eot"), None)


def smoothed(model: Model, radius: float) -> Model:
    """The same model, whose gradient is the mean of those at NEIGHBOURS points x + ρ, ρ uniform in ± radius.

    The ρ are the same for every row and call, so the slopes are those of one fixed function. Values stay the model's.
    """
    slopes = Neighbours(model.slopes or model.fn, radius, model.shape)
    obstacle = gradient_obstacle(slopes, probe_inputs(model.domain, model.shape))
    if obstacle:
        raise NotAvailable(f"{model.name} averaged over neighbours: {obstacle}.", "Replace the backward of modules.")
    access = model.access if Access.GRADIENT in model.access else Access.GRADIENT
    notes = (*model.notes, f"slopes averaged over {NEIGHBOURS} neighbours within {radius:g}")
    return replace(model, slopes=slopes, access=access, notes=notes)


@dataclass(frozen=True)
class Neighbours:
    """x ↦ mean over i of f(x + ρ_i)."""

    fn: Callable[[Tensor], Tensor]
    radius: float
    shape: tuple[int, ...]

    def __call__(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b k"]:
        """Scores (b, classes)."""
        keys = row_keys(0, [str(i) for i in range(NEIGHBOURS // 2)], "neighbours")
        half = (2 * Draws(keys).uniform(self.shape, dtype=torch.float64) - 1) * self.radius
        noise = torch.cat([half, -half]).to(x)  # in pairs: the linear part of f averages to itself exactly
        return torch.stack([self.fn(x + rho) for rho in noise]).mean(0)


def _parsed(cure: str) -> tuple[str, str]:
    kind, _, rest = cure.partition(":")
    if kind not in _KINDS:
        raise InputError(f"there is no cure {cure!r}.", f"Known: {', '.join(_KINDS)}.")
    return kind, rest
