"""One small ONNX file per operator and operator set, each compared with onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from saddlepoint.core.errors import StochasticModel, UnsupportedModel, UnsupportedOperator
from saddlepoint.geometry.box import Box
from saddlepoint.graph.agreement import agree_with_onnxruntime
from saddlepoint.graph.onnx_reader import read_onnx

RANDOM = np.random.default_rng(3)
OLDEST_IR = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 13: 7, 18: 8, 20: 9}


def f(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def i(*values):
    return np.array(values, dtype=np.int64)


def save(path, nodes, shape, constants, opset, batch="N", kind=TensorProto.FLOAT):
    """A file with input x, output y; nodes are (type, inputs, outputs, attributes)."""
    graph = helper.make_graph(
        [helper.make_node(t, ins, outs, **attributes) for t, ins, outs, attributes in nodes],
        "g",
        [helper.make_tensor_value_info("x", kind, [batch, *shape])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=OLDEST_IR[opset])
    onnx.save(model, path)
    return path


def one(kind, *names, **attributes):
    return [(kind, ["x", *names], ["y"], attributes)]


IMAGE = (3, 6, 5)
# name -> nodes, shape of a sample, constants, operator set
CASES = {
    "Gemm": (one("Gemm", "w", "b", transB=1, alpha=0.5, beta=2.0), (4,), {"w": f(3, 4), "b": f(3)}, 13),
    "Gemm without bias": (one("Gemm", "w"), (4,), {"w": f(4, 3)}, 11),
    "Gemm scalar bias": (one("Gemm", "w", "b"), (4,), {"w": f(4, 3), "b": f(1)}, 7),
    "MatMul": (one("MatMul", "w"), (2, 4), {"w": f(4, 3)}, 9),
    "MatMul stack": (one("MatMul", "w"), (2, 3, 4), {"w": f(2, 4, 3)}, 13),
    "MatMul left": ([("MatMul", ["w", "x"], ["y"], {})], (4, 3), {"w": f(2, 4)}, 13),
    "MatMul vector": (one("MatMul", "w"), (2, 4), {"w": f(4)}, 13),
    "MatMul variables": (
        [("Transpose", ["x"], ["t"], {"perm": [0, 2, 1]}), ("MatMul", ["x", "t"], ["y"], {})],
        (3, 4),
        {},
        13,
    ),
    "Conv": (
        one("Conv", "w", "b", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0], dilations=[1, 2]),
        IMAGE,
        {"w": f(4, 3, 3, 2), "b": f(4)},
        11,
    ),
    "Conv groups": (one("Conv", "w", group=3), IMAGE, {"w": f(6, 1, 2, 2)}, 11),
    "Conv unequal pads": (one("Conv", "w", pads=[0, 1, 2, 0]), IMAGE, {"w": f(4, 3, 3, 3)}, 8),
    "Conv SAME_UPPER": (one("Conv", "w", auto_pad="SAME_UPPER", strides=[2, 2]), IMAGE, {"w": f(4, 3, 3, 2)}, 11),
    "Conv SAME_LOWER": (one("Conv", "w", auto_pad="SAME_LOWER"), IMAGE, {"w": f(4, 3, 2, 2)}, 11),
    "ConvTranspose": (
        one("ConvTranspose", "w", "b", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 0]),
        IMAGE,
        {"w": f(3, 2, 3, 3), "b": f(2)},
        11,
    ),
    "BatchNormalization": (
        one("BatchNormalization", "s", "b", "m", "v", epsilon=0.1),
        IMAGE,
        {"s": f(3), "b": f(3), "m": f(3), "v": f(3) ** 2},
        9,
    ),
    "MaxPool": (one("MaxPool", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0]), IMAGE, {}, 8),
    "MaxPool ceil": (one("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), (1, 5, 5), {}, 11),
    "MaxPool dilation": (one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), IMAGE, {}, 11),
    "AveragePool": (one("AveragePool", kernel_shape=[2, 3], strides=[2, 1], pads=[1, 1, 1, 1]), IMAGE, {}, 11),
    "AveragePool counted": (
        one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        IMAGE,
        {},
        7,
    ),
    "AveragePool unequal": (one("AveragePool", kernel_shape=[3, 3], pads=[1, 0, 0, 2]), IMAGE, {}, 11),
    "AveragePool unequal counted": (
        one("AveragePool", kernel_shape=[3, 3], pads=[1, 0, 0, 2], count_include_pad=1),
        IMAGE,
        {},
        11,
    ),
    "AveragePool SAME": (one("AveragePool", kernel_shape=[2, 2], auto_pad="SAME_UPPER", strides=[2, 2]), IMAGE, {}, 11),
    "AveragePool ceil": (one("AveragePool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), (1, 5, 5), {}, 11),
    "GlobalAveragePool": (one("GlobalAveragePool"), IMAGE, {}, 7),
    "GlobalMaxPool": (one("GlobalMaxPool"), IMAGE, {}, 7),
    "Relu": (one("Relu"), (4,), {}, 7),
    "LeakyRelu": (one("LeakyRelu", alpha=0.3), (4,), {}, 7),
    "PRelu": (one("PRelu", "s"), (4,), {"s": f(1)}, 9),
    "Clip attributes": (one("Clip", min=-0.5, max=0.25), (4,), {}, 7),
    "Clip inputs": (one("Clip", "", "m"), (4,), {"m": np.float32(0.25).reshape(())}, 13),
    "Sigmoid": (one("Sigmoid"), (4,), {}, 7),
    "Tanh": (one("Tanh"), (4,), {}, 7),
    "Exp": (one("Exp"), (4,), {}, 7),
    "Abs": (one("Abs"), (4,), {}, 7),
    "Neg": (one("Neg"), (4,), {}, 7),
    "Erf": (one("Erf"), (4,), {}, 9),
    "Sin": (one("Sin"), (4,), {}, 7),
    "Cos": (one("Cos"), (4,), {}, 7),
    "Mish": (one("Mish"), (4,), {}, 18),
    "HardSigmoid": (one("HardSigmoid", alpha=0.3, beta=0.4), (4,), {}, 7),
    "Elu alpha": (one("Elu", alpha=0.5), (4,), {}, 7),
    "PRelu channels": (one("PRelu", "s"), IMAGE, {"s": f(3, 1, 1)}, 9),
    "Reciprocal": (
        [("Mul", ["x", "x"], ["q"], {}), ("Add", ["q", "c"], ["p"], {}), ("Reciprocal", ["p"], ["y"], {})],
        (4,),
        {"c": np.ones(1, np.float32)},
        13,
    ),
    "constant over variable": (
        [("Exp", ["x"], ["e"], {}), ("Div", ["c", "e"], ["y"], {})],
        (4,),
        {"c": f(4)},
        13,
    ),
    "Silu as exported": ([("Sigmoid", ["x"], ["s"], {}), ("Mul", ["x", "s"], ["y"], {})], (4,), {}, 13),
    "Max": ([("Neg", ["x"], ["n"], {}), ("Max", ["x", "c", "n"], ["y"], {})], (4,), {"c": f(4)}, 13),
    "Min": (one("Min", "c"), (4,), {"c": np.float32(0.5).reshape(())}, 13),
    "ReduceMax": (one("ReduceMax", axes=[2, 3], keepdims=0), IMAGE, {}, 13),
    "ReduceMin": (one("ReduceMin", axes=[1]), IMAGE, {}, 13),
    "ReduceL1": (one("ReduceL1", axes=[1]), IMAGE, {}, 13),
    "ReduceL2": (one("ReduceL2", axes=[-1], keepdims=0), IMAGE, {}, 13),
    "ReduceSumSquare": (one("ReduceSumSquare", axes=[1]), IMAGE, {}, 13),
    "Pow 3": (one("Pow", "p"), (4,), {"p": np.float32(3).reshape(())}, 13),
    "Pow 1.5": (
        [("Abs", ["x"], ["a"], {}), ("Pow", ["a", "p"], ["y"], {})],
        (4,),
        {"p": np.float32(1.5).reshape(())},
        13,
    ),
    "Where": (
        [("Neg", ["x"], ["n"], {}), ("Where", ["m", "x", "n"], ["y"], {})],
        (4,),
        {"m": np.array([True, False, True, False])},
        13,
    ),
    "Conv1d": (one("Conv", "w", "b", pads=[1, 2], strides=[2]), (3, 9), {"w": f(4, 3, 3), "b": f(4)}, 11),
    "Gather matrix": (one("Gather", "k", axis=2), IMAGE, {"k": np.array([[0, 2], [1, -1]], dtype=np.int64)}, 11),
    "Elu": (one("Elu"), (4,), {}, 7),
    "Softplus": (one("Softplus"), (4,), {}, 7),
    "HardSwish": (one("HardSwish"), (4,), {}, 18),
    "Gelu": (one("Gelu"), (4,), {}, 20),
    "Gelu tanh": (one("Gelu", approximate="tanh"), (4,), {}, 20),
    "Pow": (one("Pow", "two"), (4,), {"two": np.float32(2).reshape(())}, 13),
    "LayerNormalization": (one("LayerNormalization", "w", "b", axis=1), (2, 3), {"w": f(2, 3), "b": f(3)}, 18),
    "Softmax": (one("Softmax"), (4,), {}, 13),
    "Softmax old": (one("Softmax"), (4,), {}, 9),
    "LogSoftmax axis": (one("LogSoftmax", axis=1), (3, 4), {}, 13),
    "Add": (one("Add", "c"), (2, 3), {"c": f(3)}, 7),
    "Add growing": (one("Add", "c"), (1, 3), {"c": f(4, 1)}, 7),
    "Sub from constant": ([("Sub", ["c", "x"], ["y"], {})], (2, 3), {"c": f(1, 2, 1)}, 7),
    "Sub": (one("Sub", "c"), (2, 3), {"c": f(2, 3)}, 7),
    "Mul": (one("Mul", "c"), (2, 3), {"c": f(2, 1)}, 7),
    "Div": (one("Div", "c"), (2, 3), {"c": f(3) + 3}, 7),
    "two variables": (
        [
            ("Relu", ["x"], ["r"], {}),
            ("Mul", ["x", "r"], ["m"], {}),
            ("Sub", ["m", "x"], ["s"], {}),
            ("Sum", ["s", "r", "c"], ["y"], {}),
        ],
        (4,),
        {"c": f(1)},
        13,
    ),
    "broadcast variables": (
        [("ReduceMean", ["x"], ["m"], {"axes": [1]}), ("Sub", ["x", "m"], ["y"], {})],
        (4, 3),
        {},
        13,
    ),
    "Transpose": (one("Transpose", perm=[0, 3, 1, 2]), IMAGE, {}, 7),
    "Flatten": (one("Flatten"), IMAGE, {}, 7),
    "Reshape": (one("Reshape", "s"), IMAGE, {"s": i(0, -1, 5)}, 7),
    "Reshape -1": (one("Reshape", "s"), IMAGE, {"s": i(-1, 90)}, 13),
    "Reshape by Shape": (
        [
            ("Shape", ["x"], ["s"], {}),
            ("Gather", ["s", "zero"], ["n"], {}),
            ("Unsqueeze", ["n"], ["u"], {"axes": [0]}),
            ("Concat", ["u", "rest"], ["t"], {"axis": 0}),
            ("Reshape", ["x", "t"], ["y"], {}),
        ],
        IMAGE,
        {"zero": np.array(0, dtype=np.int64), "rest": i(-1)},
        9,
    ),
    "Squeeze": (one("Squeeze", axes=[2]), (3, 1, 2), {}, 11),
    "Squeeze input": (one("Squeeze", "a"), (3, 1, 2), {"a": i(-2)}, 13),
    "Unsqueeze": (one("Unsqueeze", axes=[1, 4]), (3, 2), {}, 11),
    "Unsqueeze input": (one("Unsqueeze", "a"), (3, 2), {"a": i(-1)}, 13),
    "Slice attributes": (one("Slice", starts=[1, -3], ends=[9, -1], axes=[2, 3]), IMAGE, {}, 9),
    "Slice step": (one("Slice", "s", "e", "a", "t"), IMAGE, {"s": i(1), "e": i(2**62), "a": i(2), "t": i(2)}, 13),
    "Slice back": (one("Slice", "s", "e", "a", "t"), IMAGE, {"s": i(-1), "e": i(-(2**62)), "a": i(3), "t": i(-2)}, 13),
    "Slice of all samples": (one("Slice", "s", "e"), (4,), {"s": i(0, 1), "e": i(2**62, 3)}, 11),
    "Gather": (one("Gather", "k", axis=1), IMAGE, {"k": i(2, 0, -1, 2)}, 11),
    "Gather one": (one("Gather", "k", axis=2), IMAGE, {"k": np.array(-1, dtype=np.int64)}, 11),
    "Split": (
        [("Split", ["x"], ["a", "b"], {"axis": 1, "split": [1, 3]}), ("Concat", ["b", "a"], ["y"], {"axis": 1})],
        (4, 2),
        {},
        11,
    ),
    "Split equally": (
        [("Split", ["x"], ["a", "b"], {"axis": 1}), ("Sub", ["b", "a"], ["y"], {})],
        (4, 2),
        {},
        13,
    ),
    "Concat constant": (
        [
            ("Shape", ["x"], ["s"], {}),
            ("Slice", ["s", "zero", "one"], ["n"], {}),
            ("Concat", ["n", "rest"], ["t"], {"axis": 0}),
            ("ConstantOfShape", ["t"], ["o"], {"value": numpy_helper.from_array(np.array([0.5], np.float32))}),
            ("Add", ["o", "token"], ["p"], {}),
            ("Concat", ["p", "x"], ["y"], {"axis": 1}),
        ],
        (3, 4),
        {"zero": i(0), "one": i(1), "rest": i(1, 4), "token": f(4)},
        13,
    ),
    "Expand": (one("Expand", "s"), (1, 3), {"s": i(1, 2, 3)}, 8),
    "Pad attributes": (one("Pad", pads=[0, 0, 1, 2, 0, 1, 0, 3], value=0.5), IMAGE, {}, 9),
    "Pad inputs": (one("Pad", "p", "v"), (2, 3), {"p": i(0, 1, 0, 0, 0, 2), "v": np.float32(-1).reshape(())}, 13),
    "Pad axes": (one("Pad", "p", "", "a"), (2, 3), {"p": i(1, 2), "a": i(2)}, 18),
    "ReduceMean": (one("ReduceMean", axes=[2, 3], keepdims=0), IMAGE, {}, 11),
    "ReduceMean input": (one("ReduceMean", "a"), IMAGE, {"a": i(-1)}, 18),
    "ReduceSum": (one("ReduceSum", axes=[1]), IMAGE, {}, 11),
    "ReduceSum input": (one("ReduceSum", "a", keepdims=0), IMAGE, {"a": i(1, 2)}, 13),
    "Dropout": ([("Dropout", ["x"], ["y", "mask"], {"ratio": 0.5})], (4,), {}, 7),
    "Identity": ([("Identity", ["x"], ["z"], {}), ("Relu", ["z"], ["y"], {})], (4,), {}, 7),
    "Cast": ([("Cast", ["x"], ["z"], {"to": 1}), ("Relu", ["z"], ["y"], {})], (4,), {}, 9),
    "Upsample": (one("Upsample", "s", mode="nearest"), IMAGE, {"s": np.array([1, 1, 2, 3], np.float32)}, 9),
    "Resize": (one("Resize", "", "s"), IMAGE, {"s": np.array([1, 1, 4, 3], np.float32)}, 13),
    "Resize asymmetric": (
        one("Resize", "", "s", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        IMAGE,
        {"s": np.array([1, 1, 3, 2], np.float32)},
        13,
    ),
    "folded weights": (
        [
            ("Transpose", ["w"], ["t"], {"perm": [1, 0]}),
            ("Mul", ["t", "c"], ["s"], {}),
            ("Sqrt", ["v"], ["r"], {}),
            ("Div", ["s", "r"], ["q"], {}),
            ("MatMul", ["x", "q"], ["y"], {}),
        ],
        (4,),
        {"w": f(3, 4), "c": f(1), "v": f(3) ** 2 + 1},
        13,
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch", ["N", 1])
def test_agrees_with_onnxruntime(name, batch, tmp_path):
    nodes, shape, constants, opset = CASES[name]
    path = save(tmp_path / "m.onnx", nodes, shape, constants, opset, batch)
    graph = read_onnx(path)
    assert agree_with_onnxruntime(graph, path, Box(-2, 2)) <= 1e-5
    x = torch.randn(5, *shape)
    assert torch.allclose(graph(x)[2:3], graph(x[2:3]), atol=1e-6)  # rows do not meet


def test_a_fixed_batch_of_four_is_read_and_compared(tmp_path):
    nodes = [("Reshape", ["x", "s"], ["z"], {}), ("Gemm", ["z", "w"], ["y"], {})]
    path = save(tmp_path / "m.onnx", nodes, (2, 3), {"s": i(4, 6), "w": f(6, 2)}, 13, batch=4)
    graph = read_onnx(path)
    assert agree_with_onnxruntime(graph, path, Box(0, 1)) <= 1e-5
    assert graph(torch.zeros(7, 2, 3)).shape == (7, 2)


def test_double_precision_files_stay_double(tmp_path):
    constants = {"w": f(4, 3).astype(np.float64)}
    path = save(tmp_path / "m.onnx", one("MatMul", "w"), (4,), constants, 13, kind=TensorProto.DOUBLE)
    graph = read_onnx(path)
    assert graph.dtype == torch.float64
    assert agree_with_onnxruntime(graph, path, Box(0, 1)) <= 1e-13


REFUSED = {
    "unknown": (one("Det"), (3, 3), {}, 11, UnsupportedOperator, "ONNX Det node 'y': the operator Det has no rule"),
    "other domain": ([("Relu", ["x"], ["y"], {"domain": "my.own"})], (3,), {}, 13, UnsupportedOperator, "my.own::Relu"),
    "flatten all": (one("Reshape", "s"), (3,), {"s": i(-1)}, 13, UnsupportedOperator, "mixes the samples"),
    "flatten 0": (one("Flatten", axis=0), (3,), {}, 13, UnsupportedOperator, "mixes the samples"),
    "mean of all": (one("ReduceMean"), (3,), {}, 13, UnsupportedOperator, "mixes the samples"),
    "sum of samples": (one("ReduceSum", axes=[0]), (3,), {}, 11, UnsupportedOperator, "batch axis"),
    "transposed batch": (one("Transpose", perm=[1, 0]), (3,), {}, 13, UnsupportedOperator, "batch axis"),
    "transA": (one("Gemm", "w", transA=1), (3,), {"w": f(2, 2)}, 13, UnsupportedOperator, "transA"),
    "max pool unequal": (
        one("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
        IMAGE,
        {},
        11,
        UnsupportedOperator,
        "unequal padding",
    ),
    "softmax of several axes": (one("Softmax", axis=1), (3, 2), {}, 9, UnsupportedOperator, "several axes"),
    "half": (
        [("Cast", ["x"], ["h"], {"to": 10}), ("Cast", ["h"], ["y"], {"to": 1})],
        (3,),
        {},
        13,
        UnsupportedOperator,
        "FLOAT16",
    ),
    "reflect": (
        one("Pad", "p", mode="reflect"),
        (4,),
        {"p": i(0, 1, 0, 1)},
        13,
        UnsupportedOperator,
        "mode reflect",
    ),
    "noise": (
        [("RandomNormalLike", ["x"], ["r"], {}), ("Add", ["x", "r"], ["y"], {})],
        (3,),
        {},
        13,
        StochasticModel,
        "random",
    ),
    "nothing gives it": ([("Relu", ["z"], ["y"], {})], (3,), {}, 13, UnsupportedModel, "reads 'z'"),
    "constant output": ([("Relu", ["c"], ["y"], {})], (3,), {"c": f(3)}, 13, UnsupportedOperator, "folds Relu"),
    "batch size as a number": (
        [("Size", ["x"], ["n"], {}), ("Cast", ["n"], ["c"], {"to": 1}), ("Mul", ["x", "c"], ["y"], {})],
        (3,),
        {},
        13,
        UnsupportedOperator,
        "Size",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name, tmp_path):
    nodes, shape, constants, opset, error, words = REFUSED[name]
    path = save(tmp_path / "m.onnx", nodes, shape, constants, opset)
    with pytest.raises(error, match=words):
        read_onnx(path)


def test_the_batch_size_does_not_leak_into_numbers(tmp_path):
    nodes = [
        ("Shape", ["x"], ["s"], {}),
        ("Gather", ["s", "zero"], ["n"], {}),
        ("Cast", ["n"], ["c"], {"to": 1}),
        ("Mul", ["x", "c"], ["y"], {}),
    ]
    path = save(tmp_path / "m.onnx", nodes, (3,), {"zero": np.array(0, dtype=np.int64)}, 13)
    with pytest.raises(UnsupportedOperator, match="batch size"):
        read_onnx(path)
