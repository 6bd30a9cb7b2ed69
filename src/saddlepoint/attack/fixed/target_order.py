"""Which wrong classes a targeted attack tries, and in which order.

    "logit"   z_t downwards at x0                                             Croce & Hein 2020, §4.1
    "malt"    (z_y − z_t) / ‖∇(z_t − z_y)‖_* upwards at x0                    MALT, arXiv 2407.02240

The quotient is the step, in the set's norm, that a linear model would need to reach class t: a class whose logit lies
lower may well be nearer when its logit climbs faster. ‖·‖_* is the dual of the set's norm (steps.dual_norm). It costs a
sample one forward and K − 1 backwards, once; a class that no step can raise comes last. y itself is left out, so there
are at most K − 1 targets.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saddlepoint.core.errors import InputError

ORDERS = ("logit", "malt")


def check_order(order: str, count: int) -> None:
    """Raises InputError unless both make sense."""
    if order not in ORDERS:
        raise InputError(f"there is no order of targets {order!r}.", f"Known: {', '.join(ORDERS)}.")
    if count < 1:
        raise InputError(f"{count} targets are none.", "Allow at least 1.")


def likeliest(
    clean: Float[Tensor, "b k"], y: Int64[Tensor, " b"], count: int, slopes: Float[Tensor, "b k"] | None = None
) -> Int64[Tensor, "b t"]:
    """The first `count` wrong classes: by logit, or where slopes are given by the step that they need."""
    own = y[:, None]
    if slopes is None:
        merit = clean.nan_to_num(nan=-3e38)
    else:
        step = (clean.gather(1, own) - clean).double() / slopes.double()  # slope 0: inf, or NaN at a tie
        merit = -step.nan_to_num(nan=1e301, posinf=1e300)
    return merit.scatter(1, own, -torch.inf).topk(min(count, clean.shape[1] - 1), dim=1).indices
