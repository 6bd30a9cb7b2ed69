"""ReLU stability (Xiao, Tjeng, Shafiullah & Madry, ICLR 2019, "Training for Faster Adversarial Robustness Verification
via Inducing ReLU Stability").

    base loss + w_rs Σ_units mean over the batch of −tanh(1 + l u) + w_l1 Σ |W|            §4.2, eq. 5, §3.2

l u < 0 only where a ReLU can be both on and off over S(x); there the term pulls l u up, and far from it tanh is flat.
Every unstable unit is a branch of an exact verifier, so halving them is worth far more than half of its time; sparse
weights make bounds tighter and programmes smaller. The sum is over units and the mean over samples, so its scale
does not depend on a layer's shape.
l, u of the units' inputs:
    naive      intervals: two forwards
    improved   the dual of Wong and Kolter, a row per unit, cut with intervals. Like the paper's improved arithmetic
               (§4.3) it multiplies stable layers out before it bounds them, and it has lines for unstable units where
               the paper has intervals. For small networks.
Cost of a step: the base objective's and the bounds'.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from saddlepoint.bound.backward import Region
from saddlepoint.bound.interval import Interval2, propagate, region_of
from saddlepoint.bound.wong_kolter import Dual
from saddlepoint.core.errors import InputError
from saddlepoint.core.rng import Draws
from saddlepoint.geometry import PerturbationSet
from saddlepoint.graph.decompose import decompose
from saddlepoint.graph.ir import Graph
from saddlepoint.graph.live import live_graph, state_of
from saddlepoint.graph.ops import Relu
from saddlepoint.training.adversarial import Adversarial, shrunk
from saddlepoint.training.checks import check
from saddlepoint.training.objective import Objective


@dataclass(frozen=True)
class ReluStability:
    """`objective` is the base (PGD on the set if none is given); `weight` w_rs, `l1` w_l1: the paper's for MNIST."""

    set: PerturbationSet
    weight: float = 1e-4
    l1: float = 2e-5
    bounds: Literal["naive", "improved"] = "naive"
    objective: Objective | None = None
    fraction: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        check("weight", self.weight)
        check("l1", self.l1)
        if self.bounds not in ("naive", "improved"):
            raise InputError(f"bounds={self.bounds!r}.", "Choose naive or improved.")

    def at(self, fraction: Fraction) -> ReluStability:
        """With the set, and the base objective, at `fraction` of their sizes."""
        return replace(self, fraction=fraction)

    def __call__(
        self, net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, ""]:
        """The base loss and both penalties."""
        base: Objective = Adversarial(self.set) if self.objective is None else self.objective
        loss = base.at(self.fraction)(net, x, y, draws)
        layers = relu_inputs(current_graph(net, x), region_of(shrunk(self.set, self.fraction), x), self.bounds)
        for lower, upper in layers.values():
            loss = loss - self.weight * torch.tanh(1 + lower * upper).flatten(1).sum(1).mean()
        matrices = [w for w in net.parameters() if w.ndim > 1 and w.requires_grad]
        return loss + self.l1 * torch.stack([w.abs().sum() for w in matrices]).sum()


def current_graph(net: nn.Module, x: Float[Tensor, "b *shape"]) -> Graph:
    """The network as it is evaluated (batch norm at its running statistics), differentiable by the weights."""
    return decompose(live_graph(net, x).bind(state_of(net)))


def relu_inputs(graph: Graph, region: Region, bounds: str) -> dict[str, Interval2]:
    """l, u of what every ReLU reads, by its name."""
    if bounds == "improved":
        return Dual.of(graph, region).layers
    values = propagate(graph, region)
    return {node.name: values[node.inputs[0]] for node in graph.nodes if isinstance(node.op, Relu)}


def unstable(layers: dict[str, Interval2]) -> Float[Tensor, " b"]:
    """How many ReLUs of each sample can be both on and off."""
    counts = [((lower < 0) & (upper > 0)).flatten(1).sum(1) for lower, upper in layers.values()]
    return torch.stack(counts).sum(0).to(torch.float64)
