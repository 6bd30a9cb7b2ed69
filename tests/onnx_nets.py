"""ReLU networks as ONNX files, written layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_mlp(path: Path, layers: Sequence[tuple[Sequence, Sequence]], *, last: str = "") -> Path:
    """(weight (out, in), bias (out,)) a layer, ReLU between them; `last` names an operator behind the output."""
    nodes, held, value = [], [], "x"
    for i, (weight, bias) in enumerate(layers):
        held.append(numpy_helper.from_array(np.asarray(weight, dtype=np.float32), f"w{i}"))
        held.append(numpy_helper.from_array(np.asarray(bias, dtype=np.float32), f"b{i}"))
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [f"z{i}"], transB=1))
        value = f"z{i}"
        if i < len(layers) - 1:
            nodes.append(helper.make_node("Relu", [value], [f"h{i}"]))
            value = f"h{i}"
    if last:
        nodes.append(helper.make_node(last, [value], ["end"]))
        value = "end"
    sizes = np.asarray(layers[0][0]).shape[1], np.asarray(layers[-1][1]).shape[0]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
        for name, size in zip(("x", value), sizes, strict=True)
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return path


def specification(limits: Sequence[tuple[str, str]], outputs: int, *assertions: str) -> str:
    """VNN-LIB text: limits of every input as they are written, and assertions."""
    lines = [f"(declare-const X_{i} Real)" for i in range(len(limits))]
    lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    for i, (lower, upper) in enumerate(limits):
        lines += [f"(assert (>= X_{i} {lower}))", f"(assert (<= X_{i} {upper}))"]
    return "\n".join([*lines, *(f"(assert {a})" for a in assertions)]) + "\n"
