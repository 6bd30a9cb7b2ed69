"""Data sets by OpenML name, through scikit-learn's fetcher, kept in its local cache."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from sklearn.datasets import fetch_openml

from saddlepoint.core.errors import DataError
from saddlepoint.data.assemble import Description, assemble
from saddlepoint.data.rows import ArrayRows
from saddlepoint.data.samples import Samples

_NAME = re.compile(r"(?:openml:)?([A-Za-z0-9_][\w.()+-]*?)(?:@(\d+))?")


def is_openml(spec: str) -> bool:
    """Whether the text could be an OpenML name, optionally with @VERSION."""
    return _NAME.fullmatch(spec) is not None


def load_openml(spec: str, dtype: torch.dtype = torch.float32) -> Samples:
    """`mnist_784`, `openml:mnist_784@1`: fetched once (network), then read from scikit-learn's cache.

    Raises DataError where there is no such data set, no network, or no numeric table.
    """
    found = _NAME.fullmatch(spec)
    if found is None:
        raise DataError(f"{spec!r} is no OpenML name.", "Write NAME or NAME@VERSION.")
    version: Any = int(found[2]) if found[2] else "active"
    try:
        bunch: Any = fetch_openml(found[1], version=version, as_frame=False)
    except Exception as error:  # network, parsing and unknown names fail in as many ways
        raise DataError(
            f"{spec!r} is no file here, and OpenML did not give a data set of that name ({error}).",
            "Check the spelling or the network. Local data: FILE.npz, a folder of images by class, IDX files.",
        ) from error
    return from_bunch(bunch.data, bunch.target, spec, dtype)


def from_bunch(x: Any, target: Any, spec: str, dtype: torch.dtype = torch.float32) -> Samples:
    """Numeric rows and a categorical target as samples; classes in the order of their sorted names."""
    if hasattr(x, "toarray"):
        raise DataError(f"{spec} is a sparse table.", "Save the columns you need as a dense FILE.npz.")
    values = np.asarray(x)
    if values.dtype.kind not in "biuf":
        raise DataError(f"{spec} has columns that are no numbers.", "Encode them and save FILE.npz with x, y.")
    names, labels = np.unique(np.asarray(target).astype(str), return_inverse=True)
    if len(names) > max(100, len(labels) // 10):
        raise DataError(f"The target of {spec} takes {len(names)} values.", "Regression targets cannot be evaluated.")
    about = Description(spec, None, len(names), tuple(str(n) for n in names), dtype)
    return assemble(ArrayRows(values), labels, about)
