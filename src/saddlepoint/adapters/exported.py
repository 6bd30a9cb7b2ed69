"""`.pt2` files: programs written by torch.export.save. Only those that load without unpickling code.

torch.export.load falls back to free unpickling for some members, and evaluates symbolic expressions of the
program as Python text; both are looked at first, and anything beyond plain weights, plain tensors and size
arithmetic is refused.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from saddlepoint.adapters.options import LoadOptions, as_box, quiet
from saddlepoint.adapters.snapshot import Deployed, floating_type, frozen, normaliser
from saddlepoint.adapters.torch_module import Ways, finish
from saddlepoint.core.digests import digest
from saddlepoint.core.errors import InputError, RefusedFile, UnsupportedModel
from saddlepoint.graph.capture import graph_of
from saddlepoint.spec import Model

_KNOWN = re.compile(
    r"[^/]+/(data/weights/(weight_\d+|\w+_config\.json)|data/constants/(tensor_\d+|\w+_config\.json)"
    r"|models/\w+\.json|data/sample_inputs/\w+\.pt|archive_format|archive_version|\.data/\w+|byteorder|version)"
)
_WORDS = re.compile(r"[A-Za-z_]\w*")
_NAME = re.compile(r"'[A-Za-z]\w*'")  # of a symbol, in quotes
_SIZES = re.compile(
    r"[su]\d+|Symbol|Integer|positive|nonnegative|integer|True|False|Add|Mul|Pow|Mod|PythonMod|FloorDiv|CleanDiv|CeilToInt|TruncToInt|Max|Min|Eq|Ne|Lt|Le|Gt|Ge|oo|int_oo"
)
_CHARACTERS = re.compile(r"[\w\s+*/().,<>=-]*")


def load_pt2(path: Path, options: LoadOptions, name: str) -> Model:
    """A model from an exported program. Raises RefusedFile, UnsupportedModel, InputError."""
    box = as_box(options.domain, name)
    program = read_program(path)
    net = frozen(ExportedNet(program))
    shape = _input_shape(program)
    normalise = normaliser(options.mean, options.std, shape, floating_type(net))
    module = Deployed(net, normalise).to(options.device)
    ways = Ways(outputs=options.outputs, classes=options.classes)
    try:
        ways = replace(ways, graph=graph_of(program).to(options.device))
        notes = []
    except InputError as error:
        notes = [f"the exported graph cannot be used for certificates: {error}"]
    return finish(module, box, shape, name, ways, notes)


def read_program(path: Path) -> ExportedProgram:
    """The program of a `.pt2` file, after it was looked through for anything that could run code."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (bad := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"member {bad} is damaged")
            _look_through(archive, path)
        with quiet():
            return torch.export.load(path)
    except RefusedFile:
        raise
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise RefusedFile(
            f"{path} is no readable .pt2 file ({error}).", "It is truncated or damaged: copy it again."
        ) from error
    except Exception as error:  # torch's deserialiser raises a dozen unrelated types
        raise RefusedFile(
            f"{path} cannot be loaded by this torch ({type(error).__name__}: {error}).",
            "Export it again with torch.export.save of the installed version.",
        ) from error


def _look_through(archive: zipfile.ZipFile, path: Path) -> None:
    for member in archive.namelist():
        if _KNOWN.fullmatch(member) is None:
            raise _refused(path, f"member {member} is not plain weights or a program")
        if member.endswith("_config.json"):
            if any(entry.get("use_pickle") for entry in _entries(json.loads(archive.read(member)))):
                raise _refused(path, f"{member} asks for unpickling")
        elif "/models/" in member:
            for text in _expressions(json.loads(archive.read(member))):
                text = _NAME.sub("", text)
                words = _WORDS.findall(text)
                if not _CHARACTERS.fullmatch(text) or not all(_SIZES.fullmatch(w) for w in words):
                    raise _refused(path, f"the size expression {text!r} is more than arithmetic")
        elif member.endswith(".pt"):
            try:
                with quiet():
                    torch.load(io.BytesIO(archive.read(member)), weights_only=True)
            except Exception as error:  # whatever it is, it is not a plain tensor
                raise _refused(path, f"{member} holds more than tensors") from error


def _refused(path: Path, why: str) -> RefusedFile:
    return RefusedFile(
        f"{path}: {why}; loading it could run code.",
        "Export the plain network with torch.export.save, or give weights.",
    )


def _entries(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object inside."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def _expressions(value: Any) -> Iterator[str]:
    """Texts that the deserialiser evaluates: expr_str of symbolic sizes, and keys of range constraints."""
    for entry in _entries(value):
        if isinstance(entry.get("expr_str"), str):
            yield entry["expr_str"]
        if isinstance(entry.get("range_constraints"), dict):
            yield from entry["range_constraints"]


def _input_value(program: ExportedProgram) -> Any:
    """The placeholder's fake tensor; its batch axis is an int or a symbol."""
    inputs = [str(name) for name in program.graph_signature.user_inputs]
    if len(inputs) != 1:
        raise UnsupportedModel(
            f"The exported program takes {len(inputs)} inputs.", "A classifier takes one batch of inputs."
        )
    return next(n.meta["val"] for n in program.graph.nodes if n.name == inputs[0])


def _input_shape(program: ExportedProgram) -> tuple[int, ...]:
    shape = tuple(_input_value(program).shape[1:])
    if not all(isinstance(n, int) for n in shape):
        raise UnsupportedModel(f"The exported input has shape {shape}.", "Export with only the batch axis dynamic.")
    return tuple(int(n) for n in shape)


def limits_of(program: ExportedProgram, size: Any) -> Any:
    """The range a symbolic size was exported for, or None."""
    return program.range_constraints.get(size.node.expr)


class ExportedNet(nn.Module):
    """An exported program that takes any batch: fixed batches are filled up with repetitions and cut again."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        with quiet():
            self.inner = program.module()
        self.code = digest(program.graph_module.code)  # two programs may share their weights
        size: Any = _input_value(program).shape[0]
        self.fixed = size if isinstance(size, int) else None
        limits = None if self.fixed is not None else limits_of(program, size)
        self.least = 1 if limits is None else max(1, int(limits.lower))

    def forward(self, x: Tensor) -> Tensor:
        """(b, *shape) for any b ≥ 1."""
        if self.fixed is not None:
            parts = [self._filled(part, self.fixed) for part in x.split(self.fixed)]
            return torch.cat(parts)
        return self._filled(x, self.least)

    def _filled(self, x: Tensor, size: int) -> Tensor:
        missing = size - len(x)
        if missing <= 0:
            return self.inner(x)
        return self.inner(torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]))[: len(x)]
