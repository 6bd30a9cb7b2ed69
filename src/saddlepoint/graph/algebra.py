"""Operators on values, constants or variables: what both readers need for + − · / @, concat, reshape, reduce.

Functions take a `Builder` and values of which at least one is a variable (the readers fold constants before).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from saddlepoint.graph import ops
from saddlepoint.graph.builder import Builder, Ref, Value
from saddlepoint.graph.ops_base import Shape


def add(b: Builder, x: Value, y: Value, name: str = "") -> Ref:
    """x + y."""
    if isinstance(x, Ref) and isinstance(y, Ref):
        return b.add(ops.Add(), *b.match(x, y), name=name)
    ref, c = b.align(*_sorted(x, y))
    return _shift(b, ref, c, name)


def _shift(b: Builder, x: Ref, c: Tensor, name: str) -> Ref:
    """x + c. After a product without a bias, c becomes that bias: the same real number, one node less."""
    node = b.producer(x)
    per_entry = c.numel() == c.shape[-1] and c.dim() == x.rank
    if per_entry and node is not None and isinstance(node.op, ops.Linear) and node.op.bias is None:
        bias = c.reshape(-1).expand(x.shape[-1]).contiguous()
        source = Ref(node.inputs[0], b.shape(node.inputs[0]))
        return b.add(ops.Linear(node.op.weight, bias), source, name=name)
    return b.add(ops.AddConstant(c), x, name=name)


def subtract(b: Builder, x: Value, y: Value, name: str = "") -> Ref:
    """x − y."""
    if isinstance(x, Ref) and isinstance(y, Ref):
        return b.add(ops.Sub(), *b.match(x, y), name=name)
    if isinstance(x, Ref) and isinstance(y, Tensor):
        ref, c = b.align(x, y)
        return _shift(b, ref, -c, name)  # x − c = x + (−c), bit for bit
    ref, c = b.align(*_sorted(x, y))
    return b.add(ops.AddConstant(c), b.add(ops.Negate(), ref), name=name)


def multiply(b: Builder, x: Value, y: Value, name: str = "") -> Ref:
    """x · y, element by element."""
    if isinstance(x, Ref) and isinstance(y, Ref):
        for gate, value in ((x, y), (y, x)):
            node = b.producer(gate)
            if node is not None and isinstance(node.op, ops.Sigmoid) and node.inputs == (value.name,):
                return b.add(ops.Elementwise("Silu"), value, name=name)  # as exporters write it
        return b.add(ops.Mul(), *b.match(x, y), name=name)
    ref, c = b.align(*_sorted(x, y))
    return b.add(ops.MulConstant(c), ref, name=name)


def divide(b: Builder, x: Value, y: Value, name: str = "") -> Ref:
    """x / y."""
    if isinstance(x, Ref) and isinstance(y, Ref):
        return b.add(ops.Div(), *b.match(x, y), name=name)
    if isinstance(x, Tensor) and isinstance(y, Ref):
        inverse = b.add(ops.Elementwise("Reciprocal"), y)
        return inverse if bool((x == 1).all()) and x.numel() == 1 else multiply(b, inverse, x, name)
    if not isinstance(x, Ref) or not isinstance(y, Tensor):
        raise TypeError("one variable at least expected")
    ref, c = b.align(x, y)
    if not bool((c != 0).all()):
        raise b.unsupported("division by zero")
    return b.add(ops.DivConstant(c), ref, name=name)


def power(b: Builder, x: Ref, exponent: float, name: str = "") -> Ref:
    """x^exponent for a finite constant exponent other than 0."""
    if exponent == 1:
        return x
    if exponent == 2:
        return multiply(b, x, x, name)
    known = {0.5: "Sqrt", -0.5: "Rsqrt", -1.0: "Reciprocal"}
    if exponent in known:
        return b.add(ops.Elementwise(known[exponent]), x, name=name)
    if exponent == 0 or not math.isfinite(exponent):
        raise b.unsupported(f"a power of {exponent:g}")
    return b.add(ops.Power(exponent), x, name=name)


def extremum(b: Builder, kind: str, x: Value, y: Value, name: str = "") -> Ref:
    """max or min ("max", "min") of two values; one number makes it a Clip, other constants a ReLU of the difference."""
    if isinstance(x, Ref) and isinstance(y, Ref):
        return b.add(ops.Maximum() if kind == "max" else ops.Minimum(), *b.match(x, y), name=name)
    ref, c = b.align(*_sorted(x, y))
    if c.numel() == 1:
        limit = float(c)
        return b.add(ops.Clip(lower=limit) if kind == "max" else ops.Clip(upper=limit), ref, name=name)
    if kind == "max":  # max(x, c) = relu(x − c) + c
        return add(b, b.add(ops.Relu(), subtract(b, ref, c)), c, name)
    return subtract(b, c, b.add(ops.Relu(), subtract(b, c, ref)), name)  # min(x, c) = c − relu(c − x)


def matmul(b: Builder, x: Value, y: Value, name: str = "") -> Ref:
    """x @ y over the last two axes."""
    if isinstance(x, Ref) and isinstance(y, Ref):
        if x.rank != y.rank or x.rank < 3:
            raise b.unsupported("a product of two variables that mixes the samples of a batch")
        return b.add(ops.MatMul(), x, y, name=name)
    if isinstance(x, Ref) and isinstance(y, Tensor):
        c = b.constant(y)
        if c.dim() == 2:
            return b.add(ops.Linear(c.t()), x, name=name)
        if c.dim() == 1:
            return reshape(b, b.add(ops.Linear(c.reshape(1, -1)), x), x.shape[:-1], name)
        if c.dim() > x.rank or (c.dim() == x.rank and c.shape[0] != 1):
            raise b.unsupported("a stack of matrices that mixes the samples of a batch")
        return b.add(ops.MatMulConstant(c), x, name=name)
    ref, constant = _sorted(x, y)
    c = b.constant(constant)
    if ref.rank < 3 or c.dim() < 2 or c.dim() > ref.rank or (c.dim() == ref.rank and c.shape[0] != 1):
        raise b.unsupported("a constant matrix from the left mixes the samples of a batch")
    return b.add(ops.MatMulConstant(c, left=True), ref, name=name)


def linear(b: Builder, x: Ref, weight: Tensor, bias: Tensor | None, name: str = "") -> Ref:
    """x Wᵀ + b over the last axis."""
    if bias is not None:
        bias = b.constant(bias).reshape(-1).expand(weight.shape[0]).contiguous()
    return b.add(ops.Linear(b.constant(weight), bias), x, name=name)


def concat(b: Builder, xs: Sequence[Value], axis: int, name: str = "") -> Ref:
    """Values one after the other; constants (1, …) are repeated for every sample."""
    variables = [x for x in xs if isinstance(x, Ref)]
    axis = b.axis(axis, variables[0])
    parts = []
    for x in xs:
        if isinstance(x, Tensor):
            c = b.constant(x)
            if c.dim() != variables[0].rank or c.shape[0] != 1:
                raise b.unsupported(f"a constant of shape {tuple(c.shape)} has a batch axis of its own")
            parts.append(b.add(ops.Constant(c), b.input))
        else:
            parts.append(x)
    return parts[0] if len(parts) == 1 else b.add(ops.Concat(axis), *parts, name=name)


def reshape(b: Builder, x: Ref, shape: Shape, name: str = "") -> Ref:
    """Row-major reshape of every sample (x itself if nothing changes)."""
    return x if x.shape == shape else b.add(ops.Reshape(shape), x, name=name)


def permute(b: Builder, x: Ref, axes: Sequence[int], name: str = "") -> Ref:
    """Axis i of the result is axis axes[i] of x."""
    order = tuple(a % x.rank for a in axes)
    if order[0] != 0:
        raise b.unsupported("it moves the batch axis")
    return x if order == tuple(range(x.rank)) else b.add(ops.Permute(order), x, name=name)


def take(b: Builder, x: Ref, axis: int, start: int, stop: int, step: int = 1, name: str = "") -> Ref:
    """x[start:stop:step] along one axis with Python's rules; a negative step becomes an Index."""
    if axis % x.rank == 0:
        if step == 1 and start == 0 and stop >= torch.iinfo(torch.int32).max:
            return x  # x[:] on the batch axis
        raise b.unsupported("it selects samples of the batch")
    axis = b.axis(axis, x)
    chosen = range(*slice(start, stop, step).indices(x.shape[axis - 1]))
    if chosen == range(x.shape[axis - 1]):
        return x
    if step < 0:
        return b.add(ops.Index(axis, torch.tensor(list(chosen), dtype=torch.int64)), x, name=name)
    return b.add(ops.Slice(axis, chosen.start, max(chosen.stop, chosen.start), step), x, name=name)


def select(b: Builder, x: Ref, axis: int, index: int, name: str = "") -> Ref:
    """x[index] along one axis, which disappears."""
    axis = b.axis(axis, x)
    size = x.shape[axis - 1]
    if not -size <= index < size:
        raise b.unsupported(f"index {index} lies outside 0..{size - 1}")
    index %= size
    part = take(b, x, axis, index, index + 1)
    return reshape(b, part, x.shape[: axis - 1] + x.shape[axis:], name)


def index(b: Builder, x: Ref, axis: int, indices: Tensor, name: str = "") -> Ref:
    """x[indices] along one axis for a constant vector of indices."""
    axis = b.axis(axis, x)
    positive = torch.where(indices < 0, indices + x.shape[axis - 1], indices).to(torch.int64)
    return b.add(ops.Index(axis, positive.reshape(-1).contiguous()), x, name=name)


def split(b: Builder, x: Ref, axis: int, sizes: Sequence[int]) -> list[Ref]:
    """x cut into parts of the given sizes."""
    axis = b.axis(axis, x)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [take(b, x, axis, end - size, end) for end, size in zip(ends, sizes, strict=True)]


def reduce(b: Builder, x: Ref, kind: str, axes: Sequence[int], keepdim: bool, name: str = "") -> Ref:
    """Mean or sum ("mean", "sum") over axes."""
    op = ops.Mean if kind == "mean" else ops.Sum
    return b.add(op(b.axes(axes, x), keepdim, x.shape), x, name=name)


def reduce_extremum(b: Builder, x: Ref, kind: str, axes: Sequence[int], keepdim: bool, name: str = "") -> Ref:
    """Max or min ("max", "min") over axes, by halves."""
    kept = list(x.shape)
    for axis in b.axes(axes, x):
        while (size := x.shape[axis - 1]) > 1:
            half = size // 2
            best = extremum(b, kind, take(b, x, axis, 0, half), take(b, x, axis, half, 2 * half))
            x = best if size == 2 * half else concat(b, [best, take(b, x, axis, 2 * half, size)], axis)
        kept[axis - 1] = 1 if keepdim else 0
    return reshape(b, x, tuple(size for size in kept if size), name)


def attention(b: Builder, q: Ref, k: Ref, v: Ref, scale: float, name: str = "") -> Ref:
    """softmax(scale q kᵀ) v over the last two axes."""
    axes = [*range(k.rank - 2), k.rank - 1, k.rank - 2]
    scores = multiply(b, matmul(b, q, permute(b, k, axes)), b.constant(scale))
    return matmul(b, b.add(ops.Softmax(scores.rank - 1), scores), v, name)


def average_pool(b: Builder, x: Ref, op: ops.AvgPool2d, name: str = "") -> Ref:
    """Average pooling; x must be (N, C, H, W)."""
    if x.rank != 4:
        raise b.unsupported(f"pooling in two dimensions of a value of rank {x.rank}")
    return b.add(op, x, name=name)


def _sorted(x: Value, y: Value) -> tuple[Ref, Tensor]:
    if isinstance(x, Ref) and isinstance(y, Tensor):
        return x, y
    if isinstance(y, Ref) and isinstance(x, Tensor):
        return y, x
    raise TypeError("one variable and one constant expected")
