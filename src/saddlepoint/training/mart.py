"""MART: misclassification-aware adversarial training.

    min over θ  E  BCE(p', y) + λ KL(p ‖ p') (1 − p_y),      p = p_θ(x),  p' = p_θ(x')
    BCE(p', y) = −log p'_y − log(1 − max_{j≠y} p'_j)                                     Wang et al., ICLR 2020, §3.2

x' is PGD's point. Samples that are wrong already need another pull than those that are right and only near the
boundary: the factor 1 − p_y turns the stability term up where the clean prediction is poor, and the margin term in BCE
pushes the runner-up down. All factors are differentiated by θ, 1 − p_y too.
Cost of a step: steps + 4 forwards, steps + 2 backwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.training.adversarial import Adversarial
from saddlepoint.training.checks import check
from saddlepoint.training.trades import divergence


def boosted(z: Float[Tensor, "b k"], y: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
    """−log p_y − log(1 − max_{j≠y} p_j) per row, from logits."""
    log_p = functional.log_softmax(z, 1)
    own = functional.one_hot(y, z.shape[1]).bool()
    # 1 − p_j as the sum of all others': no digits are lost where p_j is near 1
    rival = log_p.masked_fill(own, -torch.inf).argmax(1, keepdim=True)
    others = log_p.scatter(1, rival, -torch.inf).logsumexp(1)
    return -log_p.gather(1, y[:, None])[:, 0] - others


@dataclass(frozen=True)
class MART(Adversarial):
    """Boosted cross-entropy at the worst points, and λ times the weighted divergence."""

    steps: int = 10
    weight: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check("weight", self.weight)

    def loss(
        self,
        net: nn.Module,
        x: Float[Tensor, "b *shape"],
        points: Float[Tensor, "b *shape"],
        y: Int64[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """Mean of BCE + λ KL (1 − p_y)."""
        clean, moved = net(x), net(points)
        doubt = 1 - functional.softmax(clean, 1).gather(1, y[:, None])[:, 0]
        return (boosted(moved, y) + self.weight * divergence(clean, moved) * doubt).mean()
