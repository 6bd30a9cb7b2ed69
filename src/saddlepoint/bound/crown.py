"""CROWN: backward linear bounds (Zhang et al. 2018, arXiv 1811.00866, Theorem 3.2 and §3.3).

    min over S(x) of ⟨C, f(x')⟩ ≥ min over S(x) of ⟨A₀, x'⟩ + c

1. Every nonlinear node is enclosed between two lines over bounds of its input; C is pulled back through those
   lines and the linear maps to the input, where the set's support function gives the minimum: exact for a
   linear graph in every norm, box included.
2. The bounds of the inputs come first from intervals. Samples that this decides (all rows above
   `stop_above`) are done: one walk of m rows.
3. For the others, node by node, the neurons whose enclosure is loose under the bounds so far get their own two
   rows (neuron and its negative), pulled back like C; the better of both bounds stays.

Lower slope of an unstable ReLU: 1 if u > −l, else 0. Cost: two forwards, m rows per sample, and for undecided
samples two rows per loose neuron. Rows of one node share the linear stretch below it and are kept to their
windows (rows.py); `memory` (bytes) bounds the rows walked at a time.
Float32, round to nearest: claims for a checker to confirm (check/proofs.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.bound.backward import Lines, Region, Walker
from saddlepoint.bound.base import Bounds, Proof, never_certify, specification
from saddlepoint.bound.interval import Interval2, region_of, step, tail
from saddlepoint.bound.rows import Rows, one_hot
from saddlepoint.bound.rules import Relaxation, Rule, rule_of
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import LinearOp

TILES = 8  # a node of H × W places is cut into at most TILES² tiles, whose rows share one window
WORTH = 64  # rows that make a tile worth its own walk


@dataclass(frozen=True)
class CROWN:
    """Backward linear bounds. `intermediate` "interval" stops after step 2; `stop_above` None refines every sample."""

    intermediate: Literal["backward", "interval"] = "backward"
    stop_above: float | None = 0.0
    upper: bool = False
    memory: int = 1 << 25

    @property
    def name(self) -> str:
        """The method's name in evidence."""
        return "crown" if self.intermediate == "backward" else "crown-interval"

    def __call__(
        self,
        graph: Graph,
        set: PerturbationSet,
        x: Float[Tensor, "b *shape"],
        C: Float[Tensor, "b m k"] | None = None,
    ) -> Bounds:
        """lower (b, m) ≤ C f(x') on S(x), and the slopes that show it."""
        with torch.no_grad():
            wanted = specification(graph, x, C)
            search = _Search(self, Walker(graph, self.memory))
            region = region_of(set, x)
            found = search.bound(region, wanted, refine=False)
            if self.intermediate == "interval":
                return found
            undecided = torch.arange(len(x), device=x.device)
            if self.stop_above is not None and not self.upper:
                undecided = (~(found.lower > self.stop_above).all(1)).nonzero().flatten()
            if len(undecided) == 0:
                return found
            finer = search.bound(region.take(undecided), wanted.index_select(0, undecided), refine=True)
            return _merge(found, finer, undecided)


@dataclass(frozen=True)
class _Search:
    config: CROWN
    walker: Walker

    def bound(self, region: Region, wanted: Tensor, *, refine: bool) -> Bounds:
        """All samples of `region` at one level of effort."""
        values, relaxations, tensors = self.enclose(region, refine=refine)
        b, m, k = wanted.shape
        tensors["refined"] = torch.full((b,), int(refine), dtype=torch.uint8, device=wanted.device)

        def lowest(c: Tensor) -> Tensor:
            start = Rows(c.reshape(b * m, k), self.walker.graph.output_shape)
            lines = self.walker.shared(Lines({self.walker.graph.output: start}, c.new_zeros(b * m)))
            owner = torch.arange(b, device=c.device).repeat_interleave(m)
            every = torch.arange(b * m, device=c.device)
            walked = self.walker.minimum(lines, every, owner, relaxations, region).view(b, m)
            plain = never_certify(tail(self.walker, region, values, c))
            return torch.maximum(never_certify(walked), plain)

        upper = -lowest(-wanted) if self.config.upper else None
        return Bounds(lowest(wanted), upper, Proof(tensors))

    def enclose(
        self, region: Region, *, refine: bool
    ) -> tuple[dict[str, Interval2], dict[str, Relaxation], dict[str, Tensor]]:
        """Bounds of every value, lines of every nonlinear node, and the choices of their lower slopes."""
        graph = self.walker.graph
        values: dict[str, Interval2] = {graph.input: (region.lower, region.upper)}
        relaxations: dict[str, Relaxation] = {}
        choices: dict[str, Tensor] = {}
        done: set[str] = set()  # two nodes may read one value
        for node in graph.nodes:
            if not isinstance(node.op, LinearOp):
                rule, source = rule_of(node.op, node.name), node.inputs[0]
                if refine and source not in done and self._improvable(source, region):
                    done.add(source)
                    self._refine(node, rule, values, relaxations, region)
                choice = rule.choose(node.op, *values[source])
                if choice is not None:
                    choices[f"lower/{node.name}"] = choice
                relaxations[node.name] = rule.relax(node.op, *values[source], choice)
            values[node.name] = step(node, graph, [values[name] for name in node.inputs])
        return values, relaxations, choices

    def _improvable(self, source: str, region: Region) -> bool:
        """Whether a backward pass can beat the interval: not on the input, nor one linear map from a box."""
        graph = self.walker.graph
        if source == graph.input:
            return False
        node = graph.node(source)
        return not (region.boxed and isinstance(node.op, LinearOp) and node.inputs == (graph.input,))

    def _refine(
        self,
        node: Node,
        rule: Rule,
        values: dict[str, Interval2],
        relaxations: dict[str, Relaxation],
        region: Region,
    ) -> None:
        """Tighten the input of `node` where its enclosure is loose: first the bound nearer to 0, as that may settle
        a ReLU; then, where it did not, the other one. The better of old and new stays."""
        source = node.inputs[0]
        shape = self.walker.graph.shape(source)
        lower, upper = (t.flatten(1).clone() for t in values[source])
        raise_lower = upper >= -lower
        for turn in (raise_lower, ~raise_lower):
            loose = rule.loose(node.op, *values[source])
            for samples, neurons in _tiles(loose, shape):
                distinct, place = torch.unique(neurons, return_inverse=True)
                hot = one_hot(distinct, shape, lower)
                both = replace(hot, a=torch.cat([hot.a, -hot.a]))
                raising = turn[samples, neurons]
                lines = self.walker.shared(Lines({source: both}, lower.new_zeros(2 * len(distinct))))
                place = torch.where(raising, place, place + len(distinct))
                found = self.walker.minimum(lines, place, samples, relaxations, region)
                # neuron ≥ min of itself, neuron ≤ −min of its negative; a comparison with NaN is false
                low, high = lower[samples, neurons], upper[samples, neurons]
                lower[samples, neurons] = torch.where(raising & (found > low), found, low)
                upper[samples, neurons] = torch.where(~raising & (-found < high), -found, high)
            values[source] = (lower.view(-1, *shape), upper.view(-1, *shape))


def _tiles(loose: Tensor, shape: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """(sample, neuron) pairs of the loose neurons, grouped by the tile of H × W that they lie in."""
    samples, neurons = loose.flatten(1).nonzero(as_tuple=True)
    if len(shape) != 3:
        return [(samples, neurons)] if len(samples) else []
    height, width = shape[1:]
    per_side = min(TILES, max(1, math.isqrt(len(samples) // WORTH)))
    place = neurons % (height * width)
    row, column = (place // width) * per_side // height, (place % width) * per_side // width
    tile = row * per_side + column
    order = torch.argsort(tile, stable=True)
    sizes = torch.bincount(tile).tolist()
    groups = zip(samples[order].split(sizes), neurons[order].split(sizes), strict=True)
    return [(s, n) for s, n in groups if len(s)]


def _merge(coarse: Bounds, fine: Bounds, index: Tensor) -> Bounds:
    """`fine` for the samples of `index`, `coarse` elsewhere, proofs likewise."""

    def blend(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return None if a is None or b is None else a.index_copy(0, index, b)

    tensors = {name: t.index_copy(0, index, fine.proof.tensors[name]) for name, t in coarse.proof.tensors.items()}
    return Bounds(coarse.lower.index_copy(0, index, fine.lower), blend(coarse.upper, fine.upper), Proof(tensors))
