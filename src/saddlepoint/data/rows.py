"""Where rows are read from: an array in memory, a stretch of a file, images.

Files are read with plain reads, never mapped: a mapped file's touched pages count as the process's
memory, and memory must not grow with the number of samples.
"""

from __future__ import annotations

import tempfile
import weakref
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from saddlepoint.core.errors import DataError


@runtime_checkable
class Source(Protocol):
    """A stream of bytes, as zipfile and gzip open them."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; empty at the end."""
        ...

    def tell(self) -> int:
        """Bytes read so far."""
        ...


class Rows(ABC):
    """n rows of one raw shape and NumPy type, read by position."""

    shape: tuple[int, ...]
    dtype: np.dtype
    count: int

    @abstractmethod
    def read(self, at: np.ndarray) -> np.ndarray:
        """Rows at these positions, (len(at), *shape), in raw units; a fresh array."""

    def content_digest(self) -> str | None:
        """A digest of the content where there is a cheaper one than reading every row."""
        return None

    def close(self) -> None:  # noqa: B027  # most rows own nothing
        """Gives back what the rows own."""


class ArrayRows(Rows):
    """Rows of an array in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.shape = array.shape[1:]
        self.dtype = array.dtype
        self.count = len(array)

    def read(self, at: np.ndarray) -> np.ndarray:
        """Copies the rows (an index array copies)."""
        return self._array[at].astype(self.dtype.newbyteorder("="), copy=False)


class FileRows(Rows):
    """Rows that lie one after another in a file from `offset` on; the file is opened for each read."""

    def __init__(self, path: Path, offset: int, count: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._path = path
        self._offset = offset
        self.count = count
        self.shape = shape
        self.dtype = dtype

    def read(self, at: np.ndarray) -> np.ndarray:
        """Reads runs of neighbouring rows in one go; native byte order."""
        items = int(np.prod(self.shape, dtype=np.int64))
        out = np.empty((len(at), items), self.dtype)
        breaks = np.flatnonzero(np.diff(at) != 1) + 1
        with self._path.open("rb") as file:
            for run in np.split(np.arange(len(at)), breaks):
                if len(run) == 0:
                    continue
                file.seek(self._offset + int(at[run[0]]) * items * self.dtype.itemsize)
                values = np.fromfile(file, self.dtype, len(run) * items)
                if len(values) < len(run) * items:
                    raise DataError(
                        f"{self._path} ends before row {int(at[run[-1]])} of {self.count}.",
                        "The file is truncated: copy or download it again.",
                    )
                out[run] = values.reshape(len(run), items)
        return out.reshape(len(at), *self.shape).astype(self.dtype.newbyteorder("="), copy=False)


class TemporaryRows(FileRows):
    """`FileRows` on a temporary file that disappears with this object (or at the end of the process)."""

    def __init__(self, path: Path, offset: int, count: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        super().__init__(path, offset, count, shape, dtype)
        self._finalizer = weakref.finalize(self, path.unlink, missing_ok=True)

    def close(self) -> None:
        """Deletes the temporary file now."""
        self._finalizer()


def spill(source: Source, chunk: int = 1 << 20) -> Path:
    """Copies a stream into a temporary file, a chunk at a time. The caller owns the file."""
    with tempfile.NamedTemporaryFile(prefix="saddlepoint-", suffix=".rows", delete=False) as out:
        path = Path(out.name)
        try:
            while block := source.read(chunk):
                out.write(block)
        except BaseException:
            out.close()
            path.unlink(missing_ok=True)
            raise
    return path
