"""Rules for operators that move entries: a call -> operators of the IR."""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.core.errors import StochasticModel
from saddlepoint.graph import algebra, ops
from saddlepoint.graph.aten_call import Call
from saddlepoint.graph.builder import Ref, Value
from saddlepoint.graph.ops_base import Shape


def reshape(c: Call) -> Ref:
    return algebra.reshape(c.b, c.variable(), c.shape, c.name)


def same(c: Call) -> Ref:
    return c.variable("self" if "self" in c.a else "input")


def dropout(c: Call) -> Ref:
    if c.a["train"] and c.a["p"] > 0:
        raise StochasticModel(
            f"{c.b.where}: dropout is switched on in evaluation.", "Evaluate it as a randomised defence."
        )
    return c.variable("input")


def cast(c: Call) -> Ref:
    """Casts between float32 and float64 are left out: the graph runs in one type."""
    wanted = c.a.get("dtype")
    if wanted not in (None, torch.float32, torch.float64):
        raise c.b.unsupported(f"a cast to {wanted}")
    return c.variable()


def permute(c: Call) -> Ref:
    return algebra.permute(c.b, c.variable(), c.a["dims"], c.name)


def transpose(c: Call) -> Ref:
    x = c.variable()
    axes = list(range(x.rank))
    i, j = c.a["dim0"] % x.rank, c.a["dim1"] % x.rank
    axes[i], axes[j] = axes[j], axes[i]
    return algebra.permute(c.b, x, axes, c.name)


def take(c: Call) -> Ref:
    start, stop = c.a["start"] or 0, c.a["end"]
    x, axis = c.variable(), c.a["dim"]
    if axis % x.rank == 0 and (stop is None or isinstance(stop, torch.SymInt)):
        # x[:b] of a batch of b: the recorded shape says that the batch axis stayed as it was
        stop = torch.iinfo(torch.int64).max
    elif isinstance(start, torch.SymInt) or isinstance(stop, torch.SymInt):
        raise c.b.unsupported("it slices by the batch size")
    stop = x.shape[axis % x.rank - 1] if stop is None else stop
    return algebra.take(c.b, x, axis, start, stop, c.a["step"], c.name)


def narrow(c: Call) -> Ref:
    start = c.a["start"]
    return algebra.take(c.b, c.variable(), c.a["dim"], start, start + c.a["length"], 1, c.name)


def index(c: Call) -> Ref:
    given = [(axis, i) for axis, i in enumerate(c.a["indices"]) if i is not None]
    if len(given) != 1 or not isinstance(given[0][1], Tensor) or given[0][1].dim() != 1:
        raise c.b.unsupported("indexing other than by one constant vector")
    if given[0][1].dtype == torch.bool:
        return algebra.index(c.b, c.variable(), given[0][0], given[0][1].nonzero().reshape(-1), c.name)
    return algebra.index(c.b, c.variable(), given[0][0], given[0][1], c.name)


def parts(c: Call) -> list[Ref]:
    """split, split_with_sizes, chunk: the recorded shapes tell the sizes."""
    x = c.variable()
    axis = c.b.axis(c.a["dim"], x)
    return algebra.split(c.b, x, axis, [shape[axis - 1] for shape in c.shape])


def cat(c: Call) -> Ref:
    return algebra.concat(c.b, c.a["tensors"], c.a["dim"], c.name)


def stack(c: Call) -> Ref:
    rank = len(c.shape) + 1
    axis = c.a["dim"] % rank
    if axis == 0:
        raise c.b.unsupported("it stacks along the batch axis")
    parts: list[Value] = []
    for x in c.a["tensors"]:
        shape: Shape = tuple(x.shape) if isinstance(x, Ref) else tuple(x.shape[1:])
        grown = (*shape[: axis - 1], 1, *shape[axis - 1 :])
        parts.append(algebra.reshape(c.b, x, grown) if isinstance(x, Ref) else x.reshape(1, *grown))
    return algebra.concat(c.b, parts, axis, c.name)


def pad(c: Call) -> Ref:
    if c.a.get("mode", "constant") != "constant":
        raise c.b.unsupported(f"padding of mode {c.a['mode']}")
    x, pads = c.variable(), tuple(c.a["pad"])
    if len(pads) // 2 >= x.rank:
        raise c.b.unsupported("padding of the batch axis")
    value = c.a.get("value")
    return c.b.add(ops.Pad(pads, 0.0 if value is None else float(value)), x, name=c.name)


def expand(c: Call) -> Ref:
    x = c.variable()
    if len(c.shape) != len(x.shape):
        raise c.b.unsupported("it puts new axes before the batch axis")
    return c.b.expand(x, c.shape)
