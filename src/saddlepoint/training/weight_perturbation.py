"""Adversarial weight perturbation (AWP), on top of any objective that searches for points first.

    min over θ  max over v  L(θ + v; x')      ‖v_l‖ ≤ γ ‖θ_l‖ for every layer l        Wu et al., NeurIPS 2020, Alg. 1

The loss landscape over the weights is flattened, which narrows the gap between robustness on training and on test data.
x' is found at θ. Then v ascends from 0 by steps of γ ‖θ_l‖ / K along ∇_l L / ‖∇_l L‖, layer by layer (so the rescaling
of a ReLU network changes nothing), and the outer step takes the gradient at θ + v and applies it to θ. Weights of one
dimension (biases, batch norm) are not perturbed.
The network is never written to: the loss is evaluated at other weights by `torch.func.functional_call`, and the ascent
moves copies of the running statistics only.
Cost of a step: that of the objective, and its loss and gradient K times more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from saddlepoint.core.errors import InputError
from saddlepoint.core.rng import Draws
from saddlepoint.training.attacked import Attacked
from saddlepoint.training.checks import check, check_count

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class AWP:
    """`objective` at the worst weights around θ. γ = 0 is the objective itself."""

    objective: Attacked
    gamma: float = 0.005
    steps: int = 1

    def __post_init__(self) -> None:
        check("gamma", self.gamma)
        check_count("steps", self.steps)
        if not isinstance(self.objective, Attacked):
            raise InputError(
                f"{type(self.objective).__name__} searches for no points.",
                "AWP goes on top of an adversarial objective: PGD, TRADES, MART, worst-of-k.",
            )

    def at(self, fraction: Fraction) -> AWP:
        """With the objective early in training, and γ at `fraction` of its size."""
        return replace(self, objective=self.objective.at(fraction), gamma=self.gamma * float(fraction))

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """The objective's loss at its points and at the perturbed weights."""
        points = self.objective.points(net, x, y, draws)
        moves = self.moves(net, x, points, y)
        weights = dict(net.named_parameters())
        return self.objective.loss(_At(net, {n: weights[n] + v for n, v in moves.items()}), x, points, y)

    def moves(
        self,
        net: nn.Module,
        x: Float[Tensor, "b *shape"],
        points: Float[Tensor, "n *shape"],
        y: Int64[Tensor, " b"],
    ) -> Weights:
        """v per layer, as constants."""
        weights = {n: w.detach() for n, w in net.named_parameters() if w.requires_grad and w.ndim > 1}
        moves = {n: torch.zeros_like(w) for n, w in weights.items()}
        for _ in range(self.steps):
            here = {n: (w + moves[n]).requires_grad_() for n, w in weights.items()}
            statistics = {n: b.clone() for n, b in net.named_buffers()}
            loss = self.objective.loss(_At(net, here | statistics), x, points, y)
            gradients = torch.autograd.grad(loss, list(here.values()), allow_unused=True)
            for (name, w), gradient in zip(weights.items(), gradients, strict=True):
                if gradient is not None:
                    moves[name] = self._ascend(w, moves[name], gradient)
        return moves

    def _ascend(self, weight: Tensor, move: Tensor, gradient: Tensor) -> Tensor:
        """One step along the layer's own gradient, back into the ball of radius γ ‖w‖."""
        radius = self.gamma * weight.norm()
        tiny = torch.finfo(weight.dtype).tiny
        further = move + radius / self.steps * gradient / gradient.norm().clamp_min(tiny)
        return further * (radius / further.norm().clamp_min(tiny)).clamp_max(1)


class _At(nn.Module):
    """The network as it would answer with some of its tensors replaced."""

    def __init__(self, net: nn.Module, tensors: Weights) -> None:
        super().__init__()
        self.net, self.tensors = net, tensors
        self.training = net.training

    def forward(self, x: Tensor) -> Tensor:
        return functional_call(self.net, self.tensors, (x,))
