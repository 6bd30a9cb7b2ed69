"""From raw rows and labels to `Samples`: every rule about layout and every check of the values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saddlepoint.core.errors import DataError
from saddlepoint.data.rows import ArrayRows, Rows
from saddlepoint.data.samples import RowNumbers, Samples


@dataclass(frozen=True)
class Description:
    """What is known about data beside values and labels."""

    spec: str
    ids: Sequence[str] | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    dtype: torch.dtype = torch.float32


def from_arrays(
    x: np.ndarray | Tensor,
    y: np.ndarray | Tensor | Sequence[Any],
    ids: Sequence[str] | None = None,
    *,
    classes: int | None = None,
    dtype: torch.dtype = torch.float32,
    name: str = "arrays",
) -> Samples:
    """Data from arrays in memory: x (n, *shape), integer labels y (n,).

    uint8 becomes /255, NHWC becomes NCHW (last axis 1 or 3, axis 1 not), (n, h, w) becomes (n, 1, h, w),
    floats stay as they are. `dtype=torch.float64` keeps double precision.
    Raises DataError for values or labels no claim can rest on.
    """
    values = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if values.ndim < 2:
        raise DataError(f"x has shape {values.shape}.", "Give one row per sample: (n, features) or images.")
    return assemble(ArrayRows(values), labels, Description(name, ids, classes, None, dtype))


def assemble(rows: Rows, labels: np.ndarray, about: Description) -> Samples:
    """Checks rows and labels and puts them together. Raises DataError."""
    _check_type(rows, about.spec)
    if rows.count == 0:
        raise DataError(f"{about.spec} holds no samples.", "Give at least one labelled sample.")
    y = check_labels(labels, rows.count, about)
    shape, convert = layout(rows.shape)
    if 0 in shape:
        raise DataError(f"{about.spec} has samples of shape {rows.shape}.", "Every axis needs an entry.")
    ids = RowNumbers(range(rows.count)) if about.ids is None else about.ids
    _check_ids(ids, rows.count, about.spec)
    classes = about.classes if about.classes is not None else int(y.max()) + 1
    notes = _check_values(rows, about)
    return Samples(rows, y, ids, classes, shape, about.spec, about.class_names, about.dtype, notes, convert)


def layout(raw: tuple[int, ...]) -> tuple[tuple[int, ...], Callable[[np.ndarray], np.ndarray]]:
    """Shape the model sees, and the conversion of raw rows (b, *raw) to it.

    >>> layout((32, 32, 3))[0], layout((3, 32, 32))[0], layout((28, 28))[0], layout((57,))[0]
    ((3, 32, 32), (3, 32, 32), (1, 28, 28), (57,))
    """
    if len(raw) == 2 and min(raw) > 1:  # greyscale (h, w); a column (784, 1) is no image
        return (1, *raw), lambda a: a[:, None]
    if len(raw) == 3 and raw[-1] in (1, 3) and raw[0] not in (1, 3):
        return (raw[2], raw[0], raw[1]), lambda a: np.moveaxis(a, -1, 1)
    return raw, _unchanged


def _unchanged(raw: np.ndarray) -> np.ndarray:
    return raw


def check_labels(labels: np.ndarray, count: int, about: Description) -> np.ndarray:
    """Labels as int64 (n,), or DataError saying which rule they break."""
    y = np.asarray(labels)
    spec = about.spec
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(
            f"Labels of {spec} have shape {y.shape}.", "Give one integer per sample; one-hot rows: y.argmax(1)."
        )
    if len(y) != count:
        raise DataError(f"{spec} has {count} inputs and {len(y)} labels.", "Give one label per input.")
    if y.dtype.kind not in "biuf":
        raise DataError(f"Labels of {spec} have type {y.dtype}.", "Give integers 0, 1, …, classes - 1.")
    if y.dtype.kind == "f":
        _check_whole(y, spec)
    if y.min() < 0:
        raise DataError(
            f"Label {y.min()} of {spec} (row {int(y.argmin())}) is negative.",
            "Number the classes 0, 1, …; for labels -1/+1 use (y + 1) // 2.",
        )
    y = y.astype(np.int64)
    if about.classes is not None and y.max() >= about.classes:
        raise DataError(
            f"Label {int(y.max())} of {spec} (row {int(y.argmax())}) is outside 0..{about.classes - 1}.",
            "Number the classes from 0, or say how many there are.",
        )
    if (y == y[0]).all():
        raise DataError(
            f"All {count} labels of {spec} are {int(y[0])}: one class only.",
            "Robustness of a classifier needs samples of at least two classes.",
        )
    return y


def _check_whole(y: np.ndarray, spec: str) -> None:
    wrong = ~np.isfinite(y) | (y != np.floor(y))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"Label {y[row]} of {spec} (row {row}) is not an integer.",
            "Classification needs class numbers; regression targets cannot be evaluated here.",
        )


def _check_type(rows: Rows, spec: str) -> None:
    if rows.dtype.kind not in "biuf":
        raise DataError(
            f"Inputs of {spec} have type {rows.dtype}.", "Give numbers: uint8 images or floats; no objects."
        )


def _check_ids(ids: Sequence[str], count: int, spec: str) -> None:
    if len(ids) != count:
        raise DataError(f"{spec} has {count} inputs and {len(ids)} ids.", "Give one id per input.")
    if not isinstance(ids, RowNumbers) and len(set(ids)) != count:
        raise DataError(f"Ids of {spec} repeat.", "Evidence is kept by id: give each sample its own.")


def _check_values(rows: Rows, about: Description) -> tuple[str, ...]:
    """One pass over floats: finite in the type they will be used in."""
    if rows.dtype.kind == "f":
        largest = np.float64(torch.finfo(about.dtype).max)  # a Python float would be rounded to float32
        for start in range(0, rows.count, 256):
            values = rows.read(np.arange(start, min(start + 256, rows.count)))
            wrong = ~(np.abs(values) <= largest)  # also true for NaN
            if wrong.any():
                row, *where = (int(i[0]) for i in np.nonzero(wrong))
                raise DataError(
                    f"{about.spec} holds {values[(row, *where)]} (row {start + row}, entry {tuple(where)}).",
                    "Remove or impute NaN, Inf and overflowing values: no verdict can rest on them.",
                )
    if rows.dtype == np.uint8 and len(rows.shape) == 1 and _largest(rows) <= 1:
        return ("all uint8 values are 0 or 1, and uint8 becomes /255; save bool or float32 to keep 0 and 1",)
    if rows.dtype.kind in "iu" and rows.dtype != np.uint8:
        return (f"{rows.dtype} values are used as they are; only uint8 becomes /255",)
    return ()


def _largest(rows: Rows) -> int:
    return max(int(rows.read(np.arange(i, min(i + 256, rows.count))).max()) for i in range(0, rows.count, 256))
