"""ONNX file -> Graph, without torch.export: initialisers and shape arithmetic fold, variables become nodes.

Files for one sample (batch 1) become batched graphs: every rule keeps the batch axis in front or refuses, so sample i
of the output depends on sample i of the input alone. Compare with onnxruntime (agreement.py) before any claim.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saddlepoint.core.errors import StochasticModel, UnsupportedModel
from saddlepoint.graph.builder import Builder, Ref
from saddlepoint.graph.ir import Graph
from saddlepoint.graph.onnx_call import FLOATS, Call, Held
from saddlepoint.graph.onnx_file import array, open_model, opset, type_name
from saddlepoint.graph.onnx_folding import fold
from saddlepoint.graph.onnx_rules import RULES
from saddlepoint.graph.ops_base import Shape

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto, ValueInfoProto

DAMAGED = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
CONTROL = frozenset({"If", "Loop", "Scan"})
RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)


def read_onnx(path: str | Path, shape: Shape | None = None) -> Graph:
    """The model of an ONNX file (also .onnx.gz). `shape` fills sizes of the input that the file leaves open.

    Raises RefusedFile (damaged, external data outside its folder), UnsupportedOperator, UnsupportedModel,
    StochasticModel, NonFinite.
    """
    return graph_of_onnx(open_model(path), shape)


def graph_of_onnx(model: ModelProto, shape: Shape | None = None) -> Graph:
    """The graph of a parsed model whose tensors are all inside."""
    held: dict[str, Held] = {t.name: array(t) for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in held]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise UnsupportedModel(
            f"the file has {len(inputs)} inputs and {len(model.graph.output)} outputs.",
            "A classifier takes one batch of inputs and gives one tensor of logits.",
        )
    builder, batch = _builder(inputs[0], shape)
    held[inputs[0].name] = builder.input
    version = opset(model)
    for node in model.graph.node:
        for name, value in zip(node.output, _read(node, held, builder, version, batch), strict=False):
            held[name] = value
    result = held.get(model.graph.output[0].name)
    if result is None:
        raise UnsupportedModel(f"no node gives the output {model.graph.output[0].name!r}.", "Export the file again.")
    return builder.graph(result if isinstance(result, Ref) else torch.from_numpy(result))


def _read(node: NodeProto, held: dict[str, Held], builder: Builder, version: int, batch: int | None) -> list[Any]:
    """Values of a node's outputs."""
    kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
    builder.where = f"ONNX {kind} node {node.name or node.output[0]!r}"
    missing = [name for name in node.input if name and name not in held]
    if missing:
        raise UnsupportedModel(f"{builder.where} reads {missing[0]!r}, which nothing gives.", "Export the file again.")
    if kind in CONTROL:
        raise UnsupportedModel(f"{builder.where}: control flow cannot become a graph.", "Export it without branches.")
    if kind in RANDOM:
        raise StochasticModel(f"{builder.where}: the model draws random numbers.", "Export it in evaluation mode.")
    try:
        call = Call(
            builder,
            {a.name: _attribute(a) for a in node.attribute},
            tuple(held[name] if name else None for name in node.input),
            tuple(node.output),
            version,
            batch,
        )
        return _values(kind, call)
    except DAMAGED as error:  # what numpy and torch raise for shapes, attributes and sizes that make no sense
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UnsupportedModel(f"{builder.where} makes no sense: {reason}.", "Export the file again.") from error


def _values(kind: str, call: Call) -> list[Any]:
    if not any(isinstance(x, Ref) for x in call.inputs):
        return list(fold(kind, call))
    rule = RULES.get(kind)
    if rule is None:
        raise call.b.unsupported(f"the operator {kind} has no rule")
    result = rule(call)
    return list(result) if isinstance(result, list) else [result]


def _attribute(attribute: AttributeProto) -> Any:
    from onnx import AttributeProto, helper

    if attribute.type == AttributeProto.TENSOR:
        return attribute.t
    return helper.get_attribute_value(attribute)


def _builder(info: ValueInfoProto, shape: Shape | None) -> tuple[Builder, int | None]:
    """A builder for the file's input, and the batch size that the file fixes (None if it is open)."""
    kind = info.type.tensor_type
    if kind.elem_type not in FLOATS:
        raise UnsupportedModel(
            f"the input {info.name!r} is of type {type_name(kind.elem_type)}, not float.",
            "Export the model with float32 inputs.",
        )
    sizes = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim]
    if len(sizes) < 2:
        raise UnsupportedModel(
            f"the input {info.name!r} has {len(sizes)} axes, so no batch axis in front.", "Export it with (batch, …)."
        )
    if shape is None and None not in sizes[1:]:
        shape = tuple(s for s in sizes[1:] if s is not None)
    if shape is None or len(shape) != len(sizes) - 1:
        raise UnsupportedModel(
            f"the input {info.name!r} has the shape {['?' if s is None else s for s in sizes]}.",
            "Give the shape of one sample (shape=).",
        )
    if any(s not in (None, given) for s, given in zip(sizes[1:], shape, strict=True)):
        raise UnsupportedModel(f"the file's input is {sizes}, not (batch, {str(shape)[1:-1]}).", "Give its own shape.")
    return Builder(tuple(int(s) for s in shape), FLOATS[kind.elem_type], info.name), sizes[0]
