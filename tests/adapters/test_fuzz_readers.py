"""Damaged networks and properties: whatever a file says, a reader gives a result or an error with a name."""

from __future__ import annotations

import gzip
import random
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from families import instances, smallest
from saddlepoint.adapters.vnnlib import parse
from saddlepoint.core.errors import SaddlepointError
from saddlepoint.graph.onnx_reader import read_onnx

FAMILIES = sorted(instances())
WHOLE = 150.0  # seconds each, in the nightly run
NUMBERS = (-(2**63), -(2**31), -7, -3, -2, -1, 0, 1, 2, 3, 5, 17, 255, 1000, 2**20, 2**31 - 1, 2**31, 2**62)
TEXTS = (
    "X_0",
    "Y_0",
    "X_99999999999",
    "Y_-1",
    "(",
    ")",
    "((((",
    "and",
    "or",
    "assert",
    "<=",
    ">=",
    "<",
    "==",
    "not",
    "*",
)
TEXTS += (
    "1e400",
    "-1e400",
    "nan",
    "inf",
    "1e-400",
    "0x10",
    "1.2.3",
    "é",
    "\x00",
    "; c\n",
    "|x|",
    "declare-const",
    "Real",
)


def fuzz(seconds: float, seed: int, attempt: Callable[[random.Random], object]) -> tuple[int, int]:
    """Attempts and refusals until the time is over. Anything but a SaddlepointError goes through, with its number."""
    begun, count, refused = time.monotonic(), 0, 0
    while time.monotonic() - begun < seconds:
        draw, start = random.Random(f"{seed}/{count}"), time.monotonic()
        try:
            attempt(draw)
        except SaddlepointError:
            refused += 1
        except BaseException as error:
            raise AssertionError(f"attempt {seed}/{count} ended in {type(error).__name__}: {error}") from error
        assert time.monotonic() - start < 30, f"attempt {seed}/{count} took too long"
        count += 1
    return count, refused


def properties() -> list[str]:
    """Short texts: whole ones of the families, cut where a bracket closes."""
    found = []
    for family in FAMILIES:
        path = min((p for _, p in instances()[family]), key=lambda p: p.stat().st_size)
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = data.decode().splitlines(keepends=True)
        found.append("".join(lines if len(lines) < 80 else lines[:20] + lines[-40:]))
    return found


def damaged_text(draw: random.Random, texts: list[str]) -> str:
    """A few tokens replaced, doubled, swapped or lost."""
    tokens = draw.choice(texts).replace("(", " ( ").replace(")", " ) ").split(" ")
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        i, j = draw.randrange(len(tokens)), draw.randrange(len(tokens))
        what = draw.randrange(5)
        if what == 0:
            tokens[i] = draw.choice(TEXTS)
        elif what == 1:
            tokens[i : i + 1] = []
        elif what == 2:
            tokens[i], tokens[j] = tokens[j], tokens[i]
        elif what == 3:
            tokens[i:i] = tokens[j : j + draw.randrange(1, 9)]
        else:
            tokens[i] = str(draw.choice(NUMBERS))
        tokens = tokens or [""]
    return " ".join(tokens)


def damaged_model(draw: random.Random, model: onnx.ModelProto) -> bytes:
    """A few attributes, shapes, names, operators or bytes changed."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        graph = model.graph
        node = draw.choice(graph.node) if graph.node else None
        what = draw.randrange(9)
        if what == 0 and node is not None and node.attribute:
            attribute = draw.choice(node.attribute)
            if attribute.ints:
                attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice(NUMBERS)
            attribute.i, attribute.f = draw.choice(NUMBERS), draw.choice((-1.0, 0.0, 0.5, 1e38, float("nan")))
        elif what == 1 and node is not None and node.input:
            names = [i.name for i in graph.input] + [t.name for t in graph.initializer] + ["", "nothing"]
            names += [o for n in graph.node for o in n.output]
            node.input[draw.randrange(len(node.input))] = draw.choice(names)
        elif what == 2 and node is not None:
            node.op_type = draw.choice([n.op_type for n in graph.node] + OPERATORS)
        elif what == 3 and node is not None:
            graph.node.remove(node)
        elif what == 4 and graph.initializer:
            dims = draw.choice(graph.initializer).dims
            if dims:
                dims[draw.randrange(len(dims))] = draw.choice(NUMBERS)
        elif what == 5 and graph.initializer:
            tensor = draw.choice(graph.initializer)
            tensor.raw_data = tensor.raw_data[: draw.randrange(len(tensor.raw_data) + 1)]
            tensor.data_type = draw.choice((tensor.data_type, 0, 1, 7, 11, 8, 99))
        elif what == 6:
            dim = graph.input[0].type.tensor_type.shape.dim if graph.input else []
            if len(dim):
                dim[draw.randrange(len(dim))].dim_value = draw.choice(NUMBERS)
        elif what == 7 and node is not None:
            (node.input if draw.randrange(2) else node.output).extend([draw.choice(("", "more"))])
        elif model.opset_import:
            model.opset_import[0].version = draw.choice((0, 6, 7, 9, 13, 17, 21, 999))
    data = bytearray(model.SerializeToString())
    if draw.randrange(6) == 0 and data:
        for _ in range(draw.choice((1, 3, 30))):
            data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


OPERATORS = (
    "Add Mul Div Sub MatMul Gemm Relu Sigmoid Softmax Reshape Transpose Flatten Concat Split Slice Gather Squeeze"
)
OPERATORS = (
    f"{OPERATORS} Unsqueeze Pad Conv ConvTranspose MaxPool AveragePool ReduceMean ReduceSum Expand Resize Clip".split()
)
OPERATORS += [
    "ConstantOfShape",
    "Shape",
    "Cast",
    "Where",
    "Pow",
    "Sqrt",
    "Floor",
    "BatchNormalization",
    "NoSuchOperator",
]


def models() -> list[onnx.ModelProto]:
    """The smallest network of every family, where it is small."""
    files = [smallest(family)[0] for family in FAMILIES]
    raw = [gzip.decompress(f.read_bytes()) if f.suffix == ".gz" else f.read_bytes() for f in files]
    return [onnx.load_model_from_string(data) for data in raw if len(data) < 3_000_000]


def fuzz_properties(seconds: float, seed: int) -> None:
    texts = properties()
    count, refused = fuzz(seconds, seed, lambda draw: parse(damaged_text(draw, texts)))
    assert count > 50
    assert 0.2 < refused / count < 0.999  # some damage is harmless


def fuzz_networks(seconds: float, seed: int, path: Path) -> None:
    known = models()

    def attempt(draw: random.Random) -> object:
        path.write_bytes(damaged_model(draw, draw.choice(known)))
        return read_onnx(path)

    count, refused = fuzz(seconds, seed, attempt)
    assert count > 10
    assert 0.2 < refused / count < 0.999


@pytest.mark.parametrize("seconds", [2.0, pytest.param(WHOLE, marks=pytest.mark.slow)])
def test_damaged_properties_are_refused_by_name(seconds):
    fuzz_properties(seconds, int(seconds))


@pytest.mark.parametrize("seconds", [3.0, pytest.param(WHOLE, marks=pytest.mark.slow)])
def test_damaged_networks_are_refused_by_name(seconds, tmp_path):
    fuzz_networks(seconds, int(seconds), tmp_path / "net.onnx")
