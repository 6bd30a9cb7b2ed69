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

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.check.proofs_forward import Charge, Enclosure, Forward
from saddlepoint.check.proofs_lines import Lines, Winners, lines, supported, undecided, winners
from saddlepoint.check.proofs_walk import Backward, Rows
from saddlepoint.check.support import Region, region
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import LinearOp, MaxPool2d, NonlinearOp

METHODS = ("interval", "crown-interval", "crown")
TILES, WORTH = 8, 64  # rows of one tile of H × W share a window: at most TILES² tiles, of WORTH rows on average


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
        exact = graph.to(torch.device("cpu")).to(torch.float64)
        where = region(dict(set_canonical), x0)
        _require_shapes(exact, x0, C)
        rows = C.detach().cpu().double()
        if method == "interval":
            return _finite(_Check(exact, memory, {}).bound(where, rows, refine=False, linear=False))
        choices = _choices(exact, proof, len(x0))
        refined = _tensor(proof, "refined", (len(x0),)).bool()
        lower = torch.full(C.shape[:2], -torch.inf, dtype=torch.float64)
        for flag in (False, True):
            index = (refined == flag).nonzero().flatten()
            if len(index):
                mine = {name: t.index_select(0, index) for name, t in choices.items()}
                check = _Check(exact, memory, mine)
                lower[index] = check.bound(where.take(index), rows[index], refine=flag, linear=True)
        return _finite(lower)


@dataclass(frozen=True)
class _Check:
    graph: Graph
    memory: int
    choices: Mapping[str, Tensor]

    def bound(self, where: Region, C: Tensor, *, refine: bool, linear: bool) -> Tensor:
        """Lower bounds (b, m): intervals with C multiplied through the linear tail; `linear`: enclosures too."""
        b, m, k = C.shape
        backward = self._prepare(where, refine=refine, linear=linear)
        owner = torch.arange(b).repeat_interleave(m)
        rows = Rows(C.reshape(b * m, k), self.graph.output_shape)
        plain = replace(backward, enclosures={}).minimum(self.graph.output, rows, owner)
        best = _finite(backward.minimum(self.graph.output, rows, owner)) if linear else plain
        return torch.maximum(best, _finite(plain)).view(b, m)

    def _prepare(self, where: Region, *, refine: bool, linear: bool) -> Backward:
        """Bounds of all values in order; with `refine` those of undecided neurons by backward passes."""
        forward = Forward(self.graph)
        values: dict[str, Enclosure] = {self.graph.input: (where.lower, where.upper)}
        charges: dict[str, Charge] = {}
        enclosures: dict[str, Lines | Winners] = {}
        backward = Backward(forward, where, values, charges, enclosures, self.memory)
        done: set[str] = set()
        for node in self.graph.nodes:
            if isinstance(node.op, LinearOp):
                charges[node.name] = forward.charge(node, node.op, [values[name] for name in node.inputs])
            else:
                op, (source,) = supported(node.op, node.name), node.inputs
                if refine and source not in done and not self._exact(source, where):
                    done.add(source)
                    self._refine(backward, values, op, source)
                if linear and isinstance(op, MaxPool2d):
                    enclosures[node.name] = winners(op, *values[source])
                elif linear:
                    enclosures[node.name] = lines(op, *values[source], self.choices[node.name])
            values[node.name] = forward.image(node, [values[name] for name in node.inputs])
        return backward

    def _exact(self, source: str, where: Region) -> bool:
        """One linear map from a box, or the input itself: no backward pass can beat the interval."""
        if source == self.graph.input:
            return True
        node = self.graph.node(source)
        return where.boxed and isinstance(node.op, LinearOp) and node.inputs == (self.graph.input,)

    def _refine(self, backward: Backward, values: dict[str, Enclosure], op: NonlinearOp, source: str) -> None:
        """Neuron n ≥ minimum(e_n) and ≤ −minimum(−e_n): first the side nearer to 0, then the other if it matters."""
        shape = self.graph.shape(source)
        nearer = torch.where(values[source][1] < -values[source][0], -1.0, 1.0).double()
        for sign in (nearer, -nearer):
            wanted = undecided(op, *values[source])
            low, high = (t.flatten(1).clone() for t in values[source])
            for samples, neurons in _groups(wanted, shape):
                up = sign.flatten(1)[samples, neurons]
                found = up * backward.minimum(source, _unit(neurons, shape, up), samples)
                floor, roof = low[samples, neurons], high[samples, neurons]
                # a comparison with NaN is false: the old bound stays
                low[samples, neurons] = torch.where((up > 0) & (found > floor), found, floor)
                high[samples, neurons] = torch.where((up < 0) & (found < roof), found, roof)
            values[source] = (low.view(-1, *shape), high.view(-1, *shape))


def _groups(wanted: Tensor, shape: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """(sample, neuron) pairs by tile of H × W; one group for other shapes."""
    samples, neurons = wanted.flatten(1).nonzero(as_tuple=True)
    if len(shape) != 3:
        return [(samples, neurons)]
    height, width = shape[1], shape[2]
    side = min(TILES, max(1, math.isqrt(len(samples) // WORTH)))
    place = neurons % (height * width)
    tile = (place // width) * side // height * side + (place % width) * side // width
    return [(samples[tile == t], neurons[tile == t]) for t in tile.unique().tolist()]


def _unit(neurons: Tensor, shape: tuple[int, ...], sign: Tensor) -> Rows:
    """sign (r,) · e_n, kept to the smallest window that holds all of them."""
    every = torch.arange(len(neurons))
    if len(shape) != 3:
        unit = torch.zeros((len(neurons), torch.Size(shape).numel()), dtype=torch.float64)
        unit[every, neurons] = sign
        return Rows(unit.view(-1, *shape), shape)
    channel, place = neurons // (shape[1] * shape[2]), neurons % (shape[1] * shape[2])
    row, column = place // shape[2], place % shape[2]
    if len(neurons) == 0:
        return Rows(torch.zeros((0, *shape), dtype=torch.float64), shape)
    top, left = int(row.min()), int(column.min())
    window = (len(neurons), shape[0], int(row.max()) - top + 1, int(column.max()) - left + 1)
    unit = torch.zeros(window, dtype=torch.float64)
    unit[every, channel, row - top, column - left] = sign
    return Rows(unit, shape, top, left)


def _choices(graph: Graph, proof: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    return {
        node.name: _tensor(proof, f"lower/{node.name}", (count, *node.shape))
        for node in graph.nodes
        if _has_choice(node)
    }


def _has_choice(node: Node) -> bool:
    return not isinstance(node.op, (LinearOp, MaxPool2d))


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
