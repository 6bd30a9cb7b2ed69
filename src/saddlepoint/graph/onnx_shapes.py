"""Rules for ONNX operators that move entries or reduce: a node -> operators of the IR."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from saddlepoint.core.errors import StochasticModel
from saddlepoint.graph import algebra, ops
from saddlepoint.graph.builder import Ref, Value
from saddlepoint.graph.onnx_call import BATCH, FLOATS, Call
from saddlepoint.graph.onnx_file import type_name
from saddlepoint.graph.ops_base import Shape


def shape_of(c: Call) -> np.ndarray:
    """The shape of a variable, the batch axis as BATCH."""
    x = c.variable()
    whole = [BATCH, *x.shape]
    return np.asarray(whole[c.a.get("start", 0) : c.a.get("end", len(whole))], dtype=np.int64)


def reshape(c: Call) -> Ref:
    """Reshape; the target must keep the batch axis in front (a file for one sample may say 1 there)."""
    x = c.variable()
    target = c.ints("shape", 1) or []
    return algebra.reshape(c.b, x, _without_batch(c, x, target), c.name)


def _without_batch(c: Call, x: Ref, target: list[int]) -> Shape:
    if not target:
        raise c.b.unsupported("a reshape to a scalar mixes the samples of a batch")
    whole = [BATCH, *x.shape]
    if not c.a.get("allowzero", 0):
        target = [whole[i] if t == 0 and i < len(whole) else t for i, t in enumerate(target)]
    head, rest, size = target[0], target[1:], math.prod(x.shape)
    if any(t > 0 and t % BATCH == 0 for t in rest):
        raise c.b.unsupported(f"a reshape to {_readable(target)} mixes the samples of a batch")
    if -1 in rest:
        known = math.prod(t for t in rest if t != -1)
        rest = [size // known if t == -1 and known else t for t in rest]
    # [-1, …] is the batch axis only if the other sizes hold one sample exactly
    if head not in (BATCH, -1, c.batch) or math.prod(rest) != size:
        raise c.b.unsupported(
            f"a reshape of (N, {str(x.shape)[1:-1]}) to {_readable(target)} mixes the samples of a batch"
        )
    return tuple(rest)


def _readable(target: list[int]) -> str:
    return "[" + ", ".join("N" if t == BATCH else str(t) for t in target) + "]"


def flatten(c: Call) -> Ref:
    """(N, …) -> (N, product)."""
    x = c.variable()
    axis = c.a.get("axis", 1)
    if axis % x.rank != 1 and not (axis == x.rank == 1):
        raise c.b.unsupported(f"flattening from axis {axis} mixes the samples of a batch")
    return algebra.reshape(c.b, x, (math.prod(x.shape),), c.name)


def squeeze(c: Call) -> Ref:
    """Drops axes of size 1."""
    x = c.variable()
    axes = c.ints("axes", 1)
    drop = [i for i in range(1, x.rank) if x.shape[i - 1] == 1] if axes is None else c.b.axes(axes, x)
    if any(x.shape[i - 1] != 1 for i in drop):
        raise c.b.unsupported("it squeezes an axis that is not of size 1")
    kept = tuple(s for i, s in enumerate(x.shape, start=1) if i not in drop)
    return algebra.reshape(c.b, x, kept, c.name)


def unsqueeze(c: Call) -> Ref:
    """Adds axes of size 1."""
    x = c.variable()
    axes = c.ints("axes", 1) or []
    rank = x.rank + len(axes)
    new = {a % rank for a in axes}
    if 0 in new:
        raise c.b.unsupported("it puts a new axis before the batch axis")
    old = iter(x.shape)
    return algebra.reshape(c.b, x, tuple(1 if i in new else next(old) for i in range(1, rank)), c.name)


def transpose(c: Call) -> Ref:
    """Permutes axes."""
    x = c.variable()
    return algebra.permute(c.b, x, c.a.get("perm") or list(range(x.rank))[::-1], c.name)


def slices(c: Call) -> Ref:
    """Slice along several axes."""
    x = c.variable()
    starts, ends = c.ints("starts", 1) or [], c.ints("ends", 2) or []
    axes = c.ints("axes", 3) or list(range(len(starts)))
    steps = c.ints("steps", 4) or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if axis % x.rank == 0 and c.batch is not None and start == 0 and step == 1 and end >= c.batch:
            continue  # all samples of a file for a fixed batch
        if axis % x.rank and step < 0:
            # Python has no number for "down to and including 0"; such ends become an explicit list
            size = x.shape[axis % x.rank - 1]
            stop = None if end < -size else end
            chosen = torch.arange(size)[list(range(*slice(start, stop, step).indices(size)))]
            x = algebra.index(c.b, x, axis, chosen, c.name)
        else:
            x = algebra.take(c.b, x, axis, start, end, step, c.name)
    return x


def gather(c: Call) -> Ref:
    """Entries at constant indices along one axis."""
    x, indices, axis = c.variable(), c.array(1), c.a.get("axis", 0)
    if indices.ndim == 0:
        return algebra.select(c.b, x, axis, int(indices), c.name)
    if indices.ndim > 1:
        flat = algebra.index(c.b, x, axis, torch.from_numpy(indices.astype(np.int64).reshape(-1)))
        at = c.b.axis(axis, x)
        return algebra.reshape(c.b, flat, (*x.shape[: at - 1], *indices.shape, *x.shape[at:]), c.name)
    return algebra.index(c.b, x, axis, torch.from_numpy(indices.astype(np.int64)), c.name)


def split(c: Call) -> list[Ref]:
    """Parts along one axis."""
    x = c.variable()
    axis = c.b.axis(c.a.get("axis", 0), x)
    size, parts = x.shape[axis - 1], len(c.outputs)
    width = -(-size // parts)
    sizes = c.ints("split", 1) or [min(width, size - i * width) for i in range(parts)]
    return algebra.split(c.b, x, axis, sizes)


def concat(c: Call) -> Ref:
    """One after the other."""
    values: list[Value] = [c.value(i) for i in range(len(c.inputs))]
    return algebra.concat(c.b, values, c.a["axis"], c.name)


def pad(c: Call) -> Ref:
    """Constant padding; ONNX lists all beginnings, then all ends."""
    x, mode = c.variable(), c.a.get("mode", b"constant")
    if mode != b"constant":
        raise c.b.unsupported(f"padding of mode {mode.decode()}")
    pads, value = c.ints("pads", 1) or [], c.number("value", 2) or 0.0
    if c.given(3):
        whole = [0] * (2 * x.rank)
        axes = [int(a) % x.rank for a in c.array(3).reshape(-1)]
        for i, axis in enumerate(axes):
            whole[axis], whole[axis + x.rank] = pads[i], pads[i + len(axes)]
        pads = whole
    if len(pads) != 2 * x.rank or pads[0] or pads[x.rank]:
        raise c.b.unsupported("padding of the batch axis")
    if not any(pads):
        return x
    torch_order = [p for axis in reversed(range(1, x.rank)) for p in (pads[axis], pads[axis + x.rank])]
    return c.node(ops.Pad(tuple(torch_order), value))


def expand(c: Call) -> Ref:
    """Broadcasts."""
    x = c.variable()
    target = [int(t) for t in c.array(1).reshape(-1)]
    if len(target) > x.rank or (len(target) == x.rank and target[0] not in (1, BATCH, c.batch)):
        raise c.b.unsupported("it broadcasts the batch axis")
    rest = target[1:] if len(target) == x.rank else target
    return c.b.expand(x, c.b.common(x.shape, tuple(rest)))


def reduce(c: Call, kind: str) -> Ref:
    """Mean or sum over axes."""
    axes = c.ints("axes", 1)
    if not axes:
        if c.a.get("noop_with_empty_axes", 0):
            return c.variable()
        raise c.b.unsupported("a reduction over all axes mixes the samples of a batch")
    return algebra.reduce(c.b, c.variable(), kind, axes, bool(c.a.get("keepdims", 1)), c.name)


def cast(c: Call) -> Ref:
    """Casts between float32 and float64 are left out: the graph runs in one type."""
    if c.a["to"] not in FLOATS:
        raise c.b.unsupported(f"a cast to {type_name(c.a['to'])}")
    return c.variable()


def dropout(c: Call) -> Any:
    """Identity, unless the file switches it on."""
    if c.given(2) and bool(c.array(2)):
        raise StochasticModel(f"{c.b.where}: dropout is switched on.", "Export the model in evaluation mode.")
    return c.variable()
