"""Rules for ONNX layers with weights, pooling, normalisation and activations: a node -> operators of the IR."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.graph import algebra, ops
from saddlepoint.graph.builder import Ref
from saddlepoint.graph.onnx_call import Call, pair


def gemm(c: Call) -> Ref:
    """α A' B' + β C with B constant."""
    if c.a.get("transA", 0):
        raise c.b.unsupported("transA = 1 would transpose the batch axis")
    x, weight = c.variable(0), c.constant(1)
    if x.rank != 2:
        raise c.b.unsupported(f"a matrix product of a value of rank {x.rank}")
    weight = c.a.get("alpha", 1.0) * (weight if c.a.get("transB", 0) else weight.t().contiguous())
    if not c.given(2):
        return algebra.linear(c.b, x, weight, None, c.name)
    if isinstance(c.inputs[2], Ref):
        product = algebra.linear(c.b, x, weight, None)
        other = c.variable(2)
        if c.a.get("beta", 1.0) != 1:
            other = algebra.multiply(c.b, other, c.b.constant(c.a["beta"]))
        return algebra.add(c.b, product, other, c.name)
    bias = c.a.get("beta", 1.0) * c.constant(2)
    if bias.dim() > 2 or (bias.dim() == 2 and bias.shape[0] != 1):
        raise c.b.unsupported(f"a bias of shape {tuple(bias.shape)} differs between samples")
    return algebra.linear(c.b, x, weight, bias, c.name)


def conv(c: Call) -> Ref:
    """Convolution in one or two dimensions; unequal padding becomes a Pad in front."""
    x, weight = c.variable(0), c.constant(1)
    if x.rank == 3 and weight.dim() == 3:
        return _conv1d(c, x, weight)
    if x.rank != 4 or weight.dim() != 4:
        raise c.b.unsupported(f"a convolution of a value of rank {x.rank} (only images, rank 4)")
    kernel, stride, dilation = _geometry(c, weight.shape[2:])
    x, padding = _padded(c, x, _pads(c, x, kernel, stride, dilation), 0.0)
    bias = c.constant(2) if c.given(2) else None
    return c.b.add(ops.Conv2d(weight, bias, stride, padding, dilation, c.a.get("group", 1)), x, name=c.name)


def _conv1d(c: Call, x: Ref, weight: Tensor) -> Ref:
    """A convolution over one axis is one over images of height 1."""
    if c.a.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise c.b.unsupported("automatic padding in one dimension")
    before, after = c.a.get("pads", [0, 0]) if c.a.get("auto_pad", b"NOTSET") == b"NOTSET" else (0, 0)
    image = algebra.reshape(c.b, x, (x.shape[0], 1, x.shape[1]))
    if before != after:
        image, before = c.b.add(ops.Pad((before, after)), image), 0
    stride, dilation = (int(c.a.get(key, [1])[0]) for key in ("strides", "dilations"))
    bias = c.constant(2) if c.given(2) else None
    op = ops.Conv2d(weight.unsqueeze(2), bias, (1, stride), (0, before), (1, dilation), c.a.get("group", 1))
    y = c.b.add(op, image)
    return algebra.reshape(c.b, y, (y.shape[0], y.shape[2]), c.name)


def conv_transpose(c: Call) -> Ref:
    """Transposed convolution in two dimensions."""
    x, weight = c.variable(0), c.constant(1)
    if x.rank != 4 or c.a.get("auto_pad", b"NOTSET") != b"NOTSET" or "output_shape" in c.a:
        raise c.b.unsupported("a transposed convolution with automatic padding, or not of an image")
    _, stride, dilation = _geometry(c, weight.shape[2:])
    pads = c.a.get("pads", [0, 0, 0, 0])
    if pads[:2] != pads[2:]:
        raise c.b.unsupported("a transposed convolution with unequal padding")
    extra = pair(c.a.get("output_padding", [0, 0]))
    bias = c.constant(2) if c.given(2) else None
    op = ops.ConvTranspose2d(weight, bias, stride, pair(pads), extra, dilation, c.a.get("group", 1))
    return c.node(op)


def batch_norm(c: Call) -> Ref:
    """Batch normalisation with stored statistics."""
    if c.a.get("training_mode", 0) or (c.opset < 9 and c.a.get("spatial", 1) != 1):
        raise c.b.unsupported("batch normalisation in training mode or not per channel")
    scale, bias, mean, variance = (c.constant(i) for i in range(1, 5))
    return c.node(ops.BatchNorm(mean, variance, scale, bias, float(c.a.get("epsilon", 1e-5))))


def max_pool(c: Call) -> Ref:
    """Maximum over windows."""
    x = _image(c)
    if len(c.outputs) > 1 and c.outputs[1]:
        raise c.b.unsupported("max pooling that also returns indices")
    kernel, stride, dilation = _geometry(c, c.a["kernel_shape"])
    pads = _pads(c, x, kernel, stride, dilation)
    if pads[0] != pads[2] or pads[1] != pads[3]:
        raise c.b.unsupported("max pooling with unequal padding")
    op = ops.MaxPool2d(kernel, stride, (pads[0], pads[1]), dilation, bool(c.a.get("ceil_mode", 0)))
    return c.node(op)


def average_pool(c: Call) -> Ref:
    """Mean over windows; unequal padding: sums over the padded image, divided by the counts."""
    x = _image(c)
    kernel, stride, dilation = _geometry(c, c.a["kernel_shape"])
    if dilation != (1, 1):
        raise c.b.unsupported("average pooling with dilation")
    pads, ceil = _pads(c, x, kernel, stride, dilation), bool(c.a.get("ceil_mode", 0))
    counted = bool(c.a.get("count_include_pad", 0))
    if pads[0] == pads[2] and pads[1] == pads[3]:
        return c.node(ops.AvgPool2d(kernel, stride, (pads[0], pads[1]), ceil, counted))
    if ceil:
        raise c.b.unsupported("average pooling with unequal padding and ceil_mode")
    torch_pads = (pads[1], pads[3], pads[0], pads[2])
    padded = c.b.add(ops.Pad(torch_pads), x)
    if counted:
        return c.b.add(ops.AvgPool2d(kernel, stride), padded, name=c.name)
    ones = F.pad(torch.ones((1, 1, *x.shape[1:]), dtype=c.b.dtype), torch_pads)
    counts = F.avg_pool2d(ones, kernel, stride, divisor_override=1)
    sums = c.b.add(ops.AvgPool2d(kernel, stride, divisor=1), padded)
    return c.b.add(ops.DivConstant(counts), sums, name=c.name)


def global_average_pool(c: Call) -> Ref:
    """Mean over all axes after the channels."""
    x = c.variable()
    return algebra.reduce(c.b, x, "mean", range(2, x.rank), True, c.name)


def global_max_pool(c: Call) -> Ref:
    """Maximum over the whole image."""
    size = pair(_image(c).shape[1:])
    return c.node(ops.MaxPool2d(size, size))


def clip(c: Call) -> Ref:
    """min(max(x, lower), upper)."""
    low, high = c.number("min", 1), c.number("max", 2)
    return c.node(ops.Clip(-math.inf if low is None else low, math.inf if high is None else high))


def gelu(c: Call) -> Ref:
    """GELU, exact or by tanh."""
    return c.node(ops.Elementwise("GeluTanh" if c.a.get("approximate", b"none") == b"tanh" else "Gelu"))


def power(c: Call) -> Ref:
    """A constant power."""
    exponent = c.array(1)
    if exponent.size != 1:
        raise c.b.unsupported("a power that is a tensor")
    return algebra.power(c.b, c.variable(), float(exponent.reshape(-1)[0]), c.name)


def layer_norm(c: Call) -> Ref:
    """Layer normalisation over the last axes."""
    x = c.variable()
    axis = c.b.axis(c.a.get("axis", -1), x)
    shape = x.shape[axis - 1 :]
    weight = c.constant(1).expand(shape).contiguous()
    bias = c.constant(2).expand(shape).contiguous() if c.given(2) else torch.zeros_like(weight)
    return c.node(ops.LayerNorm(weight, bias, float(c.a.get("epsilon", 1e-5))))


def softmax(c: Call, log: bool = False) -> Ref:
    """Softmax; before operator set 13 it flattens from its axis on."""
    x = c.variable()
    axis = c.b.axis(c.a.get("axis", -1 if c.opset >= 13 else 1), x)
    if c.opset < 13 and axis != x.rank - 1:
        raise c.b.unsupported("a softmax over several axes")
    return c.node(ops.LogSoftmax(axis) if log else ops.Softmax(axis))


def upsample(c: Call, resize: bool = False) -> Ref:
    """Upsample and Resize: nearest, by whole factors, where that repeats entries."""
    x = _image(c)
    factors = _factors(c, x)
    if c.a.get("mode", b"nearest") != b"nearest" or len(factors) != 4 or factors[:2] != [1, 1]:
        raise c.b.unsupported("resizing other than to the nearest entry of an image")
    if any(f != int(f) for f in factors):
        raise c.b.unsupported(f"resizing by the factors {factors[2:]}")
    if resize and c.opset >= 11:
        where = c.a.get("coordinate_transformation_mode", b"half_pixel")
        nearest = c.a.get("nearest_mode", b"round_prefer_floor")
        floors = where == b"asymmetric" and (nearest == b"floor" or (max(factors) <= 2 and nearest.endswith(b"_floor")))
        rounds = where in (b"half_pixel", b"pytorch_half_pixel") and nearest.startswith(b"round")
        if not floors and not rounds:
            raise c.b.unsupported(f"resizing with {where.decode()} coordinates and {nearest.decode()}")
    return c.node(ops.UpsampleNearest((int(factors[2]), int(factors[3]))))


def _factors(c: Call, x: Ref) -> list[float]:
    """Scales per axis, from an attribute, an input, or the wanted sizes."""
    if "scales" in c.a:
        return [float(f) for f in c.a["scales"]]
    at = 1 if len(c.inputs) == 2 else 2
    if c.given(at) and c.array(at).size:
        return [float(f) for f in c.array(at).reshape(-1)]
    sizes = c.array(3).reshape(-1).tolist()
    return [1.0, *(size / old for size, old in zip(sizes[1:], x.shape, strict=True))]


def _image(c: Call) -> Ref:
    x = c.variable()
    if x.rank != 4:
        raise c.b.unsupported(f"pooling of a value of rank {x.rank} (only images, rank 4)")
    return x


Pair = tuple[int, int]


def _geometry(c: Call, kernel: Sequence[int]) -> tuple[Pair, Pair, Pair]:
    """Kernel, stride, dilation."""
    return pair(kernel), pair(c.a.get("strides", [1, 1])), pair(c.a.get("dilations", [1, 1]))


def _pads(c: Call, x: Ref, kernel: Pair, stride: Pair, dilation: Pair) -> list[int]:
    """[top, left, bottom, right], also for automatic padding."""
    auto = c.a.get("auto_pad", b"NOTSET")
    if auto == b"NOTSET":
        return [int(p) for p in c.a.get("pads", [0, 0, 0, 0])]
    if auto == b"VALID":
        return [0, 0, 0, 0]
    before, after = [], []
    for size, k, s, d in zip(x.shape[1:], kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)  # the output has ⌈size / s⌉ entries
        small, large = total // 2, total - total // 2
        before.append(small if auto == b"SAME_UPPER" else large)
        after.append(large if auto == b"SAME_UPPER" else small)
    return before + after


def _padded(c: Call, x: Ref, pads: list[int], value: float) -> tuple[Ref, Pair]:
    """Equal padding stays with the operator; otherwise x is padded before."""
    if pads[0] == pads[2] and pads[1] == pads[3]:
        return x, (pads[0], pads[1])
    return c.b.add(ops.Pad((pads[1], pads[3], pads[0], pads[2]), value), x), (0, 0)
