"""`Samples`: labelled inputs with stable ids, read batch by batch.

The values stay where they are (a file or an array); `take` reads the rows asked for and converts them:
uint8 becomes /255 in [0, 1], NHWC becomes NCHW, floats stay. So memory does not grow with the number of
samples (the labels, 8 bytes each, are the exception).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, overload, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saddlepoint.core.digests import canonical_json
from saddlepoint.core.errors import DataError
from saddlepoint.data.rows import Rows

Indexes = Sequence[int] | slice | np.ndarray | Tensor


@dataclass(frozen=True)
class Batch:
    """Some samples: inputs in the data's own units, labels, ids."""

    x: Float[Tensor, "b *shape"]
    y: Int64[Tensor, " b"]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


@runtime_checkable
class Data(Protocol):
    """What evaluation asks of data."""

    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def classes(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def digest(self) -> str: ...
    @property
    def spec(self) -> str: ...
    @property
    def class_names(self) -> tuple[str, ...] | None: ...
    def take(self, indexes: Indexes) -> Batch: ...
    def __len__(self) -> int: ...


class RowNumbers(Sequence[str]):
    """The ids "0", "1", …, made when they are asked for."""

    def __init__(self, numbers: range) -> None:
        self._numbers = numbers

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> RowNumbers: ...
    def __getitem__(self, index: int | slice) -> str | RowNumbers:
        if isinstance(index, slice):
            return RowNumbers(self._numbers[index])
        return str(self._numbers[index])

    def __len__(self) -> int:
        return len(self._numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none


@dataclass(frozen=True, eq=False)
class Samples:
    """The house's `Data`: rows of one shape, int64 labels, one id each."""

    rows: Rows
    labels: np.ndarray
    ids: Sequence[str]
    classes: int
    shape: tuple[int, ...]
    spec: str
    class_names: tuple[str, ...] | None = None
    dtype: torch.dtype = torch.float32
    notes: tuple[str, ...] = ()
    convert: Callable[[np.ndarray], np.ndarray] = lambda raw: raw
    """Raw rows (b, *raw shape) to the model's layout (b, *shape); the type's scaling follows it."""

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Samples({self.spec!r}, n={len(self)}, shape={self.shape}, classes={self.classes})"

    def take(self, indexes: Indexes) -> Batch:
        """The samples at these positions (0-based), in the order asked for.

        Raises DataError where a position does not exist or the file ends early.
        """
        at = self._positions(indexes)
        x = self._values(at)
        return Batch(x, torch.from_numpy(self.labels[at]), tuple(self.ids[int(i)] for i in at))

    def batches(self, size: int = 256) -> Iterator[Batch]:
        """All samples in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))

    @property
    def digest(self) -> str:
        """SHA-256 over type, layout, values, labels and ids; one pass over the data, in chunks, made once."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        head = [str(self.rows.dtype), list(self.rows.shape), list(self.shape), self.classes, str(self.dtype)]
        whole = hashlib.sha256(canonical_json(head).encode())
        given = self.rows.content_digest()
        for start in range(0, len(self), 256):
            at = np.arange(start, min(start + 256, len(self)))
            if given is None:
                whole.update(self.rows.read(at).tobytes())
            whole.update(self.labels[at].tobytes())
            whole.update("\n".join(self.ids[int(i)] for i in at).encode() + b"\n")
        whole.update((given or "").encode())
        return whole.hexdigest()

    @cached_property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest value: one pass for floats; uint8 (after /255) lies in [0, 1] by its type."""
        if self.rows.dtype == np.uint8:
            return 0.0, 1.0
        return self.exact_range

    @cached_property
    def exact_range(self) -> tuple[float, float]:
        """Smallest and largest value present; one pass over the data."""
        low, high = np.inf, -np.inf
        for start in range(0, len(self), 256):
            x = self._values(np.arange(start, min(start + 256, len(self))))
            low, high = min(low, float(x.min())), max(high, float(x.max()))
        return low, high

    def close(self) -> None:
        """Deletes temporary files now (they also go with the last reference, and at the end of the process)."""
        self.rows.close()

    def with_shape(self, shape: tuple[int, ...]) -> Samples:
        """The same values presented in another shape with as many entries, e.g. (1, 28, 28) as (784,)."""
        if int(np.prod(shape)) != int(np.prod(self.shape)):
            raise DataError(
                f"Samples of shape {self.shape} cannot be presented as {tuple(shape)}: the sizes differ.",
                "Resize or crop the data first.",
            )
        before = self.convert
        new = tuple(shape)
        return replace(self, shape=new, convert=lambda raw: before(raw).reshape(len(raw), *new))

    def _positions(self, indexes: Indexes) -> np.ndarray:
        if isinstance(indexes, slice):
            return np.arange(len(self))[indexes]
        at = np.asarray(indexes)
        if at.size == 0:
            return np.zeros(0, np.int64)
        if at.ndim != 1 or at.dtype.kind not in "iu":
            raise DataError(
                f"Positions of type {at.dtype} and shape {at.shape} select nothing.",
                "Give a list of integers or a slice.",
            )
        if at.min() < 0 or at.max() >= len(self):
            raise DataError(
                f"Position {int(at.min() if at.min() < 0 else at.max())} is not in 0..{len(self) - 1}.",
                "Ask for positions below len(data).",
            )
        return at.astype(np.int64)

    def _values(self, at: np.ndarray) -> Tensor:
        raw = self.convert(self.rows.read(at))
        x = torch.from_numpy(np.ascontiguousarray(raw))
        return x.to(self.dtype) / 255 if self.rows.dtype == np.uint8 else x.to(self.dtype)
