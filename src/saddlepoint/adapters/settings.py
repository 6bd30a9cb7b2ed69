"""What an object holds, as JSON of a digest: the settings of a module that are neither weights nor in its text.

Two objects that may compute different things must not have one description, and one object must have the same
description in every process: values are told by content (arrays and tensors by their bytes, functions by their
code), never by address, and sets and dictionaries in an order of their own. What is none of these is told by the
name of its type only.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saddlepoint.core.digests import canonical_json, digest, digest_tensors

_PLAIN = (bool, int, float, complex, str, np.generic, torch.dtype, range, slice, type(None), type(Ellipsis))


def described(value: Any, special: Callable[[Any], Any | None], above: tuple[int, ...] = ()) -> Any:
    """JSON of a value. `special` may describe it instead (None: it has nothing to say).

    `above` holds the ids of the containers around it, so that a cycle ends; ids are never part of the answer.
    """
    if id(value) in above:
        return ["cycle", len(above) - above.index(id(value))]
    known = special(value)
    if known is not None:
        return known
    inner = functools.partial(described, special=special, above=(*above, id(value)))
    name = _named(type(value))
    if isinstance(value, enum.Enum):  # before the numbers: an IntEnum is both
        return [name, value.name, inner(value.value)]
    if isinstance(value, _PLAIN):
        return [name, repr(value)]
    if isinstance(value, (bytes, bytearray)):
        return [name, digest(bytes(value))]
    if isinstance(value, Tensor):
        return [name, _tensor(value)]
    if isinstance(value, np.ndarray):
        held = [inner(v) for v in value.ravel()] if value.dtype.hasobject else digest(value.tobytes())
        return [name, str(value.dtype), list(value.shape), held]
    if isinstance(value, (list, tuple)):
        return [name, [inner(v) for v in value]]
    if isinstance(value, (set, frozenset)):
        return [name, sorted((inner(v) for v in value), key=canonical_json)]
    if isinstance(value, (dict, types.MappingProxyType)):
        return [name, sorted(([inner(k), inner(v)] for k, v in value.items()), key=canonical_json)]
    if isinstance(value, type):
        return [name, _named(value)]
    if dataclasses.is_dataclass(value):
        return [name, [[f.name, inner(getattr(value, f.name, None))] for f in dataclasses.fields(value)]]
    return [name, _called(value, inner)]


def _called(value: Any, inner: Callable[[Any], Any]) -> Any:
    """Functions, methods and partial calls; [] for everything else, which is told by its type alone."""
    if isinstance(value, types.FunctionType):
        cells = [_content(cell) for cell in value.__closure__ or ()]
        around = [cells, value.__defaults__, value.__kwdefaults__]
        return [_named(value), _code(value.__code__, inner), inner(around)]
    if isinstance(value, types.CodeType):
        return _code(value, inner)
    if isinstance(value, types.MethodType):
        return [inner(value.__func__), inner(value.__self__)]
    if isinstance(value, functools.partial):
        return [inner(value.func), inner(value.args), inner(value.keywords)]
    if isinstance(value, types.BuiltinFunctionType):
        return [_named(value)]
    return []


def _code(code: types.CodeType, inner: Callable[[Any], Any]) -> Any:
    # co_code refers to names and constants by number, so these belong to it; files and lines do not
    return [digest(code.co_code), list(code.co_names), list(code.co_freevars), inner(code.co_consts)]


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return ()


def _tensor(value: Tensor) -> Any:
    plain = value.detach()
    if plain.is_meta or type(plain) is not Tensor:  # no bytes at hand (e.g. the fake tensors of an exported program)
        return [str(value.dtype), [str(n) for n in value.shape]]
    if plain.is_quantized:
        plain = plain.dequantize()
    if plain.layout is not torch.strided:
        plain = plain.to_dense()
    return digest_tensors({"": plain.resolve_conj().resolve_neg()})


def _named(thing: Any) -> str:
    return f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', type(thing).__name__)}"
