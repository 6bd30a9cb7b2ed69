"""One step's loss in the precision asked for, its gradients by the weights, and their clipping."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from saddlepoint.training.attacked import Attacked
from saddlepoint.training.feed import Part
from saddlepoint.training.objective import Objective
from saddlepoint.training.precision import searches_in_bfloat16
from saddlepoint.training.settings import Precision


def loss_of(objective: Objective, net: nn.Module, part: Part, precision: Precision) -> Tensor:
    """The objective on a part of a batch. "outer": points are searched in full precision, the loss at them is not."""
    x, y, draws = part.x, part.y, part.draws
    with searches_in_bfloat16(precision in ("auto", "all")):
        # a bound worked out in bfloat16 would be none
        if precision in ("auto", "full") or getattr(objective, "exact", False):
            return objective(net, x, y, draws)
        if precision == "outer" and isinstance(objective, Attacked):
            points = objective.points(net, x, y, draws)
            with torch.autocast(x.device.type, torch.bfloat16):
                return objective.loss(net, x, points, y)
        with torch.autocast(x.device.type, torch.bfloat16):
            return objective(net, x, y, draws)


def gradients(loss: Tensor, by: Sequence[Tensor], sums: list[Tensor | None]) -> list[Tensor | None]:
    """`sums` with the loss' gradients added; None where the loss does not depend."""
    found = torch.autograd.grad(loss, by, allow_unused=True)
    return [g if s is None else s if g is None else s + g for s, g in zip(sums, found, strict=True)]


def set_gradients(weights: Sequence[Tensor], sums: Sequence[Tensor | None], clip: float | None) -> None:
    """Hands the gradients to the optimiser, scaled down to the norm `clip` where they exceed it."""
    for weight, gradient in zip(weights, sums, strict=True):
        weight.grad = gradient
    if clip is not None:
        nn.utils.clip_grad_norm_(weights, clip)
