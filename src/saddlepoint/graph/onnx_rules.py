"""One rule per ONNX operator: a node with at least one variable input -> operators of the IR."""

from __future__ import annotations

from typing import Any

from saddlepoint.graph import algebra, ops
from saddlepoint.graph import onnx_functions as functions
from saddlepoint.graph import onnx_layers as layers
from saddlepoint.graph import onnx_shapes as shapes
from saddlepoint.graph.onnx_call import Call, Rule
from saddlepoint.graph.ops_base import Op


def _plain(op: Op) -> Rule:
    return lambda c: c.node(op)


def _two(make: Any) -> Rule:
    return lambda c: make(c.b, c.value(0), c.value(1), c.name)


def _sum(c: Call) -> Any:
    total = c.value(0)
    for i in range(1, len(c.inputs)):
        total = algebra.add(c.b, total, c.value(i), c.name)
    return total


def _same(c: Call) -> Any:
    return c.variable()


RULES: dict[str, Rule] = {
    "Abs": _plain(ops.Abs()),
    "Add": _two(algebra.add),
    "AveragePool": layers.average_pool,
    "BatchNormalization": layers.batch_norm,
    "Cast": shapes.cast,
    "Ceil": _plain(ops.Elementwise("Ceil")),
    "Clip": layers.clip,
    "Concat": shapes.concat,
    "Cos": _plain(ops.Elementwise("Cos")),
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "Div": _two(algebra.divide),
    "Dropout": shapes.dropout,
    "Elu": functions.elu,
    "Erf": _plain(ops.Elementwise("Erf")),
    "Exp": _plain(ops.Exp()),
    "Expand": shapes.expand,
    "Flatten": shapes.flatten,
    "Floor": _plain(ops.Elementwise("Floor")),
    "Gather": shapes.gather,
    "Gelu": layers.gelu,
    "Gemm": layers.gemm,
    "GlobalAveragePool": layers.global_average_pool,
    "GlobalMaxPool": layers.global_max_pool,
    "HardSigmoid": functions.hard_sigmoid,
    "HardSwish": _plain(ops.Elementwise("HardSwish")),
    "Identity": _same,
    "LayerNormalization": layers.layer_norm,
    "LeakyRelu": lambda c: c.node(ops.LeakyRelu(float(c.a.get("alpha", 0.01)))),
    "Log": _plain(ops.Elementwise("Log")),
    "LogSoftmax": lambda c: layers.softmax(c, log=True),
    "MatMul": _two(algebra.matmul),
    "Max": lambda c: functions.extremum(c, "max"),
    "MaxPool": layers.max_pool,
    "Min": lambda c: functions.extremum(c, "min"),
    "Mish": _plain(ops.Elementwise("Mish")),
    "Mul": _two(algebra.multiply),
    "Neg": _plain(ops.Negate()),
    "PRelu": functions.prelu,
    "Pad": shapes.pad,
    "Pow": layers.power,
    "Reciprocal": _plain(ops.Elementwise("Reciprocal")),
    "ReduceL1": lambda c: functions.norm(c, 1),
    "ReduceL2": lambda c: functions.norm(c, 2),
    "ReduceMax": lambda c: functions.reduce_extremum(c, "max"),
    "ReduceMean": lambda c: shapes.reduce(c, "mean"),
    "ReduceMin": lambda c: functions.reduce_extremum(c, "min"),
    "ReduceSum": lambda c: shapes.reduce(c, "sum"),
    "ReduceSumSquare": lambda c: functions.norm(c, 0),
    "Relu": _plain(ops.Relu()),
    "Reshape": shapes.reshape,
    "Resize": lambda c: layers.upsample(c, resize=True),
    "Round": _plain(ops.Elementwise("Round")),
    "Shape": shapes.shape_of,
    "Sigmoid": _plain(ops.Sigmoid()),
    "Sign": _plain(ops.Elementwise("Sign")),
    "Sin": _plain(ops.Elementwise("Sin")),
    "Slice": shapes.slices,
    "Softmax": layers.softmax,
    "Softplus": _plain(ops.Elementwise("Softplus")),
    "Split": shapes.split,
    "Sqrt": _plain(ops.Elementwise("Sqrt")),
    "Squeeze": shapes.squeeze,
    "Sub": _two(algebra.subtract),
    "Sum": _sum,
    "Tanh": _plain(ops.Tanh()),
    "Transpose": shapes.transpose,
    "Unsqueeze": shapes.unsqueeze,
    "Upsample": layers.upsample,
    "Where": functions.where,
}
