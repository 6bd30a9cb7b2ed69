"""Rules for layers with weights, arithmetic, pooling and reductions: a call -> operators of the IR."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from saddlepoint.graph import algebra, ops
from saddlepoint.graph.aten_call import Call, Rule, pair
from saddlepoint.graph.builder import Ref, Value
from saddlepoint.graph.ops_base import Op


# -- weights ---------------------------------------------------------------------------------------------------
def linear(c: Call) -> Ref:
    return algebra.linear(c.b, c.variable("input"), c.constant("weight"), c.optional("bias"), c.name)


def addmm(c: Call) -> Ref:
    if c.a["beta"] != 1 or c.a["alpha"] != 1:
        raise c.b.unsupported("alpha and beta other than 1")
    return algebra.linear(c.b, c.variable("mat1"), c.constant("mat2").t().contiguous(), c.constant("self"), c.name)


def conv2d(c: Call) -> Ref:
    x, weight, padding = c.variable("input"), c.constant("weight"), c.a["padding"]
    if x.rank != 4 or weight.dim() != 4:
        raise c.b.unsupported(f"convolution of a value of rank {x.rank}")
    if c.a.get("transposed"):
        raise c.b.unsupported("a transposed convolution in decomposed form", "Export without decompositions.")
    dilation, stride = pair(c.a["dilation"]), pair(c.a["stride"])
    if padding == "valid":
        padding = (0, 0)
    elif padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        before = [t // 2 for t in total]  # torch puts the odd one behind
        if all(t % 2 == 0 for t in total):
            padding = before
        else:
            pads = (before[1], total[1] - before[1], before[0], total[0] - before[0])
            x, padding = c.b.add(ops.Pad(pads), x), (0, 0)
    op = ops.Conv2d(weight, c.optional("bias"), stride, pair(padding), dilation, c.a["groups"])
    return c.b.add(op, x, name=c.name)


def conv_transpose2d(c: Call) -> Ref:
    op = ops.ConvTranspose2d(
        c.constant("weight"),
        c.optional("bias"),
        pair(c.a["stride"]),
        pair(c.a["padding"]),
        pair(c.a["output_padding"]),
        pair(c.a["dilation"]),
        c.a["groups"],
    )
    return c.node(op, "input")


def batch_norm(c: Call) -> Any:
    if c.a.get("training", False):
        raise c.b.unsupported("batch normalisation with batch statistics", "Put the model in evaluation mode.")
    mean = c.constant("running_mean")
    weight, bias = c.optional("weight"), c.optional("bias")
    op = ops.BatchNorm(
        mean,
        c.constant("running_var"),
        torch.ones_like(mean) if weight is None else weight,
        torch.zeros_like(mean) if bias is None else bias,
        float(c.a["eps"]),
    )
    return c.node(op, "input")


def first(rule: Rule) -> Rule:
    """For operators that also return statistics: a program that reads those gets an IndexError, never a wrong value."""

    def run(c: Call) -> Any:
        return [rule(Call(c.b, c.a, c.shape[0], c.name))]

    return run


# -- arithmetic ------------------------------------------------------------------------------------------------
def scaled(c: Call, key: str) -> Value:
    """alpha · other, for add and sub."""
    value, alpha = c.value(key), c.a.get("alpha", 1)
    if alpha == 1:
        return value
    return value * alpha if isinstance(value, Tensor) else algebra.multiply(c.b, value, c.b.constant(alpha))


def div(c: Call) -> Ref:
    if c.a.get("rounding_mode") is not None:
        raise c.b.unsupported("division with rounding")
    return algebra.divide(c.b, c.value("self"), c.value("other"), c.name)


def power(c: Call) -> Ref:
    """A constant power."""
    exponent = c.a["exponent"]
    if not isinstance(exponent, (int, float)):
        raise c.b.unsupported("a power that is a tensor")
    return algebra.power(c.b, c.variable(), float(exponent), c.name)


def layer_norm(c: Call) -> Ref:
    shape = tuple(c.a["normalized_shape"])
    weight, bias = c.optional("weight"), c.optional("bias")
    weight = torch.ones(shape, dtype=c.b.dtype) if weight is None else weight
    return c.node(ops.LayerNorm(weight, torch.zeros_like(weight) if bias is None else bias, float(c.a["eps"])), "input")


def gelu(c: Call) -> Ref:
    return c.node(ops.Elementwise("GeluTanh" if c.a["approximate"] == "tanh" else "Gelu"))


def default_only(function: str, **defaults: float) -> Rule:
    """An elementwise function, refused unless its parameters have torch's default values."""

    def rule(c: Call) -> Ref:
        if any(c.a[k] != v for k, v in defaults.items()):
            raise c.b.unsupported(f"{function} with other parameters than {defaults}")
        return c.node(ops.Elementwise(function))

    return rule


def clip(c: Call) -> Ref:
    low, high = (c.a.get(k) if k in c.a else c.a.get(k + "_val") for k in ("min", "max"))
    if isinstance(low, (Tensor, Ref)) or isinstance(high, (Tensor, Ref)):
        raise c.b.unsupported("limits that are tensors")
    return c.node(ops.Clip(-math.inf if low is None else float(low), math.inf if high is None else float(high)))


# -- pooling and reductions ------------------------------------------------------------------------------------
def max_pool2d(c: Call) -> Ref:
    kernel = pair(c.a["kernel_size"])
    stride = pair(c.a["stride"]) if c.a["stride"] else kernel
    return _pool(c, ops.MaxPool2d(kernel, stride, pair(c.a["padding"]), pair(c.a["dilation"]), bool(c.a["ceil_mode"])))


def avg_pool2d(c: Call) -> Ref:
    kernel = pair(c.a["kernel_size"])
    stride = pair(c.a["stride"]) if c.a["stride"] else kernel
    counted, divisor = bool(c.a["count_include_pad"]), c.a["divisor_override"]
    return _pool(c, ops.AvgPool2d(kernel, stride, pair(c.a["padding"]), bool(c.a["ceil_mode"]), counted, divisor))


def adaptive(c: Call) -> Ref:
    size = c.shape[1:]
    return _pool(c, ops.AdaptiveAvgPool2d((size[0], size[1]), (c.variable().shape[1], c.variable().shape[2])))


def _pool(c: Call, op: Op) -> Ref:
    if c.variable().rank != 4:
        raise c.b.unsupported(f"pooling of a value of rank {c.variable().rank}")
    return c.node(op)


def reduce(kind: str) -> Rule:
    def rule(c: Call) -> Ref:
        dims = c.a.get("dim")
        if not dims:
            raise c.b.unsupported("a reduction over all axes mixes the samples of a batch")
        return algebra.reduce(c.b, c.variable(), kind, dims, bool(c.a["keepdim"]), c.name)

    return rule


def extremum(kind: str) -> Rule:
    """max and min of two values; torch gives them the names of the reductions."""

    def rule(c: Call) -> Ref:
        if "other" not in c.a:
            raise c.b.unsupported("a maximum or minimum that also returns where it lies", "Use torch.amax.")
        return algebra.extremum(c.b, kind, c.value("self"), c.value("other"), c.name)

    return rule


def reduce_extremum(kind: str) -> Rule:
    """amax and amin."""

    def rule(c: Call) -> Ref:
        if not c.a["dim"]:
            raise c.b.unsupported("a reduction over all axes mixes the samples of a batch")
        return algebra.reduce_extremum(c.b, c.variable(), kind, c.a["dim"], bool(c.a["keepdim"]), c.name)

    return rule


def attention(c: Call) -> Ref:
    """Scaled dot-product attention without mask or dropout."""
    if c.a.get("attn_mask") is not None or c.a.get("is_causal") or c.a.get("enable_gqa") or c.a.get("dropout_p"):
        raise c.b.unsupported("attention with a mask, dropout or grouped queries")
    q, k, v = (c.variable(name) for name in ("query", "key", "value"))
    scale = c.a.get("scale")
    return algebra.attention(c.b, q, k, v, q.shape[-1] ** -0.5 if scale is None else float(scale), c.name)


def upsample(c: Call) -> Ref:
    x = c.variable()
    factors = [out / size for out, size in zip(c.shape[1:], x.shape[1:], strict=True)]
    if any(f != int(f) for f in factors):
        raise c.b.unsupported("nearest up-sampling by a fraction")
    return c.node(ops.UpsampleNearest((int(factors[0]), int(factors[1]))))
