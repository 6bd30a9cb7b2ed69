"""Folds the constant part of an ONNX file with NumPy: shape arithmetic of exporters, weights prepared in the graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from saddlepoint.graph.onnx_call import BATCH, Call
from saddlepoint.graph.onnx_file import array, type_name

LARGEST = 100_000_000
DTYPES: dict[int, Any] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
}
"""NumPy's types by ONNX's numbers of them."""


def fold(kind: str, c: Call) -> list[np.ndarray]:
    """Outputs of a node whose inputs are all constant. Raises UnsupportedOperator where there is no rule."""
    if kind == "Constant":
        return [_constant(c)]
    xs: list[Any] = [x for x in c.inputs if x is not None]
    if (kind in ARITHMETIC or kind == "Cast") and any(_holds_batch(x) for x in xs):
        raise c.b.unsupported("it computes with the batch size")
    if kind in ELEMENTWISE:
        return [np.asarray(ELEMENTWISE[kind](*xs))]
    if kind == "Split":
        sizes = c.ints("split", 1)
        if sizes is None:
            raise c.b.unsupported("a constant split without sizes")
        return np.split(xs[0], np.cumsum(sizes)[:-1], axis=c.a.get("axis", 0))
    rule = RULES.get(kind)
    if rule is None:
        raise c.b.unsupported(f"no rule folds {kind} of constants")
    return [np.asarray(rule(c, xs))]


def _holds_batch(x: np.ndarray) -> bool:
    """Is the batch size among these numbers? Shapes are int64; weights never are."""
    return x.dtype == np.int64 and bool((x == BATCH).any())


def _constant(c: Call) -> np.ndarray:
    key = next(iter(c.a), "")
    if key == "value":
        return array(c.a[key])
    if key in ("value_float", "value_floats"):
        return np.asarray(c.a[key], dtype=np.float32)
    if key in ("value_int", "value_ints"):
        return np.asarray(c.a[key], dtype=np.int64)
    raise c.b.unsupported(f"a constant given as {key or 'nothing'}")


def _sizes(c: Call, sizes: np.ndarray) -> list[int]:
    """Sizes of a new constant: rows for the whole batch become one row."""
    wanted = [int(s) for s in sizes.reshape(-1)]
    if wanted and wanted[0] == BATCH:
        wanted[0] = 1
    if any(s % BATCH == 0 and s for s in wanted) or np.prod(wanted, dtype=float) > LARGEST:
        raise c.b.unsupported("a constant whose size depends on the batch")
    return wanted


def _full(c: Call, xs: list[Any]) -> np.ndarray:
    fill = array(c.a["value"]) if "value" in c.a else np.zeros(1, np.float32)
    return np.full(_sizes(c, xs[0]), fill.reshape(-1)[0], dtype=fill.dtype)


def _expand(c: Call, xs: list[Any]) -> np.ndarray:
    shape = np.broadcast_shapes(xs[0].shape, tuple(_sizes(c, xs[1])))
    return np.broadcast_to(xs[0], shape)


def _reshape(c: Call, xs: list[Any]) -> np.ndarray:
    wanted = _sizes(c, xs[1])
    return xs[0].reshape([xs[0].shape[i] if s == 0 else s for i, s in enumerate(wanted)])


def _slice(c: Call, xs: list[Any]) -> np.ndarray:
    starts, ends = c.ints("starts", 1) or [], c.ints("ends", 2) or []
    axes = c.ints("axes", 3) or list(range(len(starts)))
    steps = c.ints("steps", 4) or [1] * len(starts)
    cut = [slice(None)] * xs[0].ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # ONNX writes "to the very beginning" as a huge negative end
        cut[axis] = slice(start, None if step < 0 and end < -xs[0].shape[axis] else end, step)
    return xs[0][tuple(cut)]


def _squeeze(c: Call, xs: list[Any]) -> np.ndarray:
    axes = c.ints("axes", 1)
    return np.squeeze(xs[0], axis=None if axes is None else tuple(axes))


def _unsqueeze(c: Call, xs: list[Any]) -> np.ndarray:
    return np.expand_dims(xs[0], tuple(c.ints("axes", 1) or ()))


def _cast(c: Call, xs: list[Any]) -> np.ndarray:
    dtype = DTYPES.get(c.a["to"])
    if dtype is None:
        raise c.b.unsupported(f"a cast to {type_name(c.a['to'])}")
    return xs[0].astype(dtype)


def _range(c: Call, xs: list[Any]) -> np.ndarray:
    if any(abs(int(x)) >= BATCH for x in xs):
        raise c.b.unsupported("a range that depends on the batch")
    return np.arange(*(x.reshape(-1)[0] for x in xs))


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # integers: truncation, as C does
    return np.trunc(a / b).astype(a.dtype) if np.issubdtype(a.dtype, np.integer) else a / b


ARITHMETIC: dict[str, Any] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Pow": np.power,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Reciprocal": np.reciprocal,
    "MatMul": np.matmul,
}
ELEMENTWISE: dict[str, Any] = ARITHMETIC | {
    "Equal": np.equal,
    "Less": np.less,
    "Greater": np.greater,
    "Not": np.logical_not,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Where": np.where,
}
RULES: dict[str, Any] = {
    "Identity": lambda c, xs: xs[0],
    "Shape": lambda c, xs: np.asarray(xs[0].shape, dtype=np.int64),
    "Size": lambda c, xs: np.asarray(xs[0].size, dtype=np.int64),
    "Gather": lambda c, xs: np.take(xs[0], xs[1].astype(np.int64), axis=c.a.get("axis", 0)),
    "Concat": lambda c, xs: np.concatenate(xs, axis=c.a["axis"]),
    "Transpose": lambda c, xs: np.transpose(xs[0], c.a.get("perm")),
    "Flatten": lambda c, xs: xs[0].reshape(int(np.prod(xs[0].shape[: c.a.get("axis", 1)])), -1),
    "ReduceProd": lambda c, xs: np.prod(
        xs[0], axis=tuple(c.ints("axes", 1) or range(xs[0].ndim)), keepdims=bool(c.a.get("keepdims", 1))
    ),
    "Dropout": lambda c, xs: xs[0],
    "ConstantOfShape": _full,
    "Expand": _expand,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Cast": _cast,
    "Range": _range,
}
