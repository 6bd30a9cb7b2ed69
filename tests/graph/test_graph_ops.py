"""Every linear operator is the matrix it says it is: map, |map|, transpose, constant, rounding. Calls are torch's."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from saddlepoint.core.arithmetic import gamma
from saddlepoint.graph import ops
from saddlepoint.graph.transpose import transpose

DRAW = torch.Generator().manual_seed(7)


def t(*shape):
    return torch.randn(shape, generator=DRAW, dtype=torch.float64)


W, B = t(6, 2, 3, 3), t(6)
MEAN, VAR, SCALE, SHIFT = t(3), t(3).square() + 0.1, t(3), t(3)

LINEAR = {
    "linear": (ops.Linear(t(4, 5), t(4)), [(5,)]),
    "linear no bias": (ops.Linear(t(4, 5)), [(5,)]),
    "linear rank 3": (ops.Linear(t(4, 5), t(4)), [(3, 5)]),
    "conv": (ops.Conv2d(W, B), [(2, 5, 4)]),
    "conv stride": (ops.Conv2d(W, B, (2, 2), (1, 1)), [(2, 6, 5)]),
    "conv stride 3, rows left over": (ops.Conv2d(W, None, (3, 2), (0, 1)), [(2, 7, 6)]),
    "conv dilation": (ops.Conv2d(W, B, (2, 1), (2, 1), (2, 2)), [(2, 6, 6)]),
    "conv groups": (ops.Conv2d(t(6, 2, 2, 2), B, (1, 1), (0, 1), (1, 1), 3), [(6, 3, 3)]),
    "conv transposed": (ops.ConvTranspose2d(t(2, 3, 3, 3), t(3), (2, 2), (1, 1), (1, 0)), [(2, 3, 2)]),
    "conv transposed groups": (ops.ConvTranspose2d(t(4, 3, 2, 2), t(6), (2, 1), groups=2), [(4, 2, 3)]),
    "batch norm 2d": (ops.BatchNorm(MEAN, VAR, SCALE, SHIFT, 1e-3), [(3, 2, 2)]),
    "batch norm 1d": (ops.BatchNorm(MEAN, VAR, SCALE, SHIFT), [(3,)]),
    "batch norm of a sequence": (ops.BatchNorm(MEAN, VAR, SCALE, SHIFT), [(3, 4)]),
    "x M": (ops.MatMulConstant(t(1, 4, 2)), [(3, 4)]),
    "M x": (ops.MatMulConstant(t(2, 3), left=True), [(3, 4)]),
    "x M, a stack": (ops.MatMulConstant(t(1, 5, 4, 2)), [(1, 3, 4)]),
    "add": (ops.Add(), [(3, 2), (3, 2)]),
    "sub": (ops.Sub(), [(3, 2), (3, 2)]),
    "negate": (ops.Negate(), [(3,)]),
    "add constant": (ops.AddConstant(t(1, 3, 1)), [(3, 2)]),
    "mul constant": (ops.MulConstant(t(1, 1, 2)), [(3, 2)]),
    "div constant": (ops.DivConstant(t(1, 3, 1) + 2), [(3, 2)]),
    "constant": (ops.Constant(t(1, 2, 2)), [(3,)]),
    "reshape": (ops.Reshape((6, 2)), [(3, 4)]),
    "permute": (ops.Permute((0, 3, 1, 2)), [(2, 3, 4)]),
    "slice": (ops.Slice(2, 1, 5, 2), [(2, 6)]),
    "index": (ops.Index(1, torch.tensor([2, 0, 0, 1, 0])), [(3, 2)]),
    "pad": (ops.Pad((1, 2, 0, 1)), [(2, 2, 3)]),
    "pad value": (ops.Pad((1, 0), -1.5), [(2, 3)]),
    "crop": (ops.Pad((-1, 0, 1, -2)), [(2, 3, 4)]),
    "concat": (ops.Concat(1), [(2, 3), (1, 3), (3, 3)]),
    "concat last": (ops.Concat(2), [(2, 3), (2, 1)]),
    "expand": (ops.Expand((1, 2, 1), (3, 2, 2)), [(1, 2, 1)]),
    "upsample": (ops.UpsampleNearest((2, 3)), [(2, 2, 2)]),
    "avg pool": (ops.AvgPool2d((2, 2), (2, 2)), [(2, 4, 5)]),
    "avg pool overlapping": (ops.AvgPool2d((3, 3), (1, 2), (1, 1)), [(1, 4, 5)]),
    "avg pool ceil, padding not counted": (ops.AvgPool2d((3, 2), (2, 2), (1, 1), True, False), [(1, 4, 4)]),
    "avg pool divisor": (ops.AvgPool2d((2, 2), (1, 1), divisor=3), [(1, 3, 3)]),
    "adaptive pool": (ops.AdaptiveAvgPool2d((2, 3), (5, 4)), [(2, 5, 4)]),
    "adaptive pool to 1": (ops.AdaptiveAvgPool2d((1, 1), (5, 4)), [(2, 5, 4)]),
    "adaptive pool larger": (ops.AdaptiveAvgPool2d((5, 7), (2, 3)), [(1, 2, 3)]),
    "mean": (ops.Mean((2, 3), True, (2, 3, 4)), [(2, 3, 4)]),
    "mean of channels": (ops.Mean((1,), False, (4, 2)), [(4, 2)]),
    "sum": (ops.Sum((1, 2), False, (2, 3)), [(2, 3)]),
}
CASES = pytest.mark.parametrize("name", LINEAR)


def flat(x):
    return x.reshape(len(x), -1)


def matrix(fn, shapes):
    """The matrix of a linear function of several inputs, column by column: (out, Σ in)."""
    sizes = [math.prod(s) for s in shapes]
    basis = torch.eye(sum(sizes), dtype=torch.float64)
    xs = [part.reshape(-1, *s) for part, s in zip(basis.split(sizes, 1), shapes, strict=True)]
    return flat(fn(*xs)).T


def inputs(shapes, n):
    return [t(n, *s) for s in shapes]


@CASES
@pytest.mark.parametrize("n", [1, 5])
def test_call_is_map_plus_constant(name, n):
    op, shapes = LINEAR[name]
    xs = inputs(shapes, n)
    y, c = op.map(*xs), op.constant(shapes, xs[0])
    assert c is None or (c.shape == (1, *y.shape[1:]) and c.dtype == torch.float64)
    assert torch.allclose(op(*xs), y if c is None else y + c, rtol=1e-12, atol=1e-12)


@CASES
def test_map_is_linear(name):
    op, shapes = LINEAR[name]
    m, xs = matrix(op.map, shapes), inputs(shapes, 3)
    x = torch.cat([flat(x) for x in xs], 1)
    assert torch.allclose(flat(op.map(*xs)), x @ m.T, rtol=1e-12, atol=1e-12)


@CASES
def test_absolute_map_has_absolute_coefficients(name):
    op, shapes = LINEAR[name]
    assert torch.allclose(matrix(op.absolute_map, shapes), matrix(op.map, shapes).abs(), rtol=1e-12, atol=0)


@CASES
@pytest.mark.parametrize("absolute", [False, True])
def test_transpose_is_the_transposed_matrix(name, absolute):
    op, shapes = LINEAR[name]
    op = op.absolute() if absolute else op
    m = matrix(op.map, shapes)
    out = op.map(*inputs(shapes, 4)).shape
    a = torch.randn(out, generator=DRAW, dtype=torch.float64, requires_grad=True)
    parts = transpose(op, a, shapes)
    assert [tuple(p.shape) for p in parts] == [(4, *s) for s in shapes]
    pulled = torch.cat([flat(p) for p in parts], 1)
    assert torch.allclose(pulled, flat(a) @ m, rtol=1e-12, atol=1e-12)
    # differentiable in the cotangent, so that bounds can be optimised through it
    if name != "constant":
        (g,) = torch.autograd.grad(pulled.sum(), a)
        assert torch.allclose(flat(g), (m @ torch.ones(m.shape[1], dtype=torch.float64)).expand(4, -1))


@CASES
def test_direct_transposes_equal_the_vector_jacobian_product(name):
    op, shapes = LINEAR[name]
    a = torch.randn(op.map(*inputs(shapes, 2)).shape, generator=DRAW, dtype=torch.float64)
    generic = transpose.dispatch(ops.LinearOp)
    for direct, general in zip(transpose(op, a, shapes), generic(op, a, shapes), strict=True):
        assert torch.allclose(direct, general, rtol=1e-12, atol=1e-12)


@CASES
def test_rounding_stays_within_gamma(name):
    # |fl(W x) − W x| ≤ γ_n |W| |x| with the operator's own n, and the same for the transpose
    op, shapes = LINEAR[name]
    single = op.to(torch.float32)
    double = single.to(torch.float64)
    xs = [x.float() for x in inputs(shapes, 20)]
    exact = double.map(*[x.double() for x in xs])
    room = double.absolute_map(*[x.double().abs() for x in xs]) * gamma(op.products, torch.float32)
    assert bool(((single.map(*xs).double() - exact).abs() <= room).all())
    a = torch.randn(exact.shape, generator=DRAW)
    for got, want, size in zip(
        transpose(single, a, shapes),
        transpose(double, a.double(), shapes),
        transpose(double.absolute(), a.double().abs(), shapes),
        strict=True,
    ):
        room = size * gamma(op.products_transposed, torch.float32)
        assert bool(((got.double() - want).abs() <= room).all())


X = t(3, 2, 5, 4)
REFERENCES = {
    "conv": (ops.Conv2d(W, B, (2, 1), (1, 1)), lambda x: F.conv2d(x, W, B, (2, 1), (1, 1))),
    "relu": (ops.Relu(), torch.relu),
    "leaky": (ops.LeakyRelu(0.2), lambda x: F.leaky_relu(x, 0.2)),
    "relu6": (ops.Clip(0.0, 6.0), F.relu6),
    "below only": (ops.Clip(0.1), lambda x: x.clamp(min=0.1)),
    "max pool": (
        ops.MaxPool2d((3, 2), (2, 2), (1, 0), ceil_mode=True),
        torch.nn.MaxPool2d((3, 2), 2, (1, 0), ceil_mode=True),
    ),
    "sigmoid": (ops.Sigmoid(), torch.sigmoid),
    "tanh": (ops.Tanh(), torch.tanh),
    "exp": (ops.Exp(), torch.exp),
    "abs": (ops.Abs(), torch.abs),
    "softmax": (ops.Softmax(1), lambda x: x.softmax(1)),
    "log softmax": (ops.LogSoftmax(3), lambda x: x.log_softmax(3)),
    "avg pool": (ops.AvgPool2d((2, 3), (2, 1)), lambda x: F.avg_pool2d(x, (2, 3), (2, 1))),
    "upsample": (ops.UpsampleNearest((2, 2)), lambda x: F.interpolate(x, scale_factor=2)),
    "batch norm": (
        ops.BatchNorm(MEAN[:2], VAR[:2], SCALE[:2], SHIFT[:2], 1e-3),
        lambda x: F.batch_norm(x, MEAN[:2], VAR[:2], SCALE[:2], SHIFT[:2], False, 0.0, 1e-3),
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_call_is_exactly_torch(name):
    op, reference = REFERENCES[name]
    assert torch.equal(op(X), reference(X))


def test_products_of_two_variables_run():
    a, b = t(2, 3, 4), t(2, 4, 5)
    assert torch.equal(ops.MatMul()(a, b), a @ b)
    assert torch.equal(ops.Mul()(a, a), a * a)


def test_to_changes_floating_tensors_only():
    op = ops.Index(1, torch.tensor([1, 0])).to(torch.float64)
    assert op.index.dtype == torch.int64
    assert ops.Conv2d(W.float(), None).to(torch.float64).weight.dtype == torch.float64
