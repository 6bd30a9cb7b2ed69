"""The start of certified training: weights whose bounds do not explode, and a regulariser while the set grows.

Initial weights (Shi et al. 2021, §3.1): W ~ N(0, 2π / n²) for fan-in n, so that E|W| = 2/n, and an interval's expected
width is kept from layer to layer when half of each ReLU's input is cut away.

Regulariser (ibid., §3.3, eq. 9-11), over the inputs [l, u] of the m ReLUs, centre c = (l + u)/2, width Δ = u − l:

    L_tight = 1/(τ m) Σ_i relu(τ − E Δ₀ / E Δ_i)            bounds no wider than the input's by more than 1/τ
    L_relu  = 1/(τ m) Σ_i relu(τ − q(r_i)) + relu(τ − q(v_i)),      q(r) = min(r, 1/r)
    r = Σ_{l ≥ 0} c / −Σ_{u ≤ 0} c,     v = Var_{l ≥ 0}(c) / Var_{u ≤ 0}(c)        active and dead ReLUs in balance

weighed by λ (1 − fraction): it has no say once the set has its full size. No extra forwards.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from saddlepoint.graph.ir import Graph
from saddlepoint.graph.ops import Relu
from saddlepoint.training.state import fresh, keyed_randomness

TAU = 0.5
_TINY = 1e-12


def interval_initialised(net: nn.Module, seed: int = 0) -> nn.Module:
    """A copy with W ~ N(0, 2π / n²) in every dense and convolutional layer, biases 0, the rest as `fresh` draws it."""
    new = fresh(copy.deepcopy(net), seed)
    with keyed_randomness(seed, "interval weights"), torch.no_grad():
        for module in new.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                inputs = module.weight[0].numel()
                module.weight.normal_(0.0, math.sqrt(2 * math.pi) / inputs)
                if module.bias is not None:
                    module.bias.zero_()
    return new


def regulariser(graph: Graph, values: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
    """L_tight + L_relu of interval bounds by node name; 0 for a graph without ReLU."""
    low, high = values[graph.input]
    width = (high - low).mean()
    terms = []
    for node in graph.nodes:
        if isinstance(node.op, Relu):
            lower, upper = values[node.inputs[0]]
            mean_width = (upper - lower).mean().clamp_min(_TINY)
            terms.append(torch.relu(TAU - width / mean_width) + _imbalance(lower, upper))
    return torch.stack(terms).mean() / TAU if terms else width * 0


def _imbalance(lower: Tensor, upper: Tensor) -> Tensor:
    centre = (lower + upper) / 2
    active, dead = (lower >= 0).to(centre), (upper <= 0).to(centre)
    spread = (centre - centre.mean()).square()
    first = _balance((centre * active).mean(), -(centre * dead).mean())
    second = _balance((spread * active).mean(), (spread * dead).mean())
    return torch.relu(TAU - first) + torch.relu(TAU - second)


def _balance(a: Tensor, b: Tensor) -> Tensor:
    """min(a/b, b/a) of two numbers ≥ 0; 1 where both vanish."""
    a, b = a.clamp_min(_TINY), b.clamp_min(_TINY)
    return torch.minimum(a, b) / torch.maximum(a, b)
