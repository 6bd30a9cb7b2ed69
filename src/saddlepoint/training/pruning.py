"""Pruning after training for stability (Xiao et al., ICLR 2019, §3.2, §3.3): small weights, ReLUs that hardly switch.

    W_ij ← 0 where |W_ij| < threshold
    a unit that is off (u ≤ 0) over S(x) for a share of the samples becomes 0, one that is on (l ≥ 0) the identity

The result is another network, to be measured and verified as such: y = relu(r ⊙ v) + o ⊙ v with constant masks r, o, so
what was pruned is no branch of any verifier (its ReLU reads 0). Bounds are intervals over the batch given; use training
data, never the data that the result is reported on. One pass of bounds, no backward.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saddlepoint.bound.interval import Interval2, region_of
from saddlepoint.core.errors import UnsupportedModel
from saddlepoint.geometry import PerturbationSet
from saddlepoint.training.checks import check
from saddlepoint.training.stability import current_graph, relu_inputs
from saddlepoint.training.state import mode


class PrunedReLU(nn.Module):
    """relu(rest ⊙ v) + on ⊙ v; where both masks are 0 the unit is 0."""

    rest: Tensor
    on: Tensor

    def __init__(self, rest: Tensor, on: Tensor) -> None:
        super().__init__()
        self.register_buffer("rest", rest)
        self.register_buffer("on", on)

    def forward(self, v: Tensor) -> Tensor:
        """Every unit by its own mask."""
        return torch.relu(self.rest * v) + self.on * v


@dataclass(frozen=True)
class Pruning:
    """`weights`: threshold on |W|. `share`: of the samples for which a unit must be stable one way."""

    set: PerturbationSet
    weights: float = 1e-3
    share: float = 0.9

    def __post_init__(self) -> None:
        check("weights", self.weights)
        check("share", self.share, 0.5, 1.0)

    def __call__(self, net: nn.Module, x: Float[Tensor, "b *shape"]) -> nn.Module:
        """A pruned copy. Raises UnsupportedModel where the ReLUs are not nn.ReLU modules called once each."""
        new = copy.deepcopy(net)
        with torch.no_grad():
            for weight in new.parameters():
                if weight.ndim > 1:
                    weight[weight.abs() < self.weights] = 0.0
            modules = _relus(new, x[:1])
            layers = list(relu_inputs(current_graph(new, x), region_of(self.set, x), "naive").values())
            if len(modules) != len(layers):
                raise UnsupportedModel(
                    f"The network has {len(layers)} ReLUs and {len(modules)} nn.ReLU modules that are called once.",
                    "Write every ReLU as an nn.ReLU module of its own.",
                )
            for name, bounds in zip(modules, layers, strict=True):
                parent, _, last = name.rpartition(".")
                setattr(new.get_submodule(parent), last, self._masked(bounds))
        return new

    def _masked(self, bounds: Interval2) -> PrunedReLU:
        lower, upper = bounds
        off = (upper <= 0).to(lower).mean(0) >= self.share
        on = ((lower >= 0).to(lower).mean(0) >= self.share) & ~off
        return PrunedReLU((~(off | on)).to(lower), on.to(lower))


def _relus(net: nn.Module, x: Tensor) -> list[str]:
    """Names of the nn.ReLU modules in the order of their calls."""
    called: list[str] = []

    def noting(name: str) -> Any:
        return lambda *_: called.append(name)

    found = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.ReLU)]
    handles = [module.register_forward_hook(noting(name)) for name, module in found]
    try:
        with mode(net, False):
            net(x)
    finally:
        for handle in handles:
            handle.remove()
    return called if len(set(called)) == len(called) else []
