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

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.bound.backward import Region, Walker
from saddlepoint.bound.base import Bounds, Proof, never_certify, specification
from saddlepoint.bound.enclose import Encloser, by_rule
from saddlepoint.bound.forward import enclose_forward
from saddlepoint.bound.interval import by_intervals, region_of, start_of
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.graph.decompose import decompose
from saddlepoint.graph.ir import Graph


@dataclass(frozen=True)
class CROWN:
    """Backward linear bounds. `intermediate` "interval" stops after step 2, "forward" takes forward linear bounds in
    place of step 3 (forward.py: cheap for few inputs); `stop_above` None refines every sample."""

    intermediate: Literal["backward", "forward", "interval"] = "backward"
    stop_above: float | None = 0.0
    upper: bool = False
    memory: int = 1 << 24

    @property
    def name(self) -> str:
        """The method's name in evidence."""
        return "crown" if self.intermediate == "backward" else f"crown-{self.intermediate}"

    def __call__(
        self,
        graph: Graph,
        set: PerturbationSet,
        x: Float[Tensor, "b *shape"],
        C: Float[Tensor, "b m k"] | None = None,
    ) -> Bounds:
        """lower (b, m) ≤ C f(x') on S(x), and the slopes that show it."""
        with torch.no_grad():
            graph = decompose(graph)
            wanted = specification(graph, x, C)
            search = _Search(self, Walker(graph, self.memory))
            region = region_of(set, x)
            finest = {"interval": 0, "backward": 1, "forward": 2}[self.intermediate]
            if finest and (self.stop_above is None or self.upper):
                return search.bound(region, wanted, finest)
            found = search.bound(region, wanted, 0)
            undecided = (~(found.lower > (self.stop_above or 0.0)).all(1)).nonzero().flatten()
            if not finest or len(undecided) == 0:
                return found
            finer = search.bound(region.take(undecided), wanted.index_select(0, undecided), finest)
            return _merge(found, finer, undecided)


@dataclass(frozen=True)
class _Search:
    config: CROWN
    walker: Walker

    def bound(self, region: Region, wanted: Tensor, effort: int) -> Bounds:
        """All samples of `region` at one level of effort: 0 intervals, 1 backward passes, 2 forward linear bounds."""
        if effort == 2:
            values, relaxations, tensors, _ = enclose_forward(self.walker.graph, region, by_rule)
        else:
            values, relaxations, tensors = Encloser(self.walker).enclose(region, refine=effort == 1)
        tensors["refined"] = torch.full((len(wanted),), effort, dtype=torch.uint8, device=wanted.device)

        def lowest(c: Tensor) -> Tensor:
            lines, owner = start_of(self.walker, c)
            every = torch.arange(len(owner), device=c.device)
            walked = self.walker.minimum(lines, every, owner, relaxations, region)
            plain = by_intervals(lines, owner, self.walker.graph.input, region, values)
            return torch.maximum(never_certify(walked), never_certify(plain)).view(c.shape[:2])

        upper = -lowest(-wanted) if self.config.upper else None
        return Bounds(lowest(wanted), upper, Proof(tensors))


def _merge(coarse: Bounds, fine: Bounds, index: Tensor) -> Bounds:
    """`fine` for the samples of `index`, `coarse` elsewhere, proofs likewise."""

    def blend(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return None if a is None or b is None else a.index_copy(0, index, b)

    tensors = {name: t.index_copy(0, index, fine.proof.tensors[name]) for name, t in coarse.proof.tensors.items()}
    return Bounds(coarse.lower.index_copy(0, index, fine.lower), blend(coarse.upper, fine.upper), Proof(tensors))
