"""What a bound method is given and what it hands back.

    lower_i ≤ min over x' in S(x) of ⟨C_i, f(x')⟩        upper_i ≥ max of the same, where asked

A bound carries a `Proof`: the numbers a checker needs to reach the bound again by itself. NaN or an
infinity met on the way becomes a lower bound of −∞ (upper +∞): it bounds, and certifies nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.core.errors import InputError
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.graph.ir import Graph


@dataclass(frozen=True)
class Proof:
    """Tensors by name, each with the batch as its first axis, so that a blob may hold many samples.

    "refined"       uint8 (b,)          intermediate bounds: 0 intervals, 1 backward passes, 2 forward linear bounds
    "lower/NODE"    uint8 or float (b, *shape)   where in its sound range the lower slope of NODE lies,
                    0 the smallest slope, 1 the largest
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)

    def rows(self, index: Tensor) -> Proof:
        """The proof of some samples."""
        return Proof({name: t.index_select(0, index) for name, t in self.tensors.items()})


@dataclass(frozen=True)
class Bounds:
    """lower (b, m), upper (b, m) or None, and the proof of the lower side (may be empty)."""

    lower: Float[Tensor, "b m"]
    upper: Float[Tensor, "b m"] | None = None
    proof: Proof = field(default_factory=Proof)


@runtime_checkable
class BoundMethod(Protocol):
    """A frozen dataclass of parameters that maps (graph, set, batch, specification) to bounds."""

    @property
    def name(self) -> str:
        """The method's name in evidence."""
        ...

    def __call__(
        self,
        graph: Graph,
        set: PerturbationSet,
        x: Float[Tensor, "b ..."],
        C: Float[Tensor, "b m k"] | None = None,
    ) -> Bounds:
        """Bounds of C f over S(x); C = None stands for the identity (the logits themselves)."""
        ...


def specification(graph: Graph, x: Tensor, C: Tensor | None) -> Tensor:
    """C as (b, m, K) in x's dtype, the identity if None. Raises InputError on a shape that does not fit."""
    shape = graph.output_shape
    if len(shape) != 1:
        raise InputError(f"the graph's output has shape {shape}; bounds are for vectors of logits.")
    if tuple(x.shape[1:]) != tuple(graph.input_shape):
        raise InputError(f"x has shape {tuple(x.shape[1:])} per sample, the graph takes {graph.input_shape}.")
    if x.dtype != graph.dtype:
        raise InputError(f"x is {x.dtype}, the graph computes in {graph.dtype}.", "Convert one: graph.to(x.dtype).")
    if C is None:
        return torch.eye(shape[0], dtype=x.dtype, device=x.device).expand(len(x), -1, -1)
    if C.ndim != 3 or C.shape[0] != len(x) or C.shape[2] != shape[0]:
        raise InputError(f"C has shape {tuple(C.shape)}, wanted ({len(x)}, m, {shape[0]}).")
    return C.to(x)


def never_certify(lower: Tensor) -> Tensor:
    """−∞ wherever a lower bound is NaN or infinite."""
    return torch.where(torch.isfinite(lower), lower, torch.full_like(lower, -torch.inf))
