"""IDX files (LeCun's MNIST format), plain or gzipped; the labels are found beside the images.

Header: two zero bytes, a type code, the number of axes, then each axis as a big-endian 32-bit integer.
Gzipped files are unpacked once, in chunks, into a temporary file.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from saddlepoint.core.errors import DataError, NoSuchPart
from saddlepoint.data.assemble import Description, assemble
from saddlepoint.data.rows import FileRows, Rows, TemporaryRows, spill
from saddlepoint.data.samples import Samples

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_IMAGES = re.compile(r"(.*?)images([-.])idx(\d)(.*)")
_PARTS = {"train": "train-", "test": "t10k-"}
_AGAIN = "The file is truncated or damaged: copy or download it again."


def is_idx(path: Path) -> bool:
    """Whether the name is one of an IDX file of images."""
    return _IMAGES.fullmatch(path.name) is not None


def load_idx(path: Path, spec: str, dtype: torch.dtype = torch.float32) -> Samples:
    """Images from an IDX file, labels from its pair (images-idx3 becomes labels-idx1; gzipped or not)."""
    rows = idx_rows(path)
    labels = idx_rows(_pair(path))
    return assemble(rows, labels.read(np.arange(labels.count)), Description(spec, dtype=dtype))


def load_idx_folder(folder: Path, part: str | None, spec: str, dtype: torch.dtype = torch.float32) -> Samples:
    """`folder:train` or `folder:test` of a folder with the four files of MNIST or Fashion-MNIST."""
    found = sorted(p for p in folder.iterdir() if is_idx(p))
    if part is not None:
        found = [p for p in found if p.name.startswith(_PARTS.get(part, part))]
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        kind = DataError if found or part is None else NoSuchPart
        raise kind(
            f"{folder} holds {len(found)} IDX files of images to choose from ({names}).",
            "Name the file, or write FOLDER:train or FOLDER:test.",
        )
    return load_idx(found[0], spec, dtype)


def holds_idx(folder: Path) -> bool:
    """Whether a folder holds IDX files of images."""
    return any(is_idx(p) for p in folder.iterdir())


def _pair(path: Path) -> Path:
    start, dash, _, end = _IMAGES.fullmatch(path.name).groups()  # type: ignore[union-attr]  # asked by is_idx
    name = f"{start}labels{dash}idx1{end}"
    bare = name.removesuffix(".gz")
    for candidate in (name, bare, bare + ".gz"):
        if (path.parent / candidate).is_file():
            return path.parent / candidate
    raise DataError(f"Beside {path} there is no file of labels {name}.", "Put images and labels into one folder.")


def idx_rows(path: Path) -> Rows:
    """Rows of an IDX file. Raises DataError for damaged files."""
    if not path.is_file():
        raise DataError(f"There is no file {path}.", "Check the path.")
    if path.suffix != ".gz":
        with path.open("rb") as file:
            offset, shape, kind = _header(file.read(64), path)
        _check_length(path.stat().st_size - offset, shape, kind, path)
        return FileRows(path, offset, shape[0], shape[1:], kind)
    try:
        with gzip.open(path) as file:
            unpacked = spill(file)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked ({error}).", _AGAIN) from error
    try:
        with unpacked.open("rb") as file:
            offset, shape, kind = _header(file.read(64), path)
        _check_length(unpacked.stat().st_size - offset, shape, kind, path)
    except DataError:
        unpacked.unlink()
        raise
    return TemporaryRows(unpacked, offset, shape[0], shape[1:], kind)


def _header(head: bytes, path: Path) -> tuple[int, tuple[int, ...], np.dtype]:
    if len(head) < 8 or head[:2] != b"\0\0" or head[2] not in _TYPES or not 1 <= head[3] <= 8:
        raise DataError(f"{path} does not begin like an IDX file.", _AGAIN)
    axes = head[3]
    if len(head) < 4 + 4 * axes:
        raise DataError(f"{path} ends within its header.", _AGAIN)
    shape = struct.unpack(f">{axes}I", head[4 : 4 + 4 * axes])
    return 4 + 4 * axes, tuple(shape), np.dtype(_TYPES[head[2]])


def _check_length(there: int, shape: tuple[int, ...], kind: np.dtype, path: Path) -> None:
    wanted = math.prod(shape) * kind.itemsize
    if there < wanted:
        raise DataError(f"{path} holds {there} bytes of values, its header says {wanted}.", _AGAIN)
