"""`.npz` archives, row by row.

Members stored without compression are read in place; compressed ones (deflate, bzip2, LZMA) are unpacked
once, in chunks, into a temporary file. Nothing is ever unpickled (object arrays are refused).
"""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy

from saddlepoint.core.errors import DataError, NoSuchPart
from saddlepoint.data.assemble import Description, assemble
from saddlepoint.data.rows import ArrayRows, FileRows, Rows, Source, TemporaryRows, spill
from saddlepoint.data.samples import Samples

_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)
_AGAIN = "The file is truncated or damaged: copy or download it again."


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    length: int
    """Bytes before the values."""


def load_npz(path: Path, part: str | None, spec: str, dtype: torch.dtype = torch.float32) -> Samples:
    """x, y of an archive, or x_PART, y_PART. Raises DataError with the members that are there."""
    x_name, y_name = ("x", "y") if part is None else (f"x_{part}", f"y_{part}")
    if not path.is_file():
        raise DataError(f"There is no file {path}.", "Check the path.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [n.removesuffix(".npy") for n in archive.namelist()]
    except _DAMAGED as error:
        raise DataError(f"{path} is no readable .npz archive ({error}).", _AGAIN) from error
    for name in (x_name, y_name):
        if name not in members:
            kind = DataError if x_name in members or y_name in members else NoSuchPart
            raise kind(f"{path} has no member {name!r}, only {', '.join(members)}.", _parts(members))
    labels = member_rows(path, y_name)
    y = labels.read(np.arange(labels.count))
    return assemble(member_rows(path, x_name), y, Description(spec, dtype=dtype))


def _parts(members: list[str]) -> str:
    parts = sorted(n[2:] for n in members if n.startswith("x_") and f"y_{n[2:]}" in members)
    if parts:
        return "Say which part: " + " or ".join(f"FILE.npz:{p}" for p in parts) + "."
    return "Save it with numpy.savez(FILE, x=…, y=…)."


def member_rows(path: Path, name: str) -> Rows:
    """Rows of one member. Raises DataError for damaged members, scalars and object arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(name + ".npy" if name + ".npy" in archive.namelist() else name)
            with archive.open(info) as member:
                header = _read_header(member, f"{path}:{name}")
                if header.fortran:
                    return _column_major(member, header)
                if info.compress_type != zipfile.ZIP_STORED:
                    return _unpacked(member, header, f"{path}:{name}")
            offset = _data_offset(path, info) + header.length
        _check_size(info.file_size - header.length, header, f"{path}:{name}")
        return FileRows(path, offset, header.shape[0], header.shape[1:], header.dtype)
    except DataError:
        raise
    except _DAMAGED as error:
        raise DataError(f"{path}: member {name!r} cannot be read ({error}).", _AGAIN) from error


def _read_header(member: Source, name: str) -> _Header:
    version = npy.read_magic(member)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(member)
    elif version == (2, 0):
        shape, fortran, dtype = npy.read_array_header_2_0(member)
    else:
        raise DataError(f"{name} is an .npy of version {version}.", "Save it again with a current NumPy.")
    if dtype.hasobject:
        raise DataError(
            f"{name} is an array of Python objects, which only unpickling could read.",
            "Unpickling runs code. Save numbers: array.astype('float32') or equal-sized images.",
        )
    if not shape:
        raise DataError(f"{name} is a single number.", "Give one row per sample.")
    return _Header(shape, fortran and len(shape) > 1, dtype, member.tell())


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    # a local header is 30 bytes, then name and extra field; its lengths stand at 26 and 28 (APPNOTE 4.3.7)
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return info.header_offset + 30 + name + extra


def _check_size(size: int, header: _Header, name: str) -> None:
    wanted = int(np.prod(header.shape, dtype=np.int64)) * header.dtype.itemsize
    if size < wanted:
        raise DataError(f"{name} holds {size} bytes of values, its header says {wanted}.", _AGAIN)


def _unpacked(member: Source, header: _Header, name: str) -> Rows:
    path = spill(member)
    rows = TemporaryRows(path, 0, header.shape[0], header.shape[1:], header.dtype)
    _check_size(path.stat().st_size, header, name)
    return rows


def _column_major(member: Source, header: _Header) -> Rows:
    # rows of a column-major array are scattered over the file: rare (saved transposes), read whole
    values = np.frombuffer(member.read(), header.dtype)
    wanted = int(np.prod(header.shape, dtype=np.int64))
    if len(values) < wanted:
        raise DataError(f"Member holds {len(values)} values, its header says {wanted}.", _AGAIN)
    return ArrayRows(np.ascontiguousarray(values[:wanted].reshape(header.shape, order="F")))
