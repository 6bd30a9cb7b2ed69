"""Tighter bounds of one value by backward passes, as the checker finds them by itself.

    neuron n ≥ minimum(e_n),   n ≤ −minimum(−e_n)        where the enclosure that reads n is loose

Rows of one tile of H × W share a window.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from saddlepoint.check.proofs_forward import Enclosure
from saddlepoint.check.proofs_lines import undecided
from saddlepoint.check.proofs_walk import Backward, Rows
from saddlepoint.check.support import Region
from saddlepoint.graph.ir import Graph
from saddlepoint.graph.ops import LinearOp, NonlinearOp

TILES, WORTH = 8, 64  # at most TILES² tiles, of WORTH rows on average


def exact(graph: Graph, where: Region, source: str) -> bool:
    """One linear map from a box, or the input itself: no backward pass can beat the interval."""
    if source == graph.input:
        return True
    node = graph.node(source)
    return where.boxed and isinstance(node.op, LinearOp) and node.inputs == (graph.input,)


def refine_value(backward: Backward, values: dict[str, Enclosure], op: NonlinearOp, source: str) -> None:
    """Neuron n ≥ minimum(e_n) and ≤ −minimum(−e_n): first the side nearer to 0, then the other if it matters."""
    shape = backward.forward.graph.shape(source)
    nearer = torch.where(values[source][1] < -values[source][0], -1.0, 1.0).double()
    for sign in (nearer, -nearer):
        wanted = undecided(op, *values[source])
        low, high = (t.flatten(1).clone() for t in values[source])
        for samples, neurons in _groups(wanted, shape):
            up = sign.flatten(1)[samples, neurons]
            found = up * backward.minimum(source, unit(neurons, shape, up), samples)
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


def unit(neurons: Tensor, shape: tuple[int, ...], sign: Tensor) -> Rows:
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
