"""Networks whose answer is known, in families of the ways in which verifiers have gone wrong.

    enumerated   random tiny nets, min f = 0.1, 1e-3, 1e-5, 1e-7 above or below 0 by exact enumeration (exact.py)
    planted      f(x) = 1 − K relu(r − Σ|xᵢ − cᵢ|): a hole that gradients do not point to, deep enough or not quite
    radius       f(x) = R − Σ|xᵢ| on [−ρ, ρ]ᵈ, R − d ρ just above or below 0: robust by construction up to R/d
    degenerate   boxes with lower = upper, limits that float32 cannot hold
    scaled       an enumerated net with one layer × s and the next / s, s = 1e6, 1e-6: huge and tiny weights
    broken       a NaN or an infinity among the weights: nothing can be claimed

The property is f > 0. Verification: reference [soundness traps], Jia & Rinard (arXiv 2003.03021), SoundnessBench
(arXiv 2412.03154).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import torch
from torch import Tensor

from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import Linear, Relu
from saddlepoint.lab.soundness.exact import Vector, exact, minimum

Layers = list[tuple[Tensor, Tensor]]
MARGINS = (0.1, -0.1, 1e-3, -1e-3, 1e-5, -1e-5, 1e-7, -1e-7)


@dataclass(frozen=True, eq=False)
class Case:
    """f > 0 on [lower, upper]? least: the exact minimum of f, None where f is not a number somewhere."""

    family: str
    name: str
    layers: Layers
    lower: Tensor
    upper: Tensor
    least: Fraction | None

    @property
    def graph(self) -> Graph:
        """The network, float32."""
        nodes, at = [], "x"
        for k, (weight, bias) in enumerate(self.layers):
            nodes.append(Node(f"v{k}", Linear(weight, bias), (at,), (len(bias),)))
            if k < len(self.layers) - 1:
                nodes.append(Node(f"h{k}", Relu(), (f"v{k}",), (len(bias),)))
            at = nodes[-1].name
        return Graph(tuple(nodes), "x", at, (self.layers[0][0].shape[1],))


def cases(count: int, seed: int = 0) -> Iterator[Case]:
    """`count` enumerated nets, and about as many of the other families together as a fifth of that, at least 60."""
    draw = torch.Generator().manual_seed(seed)
    for k in range(count):
        yield _enumerated(draw, k)
    for k in range(max(12, count // 25)):
        yield _planted(draw, k)
        yield _radius(draw, k)
        yield _degenerate(draw, k)
        yield _scaled(draw, k)
        yield _broken(draw, k)


def _enumerated(draw: torch.Generator, k: int) -> Case:
    return _case("enumerated", k, *_random(draw, k), MARGINS[k % len(MARGINS)])


def _random(draw: torch.Generator, k: int) -> tuple[Layers, Tensor, Tensor]:
    """One input and up to three hidden layers, or two inputs and one; up to five units a layer."""
    inputs = 1 + k % 2
    depth = 1 if inputs == 2 else 1 + int(torch.randint(3, (1,), generator=draw))
    widths = [inputs, *torch.randint(1, 6, (depth,), generator=draw).tolist(), 1]
    layers = [(torch.randn(o, i, generator=draw) * 2, torch.randn(o, generator=draw)) for i, o in pairwise(widths)]
    ends = torch.randn(2, inputs, generator=draw, dtype=torch.float64).sort(0).values
    return layers, ends[0], ends[1]


def _case(family: str, k: int, layers: Layers, lower: Tensor, upper: Tensor, margin: float) -> Case:
    """The case with its last bias moved so that the minimum is as near to `margin` as float32 allows."""
    low, high = _vector(lower), _vector(upper)
    weight, bias = layers[-1]
    least, _ = minimum(exact(layers), low, high)
    moved = torch.tensor([float(Fraction(float(bias)) - least + Fraction(margin))])
    layers = [*layers[:-1], (weight, moved)]
    least, _ = minimum(exact(layers), low, high)
    return Case(family, f"{family}-{k}", layers, lower, upper, least)


def _vector(values: Tensor) -> Vector:
    return tuple(Fraction(v) for v in values.double().tolist())


def _planted(draw: torch.Generator, k: int) -> Case:
    """1 − K relu(r − Σ|x − c|), the hole 2⁻¹² wide; K r = 1 ± 2⁻¹⁰, or 2 for an open hole."""
    d, r = 2 + k % 4, 2.0**-12
    depth = (1 + 2.0**-10, 1 - 2.0**-10, 2.0)[k % 3]
    centre = (torch.rand(d, generator=draw) * 2 - 1).mul(4096).round() / 4096
    both = torch.cat([torch.eye(d), -torch.eye(d)])
    layers = [
        (both, torch.cat([-centre, centre])),
        (-torch.ones(1, 2 * d), torch.tensor([r])),
        (torch.tensor([[-depth / r]]), torch.ones(1)),
    ]
    limit = torch.ones(d, dtype=torch.float64)
    return Case("planted", f"planted-{k}", layers, -limit, limit, 1 - Fraction(depth))


def _radius(draw: torch.Generator, k: int) -> Case:
    """R − Σ|xᵢ| over [−ρ, ρ]ᵈ."""
    d = 2 + k % 5
    rho = float(torch.rand(1, generator=draw)) + 0.25
    both = torch.cat([torch.eye(d), -torch.eye(d)])
    radius = torch.tensor([d * rho + MARGINS[k % len(MARGINS)]])
    layers = [(both, torch.zeros(2 * d)), (-torch.ones(1, 2 * d), radius)]
    limit = torch.full((d,), rho, dtype=torch.float64)
    return Case("radius", f"radius-{k}", layers, -limit, limit, Fraction(float(radius)) - d * Fraction(rho))


def _degenerate(draw: torch.Generator, k: int) -> Case:
    """Two inputs of which one, or both, are points at float64 numbers that no float32 equals."""
    layers, lower, upper = _random(draw, 2 * k + 1)
    lower[0] = upper[0] = 0.1 * (1 + k % 7)
    if k % 3 == 0:
        lower[1] = upper[1] = 1 / 3
    return _case("degenerate", k, layers, lower, upper, MARGINS[k % 6])


def _scaled(draw: torch.Generator, k: int) -> Case:
    layers, lower, upper = _random(draw, k)
    s = 2.0 ** (20 if k % 2 else -20)  # a power of two: the real function is the same
    (weight, bias), *rest = layers
    layers = [(weight * s, bias * s), (rest[0][0] / s, rest[0][1]), *rest[1:]]
    return _case("scaled", k, layers, lower, upper, MARGINS[k % 4])


def _broken(draw: torch.Generator, k: int) -> Case:
    layers, lower, upper = _random(draw, k)
    weight, bias = layers[k % len(layers)]
    weight = weight.clone()
    weight.view(-1)[0] = (math.nan, math.inf, -math.inf)[k % 3]
    layers[k % len(layers)] = (weight, bias)
    return Case("broken", f"broken-{k}", layers, lower, upper, None)
