"""Opens an ONNX file (also gzipped) without trusting it: damaged files and outside references are refused."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from saddlepoint.core.errors import RefusedFile

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

OLDEST_OPSET = 7


def open_model(path: str | Path) -> ModelProto:
    """The parsed file, tensors included. Raises RefusedFile with the reason and the remedy."""
    import onnx  # here and below: a process that reads no ONNX file does not pay for the package
    from google.protobuf.message import DecodeError

    path = Path(path)
    remedy = "Export or download the file again."
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError as error:
        raise RefusedFile(f"{path} does not exist.", "Check the path.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise RefusedFile(f"{path} cannot be read: {error}.", remedy) from error
    try:
        model = onnx.load_model_from_string(raw)
    except DecodeError as error:
        raise RefusedFile(f"{path} is not an ONNX file, or it is truncated ({len(raw)} bytes).", remedy) from error
    if not model.graph.output or not model.graph.input or not model.opset_import:
        raise RefusedFile(f"{path} holds no complete ONNX model ({len(raw)} bytes).", remedy)
    if opset(model) < OLDEST_OPSET:
        raise RefusedFile(
            f"{path} has operator set {opset(model)}; {OLDEST_OPSET} is the oldest supported.",
            "Export it again, or raise it with onnx.version_converter.",
        )
    _load_external(model, path)
    return model


def opset(model: ModelProto) -> int:
    """The version of ONNX's own operators."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def type_name(number: int) -> str:
    """The name of an element type, "INT64" say."""
    from onnx import TensorProto

    return {n: name for name, n in TensorProto.DataType.items()}.get(number, "unknown")


def array(tensor: TensorProto) -> np.ndarray:
    """A tensor of the file as a writable array."""
    from onnx import numpy_helper

    try:
        return np.array(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError) as error:
        raise RefusedFile(
            f"the tensor {tensor.name!r} is damaged: {str(error).splitlines()[0]}.", "Export the file again."
        ) from error


def _load_external(model: ModelProto, path: Path) -> None:
    """Reads tensors kept beside the model; anything that leads out of the model's folder is refused."""
    from onnx import TensorProto

    folder = path.resolve().parent
    for tensor in _tensors(model.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {e.key: e.value for e in tensor.external_data}
        target = Path(os.path.realpath(folder / entries.get("location", "")))
        if not target.is_relative_to(folder) or not entries.get("location"):
            raise RefusedFile(
                f"{path}: the tensor {tensor.name!r} refers to {entries.get('location')!r}, outside the folder.",
                "Put model and data into one folder, or export with the weights inside the file.",
            )
        if not target.is_file():
            raise RefusedFile(
                f"{path}: the data file {entries['location']!r} is missing.", "Copy it into the model's folder."
            )
        offset = int(entries.get("offset", 0))
        length = int(entries["length"]) if "length" in entries else target.stat().st_size - offset
        if offset < 0 or length < 0 or offset + length > target.stat().st_size:
            raise RefusedFile(f"{path}: the data file {entries['location']!r} is too short.", "Copy it again.")
        with target.open("rb") as data:
            data.seek(offset)
            tensor.raw_data = data.read(length)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    from onnx import AttributeProto

    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
