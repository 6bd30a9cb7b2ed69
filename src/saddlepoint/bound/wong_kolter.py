"""Wong and Kolter's dual bound (ICML 2018, "Provable Defenses via the Convex Outer Adversarial Polytope", Theorem 1).

    min over S(x) of ⟨c, f⟩ ≥ −Σ_i ν_{i+1}ᵀ b_i − max over S(x) of ⟨ν̂₁, x'⟩ + Σ_i Σ_{j ∈ I_i} l_ij [ν_ij]₊
    ν_k = −c,    ν̂_i = W_iᵀ ν_{i+1},    ν_i = D_i ν̂_i,    D = 0 (u ≤ 0),  1 (l ≥ 0),  u / (u − l) on I (l < 0 < u)

the dual of the triangle relaxation at one feasible point: α = u / (u − l) makes the dual network linear (their eq. 9),
so one walk of a row gives its lower *and* its upper bound. Bounds l, u come layer by layer from the same walk
(Algorithm 1), cut with intervals. It is CROWN with the chord's slope below ReLUs too, "Fast-Lin" (Weng et al. 2018):
the duality is written out here, and CROWN with these slopes agrees to rounding where both see the same l, u. For
balls the maximum is xᵀν̂₁ + ε ‖ν̂₁‖_*; any set with a support function is taken.

Cost: one row per neuron of a layer that some ReLU reads, and m rows. Graphs of linear operators and ReLU.
The proof is CROWN's: the slopes, as shares of [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.bound.backward import Region, widest
from saddlepoint.bound.base import Bounds, Proof, never_certify, specification
from saddlepoint.bound.interval import Interval2, region_of, step
from saddlepoint.bound.rows import Rows
from saddlepoint.core.errors import UnsupportedOperator
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.graph.ir import Graph
from saddlepoint.graph.ops import LinearOp, Relu
from saddlepoint.graph.transpose import transpose


@dataclass(frozen=True)
class WongKolter:
    """The dual bound. `memory` (bytes) limits the rows walked at a time; `upper` gives upper bounds too."""

    upper: bool = False
    memory: int = 1 << 25

    @property
    def name(self) -> str:
        """The method's name in evidence."""
        return "wong-kolter"

    def __call__(
        self,
        graph: Graph,
        set: PerturbationSet,
        x: Float[Tensor, "b *shape"],
        C: Float[Tensor, "b m k"] | None = None,
    ) -> Bounds:
        """lower (b, m) ≤ C f(x') on S(x). Raises UnsupportedOperator for nonlinear operators but ReLU."""
        with torch.no_grad():
            wanted = specification(graph, x, C)
            dual = Dual.of(graph, region_of(set, x), self.memory)
            lower, upper = dual.both(graph.output, wanted)
        tensors = {f"lower/{name}": share(low, high) for name, (low, high) in dual.layers.items()}
        tensors["refined"] = torch.ones(len(x), dtype=torch.uint8, device=x.device)
        return Bounds(never_certify(lower), -never_certify(-upper) if self.upper else None, Proof(tensors))


def share(low: Tensor, high: Tensor) -> Tensor:
    """u / (u − l) where l < 0 < u, else 0 or 1: the diagonal of D."""
    unstable = (low < 0) & (high > 0)
    width = torch.where(unstable, high - low, 1.0)  # 0/0 elsewhere would become NaN in gradients by the weights
    return torch.where(unstable, high / width, (low >= 0).to(low))


@dataclass(frozen=True)
class Dual:
    """The dual network of one batch; `layers` holds l, u of what every ReLU so far reads."""

    graph: Graph
    region: Region
    layers: dict[str, Interval2]
    memory: int

    @staticmethod
    def of(graph: Graph, region: Region, memory: int = 1 << 25) -> Dual:
        """Algorithm 1: layer after layer. Raises UnsupportedOperator for nonlinear operators but ReLU."""
        dual = Dual(graph, region, {}, memory)
        values: dict[str, Interval2] = {graph.input: (region.lower, region.upper)}
        for node in graph.nodes:
            if isinstance(node.op, Relu):
                values[node.inputs[0]] = dual.tightened(node.inputs[0], values[node.inputs[0]])
                dual.layers[node.name] = values[node.inputs[0]]
            elif not isinstance(node.op, LinearOp):
                raise UnsupportedOperator(
                    f"Wong and Kolter's dual has no {node.op.kind} (node {node.name!r}).",
                    "It takes linear operators and ReLU; CROWN takes more.",
                )
            values[node.name] = step(node, graph, [values[name] for name in node.inputs])
        return dual

    def tightened(self, source: str, known: Interval2) -> Interval2:
        """l, u of a value: one row per entry, cut with what is known. A linear map of a box is known exactly."""
        if source == self.graph.input:
            return known
        node = self.graph.node(source)
        if self.region.boxed and isinstance(node.op, LinearOp) and node.inputs == (self.graph.input,):
            return known
        shape, b = self.graph.shape(source), len(self.region.x)
        count = int(torch.Size(shape).numel())
        low, high = (t.flatten(1).clone() for t in known)
        item = low.element_size() * widest(self.graph) * 6 * b
        room = max(1, self.memory // item)
        for start in range(0, count, room):
            entries = torch.arange(start, min(start + room, count), device=low.device)
            unit = torch.nn.functional.one_hot(entries, count).to(low)
            lower, upper = self.both(source, unit.expand(b, -1, -1))
            # a comparison with NaN is false: what is known stays
            low[:, entries] = torch.where(lower > low[:, entries], lower, low[:, entries])
            high[:, entries] = torch.where(upper < high[:, entries], upper, high[:, entries])
        return low.view(-1, *shape), high.view(-1, *shape)

    def both(self, name: str, c: Float[Tensor, "b m n"]) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds (b, m) of ⟨c, value⟩, from one walk."""
        b, m, _ = c.shape
        # ν = −(rows): the sign of ν_k = −c is carried by the formulas, so that rows read as coefficients
        pending = {name: c.reshape(b * m, *self.graph.shape(name))}
        below, above = (c.new_zeros((b, m)) for _ in range(2))
        for node in reversed(self.graph.nodes):
            if node.name not in pending:
                continue
            rows = pending.pop(node.name)
            if isinstance(node.op, LinearOp):
                shapes = self.graph.in_shapes(node)
                constant = node.op.constant(shapes, rows[:0])
                if constant is not None:  # −ν_{i+1}ᵀ b_i
                    gained = (rows.flatten(1) @ constant.reshape(-1)).view(b, m)
                    below, above = below + gained, above + gained
                pulled = transpose(node.op, rows, shapes)
            else:
                low, high = (t.flatten(1)[:, None] for t in self.layers[node.name])
                rows = rows.view(b, m, -1) * share(low, high)
                room = torch.where((low < 0) & (high > 0), low, 0.0)
                # l [ν]₊ with ν = −rows for the lower bound, ν = rows for the upper one
                below = below + (room * (-rows).clamp_min(0)).sum(2)
                above = above - (room * rows.clamp_min(0)).sum(2)
                pulled = (rows.view(b * m, *node.shape),)
            for source, a in zip(node.inputs, pulled, strict=True):
                pending[source] = pending[source] + a if source in pending else a
        rows = Rows(pending[self.graph.input], self.graph.input_shape)
        owner = torch.arange(b, device=c.device).repeat_interleave(m)
        below = below + self.region.minimum(rows, owner).view(b, m)
        above = above - self.region.minimum(Rows(-rows.a, rows.shape), owner).view(b, m)
        return below, above
