"""One rule per ATen operator: arguments of the call -> operators of the IR.

A rule gets at least one variable (constants were folded) and the shape that torch.export recorded for the result, which
the translation has already checked to keep the batch axis in front.
"""

from __future__ import annotations

from collections.abc import Callable

from saddlepoint.graph import algebra, ops
from saddlepoint.graph import aten_layers as layers
from saddlepoint.graph import aten_shapes as shapes
from saddlepoint.graph.aten_call import Rule
from saddlepoint.graph.ops_base import Op


def _along(make: Callable[[int], Op]) -> Rule:
    return lambda c: c.node(make(c.b.axis(c.a["dim"], c.variable())))


def _plain(op: Op) -> Rule:
    return lambda c: c.node(op)


RULES: dict[str, Rule] = {
    "aten.linear": layers.linear,
    "aten.addmm": layers.addmm,
    "aten.conv2d": layers.conv2d,
    "aten.convolution": layers.conv2d,
    "aten.conv_transpose2d": layers.conv_transpose2d,
    "aten.batch_norm": layers.batch_norm,
    "aten._native_batch_norm_legit_no_training": layers.first(layers.batch_norm),
    "aten.add": lambda c: algebra.add(c.b, c.value("self"), layers.scaled(c, "other"), c.name),
    "aten.sub": lambda c: algebra.subtract(c.b, c.value("self"), layers.scaled(c, "other"), c.name),
    "aten.rsub": lambda c: algebra.subtract(c.b, layers.scaled(c, "other"), c.value("self"), c.name),
    "aten.mul": lambda c: algebra.multiply(c.b, c.value("self"), c.value("other"), c.name),
    "aten.div": layers.div,
    "aten.true_divide": layers.div,
    "aten.maximum": lambda c: algebra.extremum(c.b, "max", c.value("self"), c.value("other"), c.name),
    "aten.minimum": lambda c: algebra.extremum(c.b, "min", c.value("self"), c.value("other"), c.name),
    "aten.max": layers.extremum("max"),
    "aten.min": layers.extremum("min"),
    "aten.amax": layers.reduce_extremum("max"),
    "aten.amin": layers.reduce_extremum("min"),
    "aten.scaled_dot_product_attention": layers.attention,
    "aten.reciprocal": layers.default_only("Reciprocal"),
    "aten.neg": _plain(ops.Negate()),
    "aten.pow": layers.power,
    "aten.square": lambda c: algebra.multiply(c.b, c.variable(), c.variable(), c.name),
    "aten.matmul": lambda c: algebra.matmul(c.b, c.value("self"), c.value("other"), c.name),
    "aten.mm": lambda c: algebra.matmul(c.b, c.value("self"), c.value("mat2"), c.name),
    "aten.bmm": lambda c: algebra.matmul(c.b, c.value("self"), c.value("mat2"), c.name),
    "aten.relu": _plain(ops.Relu()),
    "aten.relu6": _plain(ops.Clip(0.0, 6.0)),
    "aten.leaky_relu": lambda c: c.node(ops.LeakyRelu(float(c.a["negative_slope"]))),
    "aten.hardtanh": layers.clip,
    "aten.clamp": layers.clip,
    "aten.clip": layers.clip,
    "aten.clamp_min": layers.clip,
    "aten.clamp_max": layers.clip,
    "aten.sigmoid": _plain(ops.Sigmoid()),
    "aten.tanh": _plain(ops.Tanh()),
    "aten.exp": _plain(ops.Exp()),
    "aten.abs": _plain(ops.Abs()),
    "aten.ceil": layers.default_only("Ceil"),
    "aten.cos": layers.default_only("Cos"),
    "aten.elu": layers.default_only("Elu", alpha=1, scale=1, input_scale=1),
    "aten.erf": layers.default_only("Erf"),
    "aten.floor": layers.default_only("Floor"),
    "aten.gelu": layers.gelu,
    "aten.hardsigmoid": layers.default_only("HardSigmoid"),
    "aten.hardswish": layers.default_only("HardSwish"),
    "aten.layer_norm": layers.layer_norm,
    "aten.log": layers.default_only("Log"),
    "aten.mish": layers.default_only("Mish"),
    "aten.round": layers.default_only("Round"),
    "aten.rsqrt": layers.default_only("Rsqrt"),
    "aten.sign": layers.default_only("Sign"),
    "aten.silu": layers.default_only("Silu"),
    "aten.sin": layers.default_only("Sin"),
    "aten.softplus": layers.default_only("Softplus", beta=1, threshold=20),
    "aten.sqrt": layers.default_only("Sqrt"),
    "aten.softmax": _along(ops.Softmax),
    "aten._softmax": _along(ops.Softmax),
    "aten.log_softmax": _along(ops.LogSoftmax),
    "aten._log_softmax": _along(ops.LogSoftmax),
    "aten.max_pool2d": layers.max_pool2d,
    "aten.max_pool2d_with_indices": layers.first(layers.max_pool2d),
    "aten.avg_pool2d": layers.avg_pool2d,
    "aten.adaptive_avg_pool2d": layers.adaptive,
    "aten._adaptive_avg_pool2d": layers.adaptive,
    "aten.mean": layers.reduce("mean"),
    "aten.sum": layers.reduce("sum"),
    "aten.upsample_nearest2d": layers.upsample,
    "aten.permute": shapes.permute,
    "aten.transpose": shapes.transpose,
    "aten.slice": shapes.take,
    "aten.narrow": shapes.narrow,
    "aten.select": lambda c: algebra.select(c.b, c.variable(), c.a["dim"], c.a["index"], c.name),
    "aten.index_select": lambda c: algebra.index(c.b, c.variable(), c.a["dim"], c.a["index"], c.name),
    "aten.index": shapes.index,
    "aten.split": shapes.parts,
    "aten.split_with_sizes": shapes.parts,
    "aten.chunk": shapes.parts,
    "aten.cat": shapes.cat,
    "aten.concat": shapes.cat,
    "aten.stack": shapes.stack,
    "aten.pad": shapes.pad,
    "aten.constant_pad_nd": shapes.pad,
    "aten.expand": shapes.expand,
    "aten.expand_as": shapes.expand,
    "aten.dropout": shapes.dropout,
    "aten.feature_dropout": shapes.dropout,
    "aten.to": shapes.cast,
    "aten._to_copy": shapes.cast,
    "aten.type_as": shapes.same,
}
RULES |= dict.fromkeys(
    (
        "aten.view",
        "aten.reshape",
        "aten._unsafe_view",
        "aten.view_as",
        "aten.reshape_as",
        "aten.flatten",
        "aten.unflatten",
        "aten.squeeze",
        "aten.unsqueeze",
    ),
    shapes.reshape,
)
RULES |= dict.fromkeys(
    (
        "aten.clone",
        "aten.contiguous",
        "aten.detach",
        "aten.alias",
        "aten.lift_fresh_copy",
    ),
    shapes.same,
)
