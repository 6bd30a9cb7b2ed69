"""Re-evaluation of interval and CROWN proofs, in float64 and without the code that found them.

    recheck(...)  ≤  min over x' in S(x) of ⟨C_i, f(x')⟩          as a theorem about real arithmetic

Semantics: f is the *real-valued* network with the float weights as given (not the float32 computation, whose
order of summation a library may choose), S(x) the real set with its size as the exact rational of the JSON.
From a proof only the choice of lower slopes is taken, clipped to its sound range, and which samples had
refined intermediate bounds; intervals, neurons' bounds and upper lines are computed anew. So a tampered proof
weakens a bound at most. Every step rounds outward by a-priori bounds: proofs_forward (linear maps),
proofs_lines (enclosures), proofs_walk (backward pass), support (the set). A result that is not finite is −∞.

The only common ground with the search is the graph IR itself (its operators' maps and transposes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.check.proofs_affine import Affine, form_of
from saddlepoint.check.proofs_forward import Charge, Enclosure, Forward
from saddlepoint.check.proofs_lines import STEPS, Lines, Winners, lines, supported, winners
from saddlepoint.check.proofs_products import Planes
from saddlepoint.check.proofs_refine import exact, refine_value
from saddlepoint.check.proofs_render import Slab
from saddlepoint.check.proofs_walk import Backward, Rows
from saddlepoint.check.support import Region, region
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.graph.decompose import decompose
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import Elementwise, LinearOp, MaxPool2d

METHODS = (
    "interval",
    "crown-interval",
    "crown-forward",
    "crown",
    "wong-kolter",
)  # the last is CROWN with the chord below


def recheck(
    graph: Graph,
    set_canonical: Mapping[str, Any],
    x0: Float[Tensor, "b ..."],
    C: Float[Tensor, "b m k"],
    proof: Mapping[str, Tensor],
    method: str,
    *,
    memory: int = 1 << 25,
) -> Float[Tensor, "b m"]:
    """Lower bounds (b, m), float64 on the CPU, of C f over S(x0).

    `proof` holds the tensors of the blob ("refined" (b,), "lower/NODE" (b, *shape)). Raises NotAvailable for
    sets or methods without a rule here, UnsupportedOperator, InputError for a proof that does not fit.
    """
    if method not in METHODS:
        raise NotAvailable(f"no checker for proofs of method {method!r}.", f"There are: {', '.join(METHODS)}.")
    with torch.no_grad():
        wide = decompose(graph.to(torch.device("cpu")).to(torch.float64))
        where = region(dict(set_canonical), x0)
        _require_shapes(wide, x0, C)
        rows = C.detach().cpu().double()
        if method == "interval":
            return _finite(_Check(wide, memory, {}).bound(where, rows, 0, linear=False))
        choices = _choices(wide, proof, len(x0))
        refined = _tensor(proof, "refined", (len(x0),))
        lower = torch.full(C.shape[:2], -torch.inf, dtype=torch.float64)
        for effort in range(3):  # whatever else it says, intervals are sound
            index = ((refined if effort else torch.where(refined > 2, 0, refined)) == effort).nonzero().flatten()
            if len(index):
                mine = {name: t.index_select(0, index) for name, t in choices.items()}
                check = _Check(wide, memory, mine)
                lower[index] = check.bound(where.take(index), rows[index], effort, linear=True)
        return _finite(lower)


@dataclass(frozen=True)
class _Check:
    graph: Graph
    memory: int
    choices: Mapping[str, Tensor]

    def bound(self, where: Region, C: Tensor, effort: int, *, linear: bool) -> Tensor:
        """Lower bounds (b, m): intervals with C multiplied through the linear tail; `linear`: enclosures too."""
        b, m, k = C.shape
        backward = self._prepare(where, effort, linear=linear)
        owner = torch.arange(b).repeat_interleave(m)
        rows = Rows(C.reshape(b * m, k), self.graph.output_shape)
        plain = replace(backward, enclosures={}).minimum(self.graph.output, rows, owner)
        best = _finite(backward.minimum(self.graph.output, rows, owner)) if linear else plain
        return torch.maximum(best, _finite(plain)).view(b, m)

    def _prepare(self, where: Region, effort: int, *, linear: bool) -> Backward:
        """Bounds of all values in order; effort 1: of undecided neurons by backward passes; 2: of all by forms."""
        forward = Forward(self.graph)
        values: dict[str, Enclosure] = {self.graph.input: (where.lower, where.upper)}
        charges: dict[str, Charge] = {}
        enclosures: dict[str, Lines | Winners | Planes | Slab] = {}
        backward = Backward(forward, where, values, charges, enclosures, self.memory)
        done: set[str] = set()
        affine = Affine.over(forward, where.lower, where.upper)
        forms = {self.graph.input: affine.start(where.lower)} if effort == 2 else {}
        for node in self.graph.nodes:
            if isinstance(node.op, LinearOp):
                charges[node.name] = forward.charge(node, node.op, [values[name] for name in node.inputs])
            else:
                op, (source,) = supported(node.op, node.name), node.inputs
                if effort == 1 and source not in done and not exact(self.graph, where, source):
                    done.add(source)
                    refine_value(backward, values, op, source)
                if linear and isinstance(op, MaxPool2d):
                    enclosures[node.name] = winners(op, *values[source])
                elif linear:
                    enclosures[node.name] = lines(op, *values[source], self.choices.get(node.name, values[source][0]))
            values[node.name] = forward.image(node, [values[name] for name in node.inputs])
            if effort == 2:
                forms[node.name] = form_of(affine, node, forms, enclosures.get(node.name), values[node.name])
                values[node.name] = affine.meet(*values[node.name], forms[node.name])
        return backward


def _choices(graph: Graph, proof: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    return {
        node.name: _tensor(proof, f"lower/{node.name}", (count, *node.shape))
        for node in graph.nodes
        if _has_choice(node)
    }


def _has_choice(node: Node) -> bool:
    stepped = isinstance(node.op, Elementwise) and node.op.function in STEPS
    return not isinstance(node.op, (LinearOp, MaxPool2d)) and not stepped


def _tensor(proof: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """One tensor of the proof on the CPU. Raises InputError if it is missing or of another shape."""
    found = proof.get(name)
    if found is None:
        raise InputError(f"the proof lacks {name!r}.", "It is damaged, or of another model or method.")
    if tuple(found.shape) != shape:
        raise InputError(f"{name!r} of the proof has shape {tuple(found.shape)}, the model needs {shape}.")
    return found.detach().cpu()


def _require_shapes(graph: Graph, x0: Tensor, C: Tensor) -> None:
    if tuple(x0.shape[1:]) != tuple(graph.input_shape):
        raise InputError(f"x0 has shape {tuple(x0.shape[1:])} per sample, the graph takes {graph.input_shape}.")
    wanted = (len(x0), *graph.output_shape)
    if C.ndim != 3 or (C.shape[0], C.shape[2]) != wanted:
        raise InputError(f"C has shape {tuple(C.shape)}, the graph's output is {graph.output_shape}.")


def _finite(lower: Tensor) -> Tensor:
    return torch.where(torch.isfinite(lower), lower, -torch.inf)
