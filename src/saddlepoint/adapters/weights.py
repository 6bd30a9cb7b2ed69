"""Weights files: `.safetensors`, and `.pt`/`.pth` read with `weights_only=True`. Nothing is unpickled freely.

A file written by `save_weights` carries in its metadata what is needed to use it: arch, shape, classes,
domain, mean, std (JSON each).
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from saddlepoint.adapters.architectures import build, canonical_shape, names
from saddlepoint.adapters.imports import import_object, is_import_path
from saddlepoint.adapters.options import LoadOptions, quiet
from saddlepoint.adapters.torch_module import Ways, adapt
from saddlepoint.core.errors import InputError, RefusedFile
from saddlepoint.spec import Model

_KEYS = ("arch", "shape", "classes", "domain", "mean", "std")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_SHAPES = ((1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 224, 224))


@dataclass(frozen=True)
class WeightsFile:
    """Tensors by name, and the metadata the file carries."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def save_weights(path: str | Path, module: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Writes a state dict as `.safetensors` with metadata (keys arch, shape, classes, domain, mean, std).

    Each value is stored as JSON. Raises InputError for an unknown key. The write is atomic: a reader
    sees the old file or the new one.
    """
    unknown = sorted(set(metadata) - set(_KEYS) - {k for k in metadata if k.startswith("x-")})
    if unknown:
        raise InputError(
            f"Metadata key {unknown[0]!r} is unknown.", f"Use {', '.join(_KEYS)}, or x-… for notes of your own."
        )
    target = Path(path)
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}
    temporary = target.with_name(target.name + ".part")
    # by way of bytes: the library's own file could be read by its owner only
    temporary.write_bytes(save(tensors, {k: json.dumps(v) for k, v in metadata.items() if v is not None}))
    temporary.replace(target)


def read_weights(path: Path) -> WeightsFile:
    """Tensors and metadata of a weights file. Raises RefusedFile for pickles and damaged files."""
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    return WeightsFile(_tensors(_read_torch(path), path), {})


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safe_open(path, framework="pt") as file:
            raw = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118  # it is no dictionary
    except SafetensorError as error:
        raise RefusedFile(
            f"{path} is no readable safetensors file ({error}).", "It is truncated or damaged: copy it again."
        ) from error
    metadata: dict[str, Any] = {}
    for key, text in raw.items():
        if key in _KEYS or key.startswith("x-"):
            try:
                metadata[key] = json.loads(text)
            except json.JSONDecodeError as error:
                raise RefusedFile(f"Metadata {key!r} of {path} is no JSON.", "Write it with save_weights.") from error
    return WeightsFile(tensors, metadata)


def _read_torch(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(8)
    if head[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                inside = archive.namelist()
        except zipfile.BadZipFile as error:
            raise _truncated(path, error) from error
        if any("/code/" in n for n in inside):
            raise RefusedFile(
                f"{path} is a TorchScript archive, a program rather than weights.",
                "Export it with torch.export.save (.pt2), or save model.state_dict().",
            )
    elif not head.startswith((b"\x80", b"PK")):
        raise _truncated(path, "no torch.save header")
    try:
        with quiet():
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RefusedFile(
            f"{path} holds more than weights; reading it would unpickle code.",
            "Save torch.save(model.state_dict(), FILE) or safetensors, and give --arch.",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _truncated(path, error) from error


def _truncated(path: Path, error: object) -> RefusedFile:
    return RefusedFile(
        f"{path} cannot be read as a weights file ({error}).", "It is truncated or damaged: copy it again."
    )


def _tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise RefusedFile(
            f"{path} holds no state dict (names to tensors), but {type(loaded).__name__}.",
            "Save torch.save(model.state_dict(), FILE).",
        )
    if all(k.startswith("module.") for k in loaded):  # saved from DataParallel
        return {k.removeprefix("module."): v for k, v in loaded.items()}
    return dict(loaded)


def load_weights(path: Path, options: LoadOptions, name: str) -> Model:
    """A model from a weights file; options given win over the file's metadata.

    Raises InputError where architecture or domain are neither given nor carried, or do not fit.
    """
    file = read_weights(path)
    carried = file.metadata
    arch = options.arch or carried.get("arch")
    if arch is None:
        raise InputError(
            f"{path} holds weights only; which network do they belong to?",
            f"Give --arch: {', '.join(names())}, mlp:64-64, or package.module:factory.",
        )
    classes = options.classes or carried.get("classes")
    with torch.random.fork_rng(devices=[]):  # building draws weights that are thrown away at once
        module, shape = _built(arch, (options.shape, _tuple(carried.get("shape"))), classes, file.tensors, path)
    module.to(options.device).eval()
    ways = Ways(
        options.mean if options.mean is not None else carried.get("mean"),
        options.std if options.std is not None else carried.get("std"),
        shape,
        name,
        outputs=options.outputs,
        classes=classes,
    )
    return adapt(module, options.domain if options.domain is not None else _tuple(carried.get("domain")), ways)


def _tuple(value: Sequence[Any] | None) -> Any:
    return None if value is None else tuple(tuple(v) if isinstance(v, list) else v for v in value)


def _built(
    arch: str,
    shapes: tuple[tuple[int, ...] | None, tuple[int, ...] | None],
    classes: int | None,
    tensors: dict[str, Tensor],
    path: Path,
) -> tuple[nn.Module, tuple[int, ...] | None]:
    """The network with these weights, and its input shape where it is known.

    `shapes` are the one the caller hints at (the data's, say) and the one the file carries, which wins.
    Others are tried as well: the weights tell which one they were trained for.
    """
    hinted, carried = shapes
    if is_import_path(arch):
        module = import_object(arch)
        module = module() if not isinstance(module, nn.Module) else module
        if not isinstance(module, nn.Module):
            raise InputError(f"{arch} gives {type(module).__name__}, not an nn.Module.", "Return the network.")
        _fill(module, tensors, arch, path)
        return module, carried or hinted
    usual, _ = canonical_shape(arch)
    classes = classes or _last_width(tensors)
    known = [s for s in (carried, hinted, usual) if s is not None]
    for candidate in dict.fromkeys([*known, *_SHAPES, *_features(tensors)]):
        try:
            module = build(arch, candidate, classes)
        except InputError:  # a shape this architecture cannot take
            continue
        if _fits(module, tensors):
            _fill(module, tensors, arch, path)
            return module, candidate
    module = build(arch, known[0], classes)
    _fill(module, tensors, arch, path)  # says what does not fit
    return module, known[0]


def _features(tensors: dict[str, Tensor]) -> list[tuple[int, ...]]:
    first = next((t for t in tensors.values() if t.dim() == 2), None)
    return [] if first is None else [(int(first.shape[1]),)]


def _last_width(tensors: dict[str, Tensor]) -> int | None:
    last = [t for t in tensors.values() if t.dim() >= 2]
    return int(last[-1].shape[0]) if last else None


def _fits(module: nn.Module, tensors: dict[str, Tensor]) -> bool:
    own = module.state_dict()
    return set(own) >= set(tensors) and all(own[k].shape == t.shape for k, t in tensors.items())


def _fill(module: nn.Module, tensors: dict[str, Tensor], arch: str, path: Path) -> None:
    own = module.state_dict()
    missing = sorted(k for k in set(own) - set(tensors) if not k.endswith("num_batches_tracked"))
    extra = sorted(set(tensors) - set(own))
    wrong = [k for k, t in tensors.items() if k in own and own[k].shape != t.shape]
    if missing or extra or wrong:
        parts = [f"missing {missing[:3]}"] if missing else []
        parts += [f"unexpected {extra[:3]}"] if extra else []
        parts += [f"{k} is {tuple(tensors[k].shape)}, the network has {tuple(own[k].shape)}" for k in wrong[:2]]
        raise InputError(
            f"The weights of {path} do not fit {arch}: {'; '.join(parts)}.",
            "Give the architecture they were trained with (--arch), or --shape where only sizes differ.",
        )
    module.load_state_dict(tensors, strict=False)  # the lists above are empty: only BN counters may be missing
