"""Jacobian regularisation with random projections.

    min over θ  E  CE(f_θ(x), y) + λ/2 ‖J‖_F²,      J = ∂f_θ(x)/∂x  (k × d)          Hoffman, Roberts, Yaida, 2019, §2

    ‖J‖_F² = k E over v  ‖vᵀ J‖²,      v uniform on the unit sphere of R^k

All logits, not only the loss, are kept from moving. The expectation is estimated by n projections (1 is enough beside
the noise of the batch), each one vector–Jacobian product instead of the k that the whole matrix would take.
Cost of a step: 1 forward, n backwards, and 1 backward through all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.core.rng import Draws
from saddlepoint.training.checks import check, check_count


@dataclass(frozen=True)
class JacobianPenalty:
    """Cross-entropy and λ/2 times the estimated squared Frobenius norm of the input–logit Jacobian."""

    weight: float = 0.1
    projections: int = 1

    def __post_init__(self) -> None:
        check("weight", self.weight)
        check_count("projections", self.projections)

    def at(self, fraction: Fraction) -> JacobianPenalty:
        """With λ at `fraction` of its value."""
        return replace(self, weight=self.weight * float(fraction))

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """Mean of cross-entropy and penalty."""
        points = x.detach().requires_grad_()
        z = net(points)
        norms = squared_norms(z, points, draws, self.projections)
        return functional.cross_entropy(z, y) + self.weight / 2 * norms.mean()


def squared_norms(
    z: Float[Tensor, "b k"], points: Float[Tensor, "b *shape"], draws: Draws, projections: int
) -> Float[Tensor, " b"]:
    """An unbiased estimate of ‖∂z/∂points‖_F² per row, differentiable by the weights."""
    classes = z.shape[1]
    directions = functional.normalize(draws.normal((projections, classes), dtype=z.dtype), dim=2)
    total = z.new_zeros(len(z))
    for v in directions.unbind(1):
        (row,) = torch.autograd.grad((z * v).sum(), points, create_graph=True)
        total = total + row.flatten(1).square().sum(1)
    return classes / projections * total
