"""Objectives of attacks, all to be maximised; with a target they drive towards it, else away from y.

    ce       log Σ_{j≠y} exp z_j − z_y            targeted: z_t − log Σ_{j≠t} exp z_j
    margin   max_{j≠y} z_j − z_y                  targeted: z_t − z_y
    dlr      −(z_y − max_{j≠y} z_j) / (z_π1 − z_π3 + 1e-12)
                                                  targeted: −(z_y − z_t) / (z_π1 − ½(z_π3 + z_π4) + 1e-12)
    pm       2 artanh(max_{j≠y} p_j − p_y)        targeted: 2 artanh(p_t − p_y),    p = softmax z

ce is the log-odds u of "not y". The cross-entropy is softplus(u), an increasing function of it: every steepest step
and every comparison of a schedule is the same, but u does not saturate, where the cross-entropy's value and slope
round to 0 as soon as a network is confident (10 % of the samples of a network with logits × 200).
pm is the margin M between probabilities (arXiv 2411.15210), again up to an increasing function: M rounds to −1 from a
gap of 37 logits on, but log (1 + M) / (1 − M) is a difference of two log-sums,
    log(2 e^{z_r} + Σ_{j≠r,y} e^{z_j}) − log(2 e^{z_y} + Σ_{j≠r,y} e^{z_j}),    r the rival or the target.
With two classes it is the margin; far from the boundary it is the ce of "not y" with the rival counted twice.
DLR: Croce & Hein 2020, eq. 6 and 7; π sorts the logits downwards. It needs three classes, targeted four: below
that it is undefined (z_π1 − z_π3 has no third logit, or all of the quotient is constant), and the margin takes
its place. Row i of a loss depends on row i alone; nothing is averaged over the batch.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saddlepoint.attack.protocol import Objective
from saddlepoint.core.errors import InputError

_TINY = 1e-12  # Croce & Hein's constant: a tie of all logits must not divide by zero


def ce(z: Float[Tensor, "b k"], y: Int64[Tensor, " b"], target: Int64[Tensor, " b"] | None) -> Float[Tensor, " b"]:
    """Log-odds against y, or for the target: the cross-entropy up to an increasing function."""
    goal = y if target is None else target
    odds = z.scatter(1, goal[:, None], -torch.inf).logsumexp(1) - _pick(z, goal)
    return odds if target is None else -odds


def margin(z: Float[Tensor, "b k"], y: Int64[Tensor, " b"], target: Int64[Tensor, " b"] | None) -> Float[Tensor, " b"]:
    """max_{j≠y} z_j − z_y, or z_t − z_y: positive once y is beaten."""
    rival = _rival(z, y) if target is None else _pick(z, target)
    return rival - _pick(z, y)


def dlr(z: Float[Tensor, "b k"], y: Int64[Tensor, " b"], target: Int64[Tensor, " b"] | None) -> Float[Tensor, " b"]:
    """Difference of logits ratio: blind to shift and scale of the logits. The margin below 3 (targeted: 4) classes."""
    if z.shape[1] < (3 if target is None else 4):
        return margin(z, y, target)
    top = z.topk(3 if target is None else 4, dim=1).values
    spread = top[:, 0] - (top[:, 2] if target is None else (top[:, 2] + top[:, 3]) / 2)
    return margin(z, y, target) / (spread + _TINY)


def pm(z: Float[Tensor, "b k"], y: Int64[Tensor, " b"], target: Int64[Tensor, " b"] | None) -> Float[Tensor, " b"]:
    """Probability margin against y, or for the target, in log-odds: it does not saturate."""
    rival = z.scatter(1, y[:, None], -torch.inf).argmax(1) if target is None else target
    return _doubled(z, rival, y) - _doubled(z, y, rival)


LOSSES: dict[str, Objective] = {"ce": ce, "margin": margin, "dlr": dlr, "pm": pm}


def objective(name: str) -> Objective:
    """The objective of that name. Raises InputError with the list otherwise."""
    if name not in LOSSES:
        raise InputError(f"there is no loss {name!r}.", f"Known: {', '.join(LOSSES)}.")
    return LOSSES[name]


def _pick(z: Tensor, index: Tensor) -> Tensor:
    return z.gather(1, index[:, None])[:, 0]


def _doubled(z: Tensor, counted: Tensor, without: Tensor) -> Tensor:
    """log(2 e^{z_counted} + Σ_{j ≠ counted, without} e^{z_j})."""
    twice = z.scatter_add(1, counted[:, None], torch.full_like(z[:, :1], math.log(2)))
    return twice.scatter(1, without[:, None], -torch.inf).logsumexp(1)


def _rival(z: Tensor, y: Tensor) -> Tensor:
    """max_{j≠y} z_j."""
    return z.scatter(1, y[:, None], -torch.inf).amax(1)
