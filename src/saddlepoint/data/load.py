"""`load(spec)`: the DATA argument of the command line."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from saddlepoint.core.errors import DataError
from saddlepoint.data.digits import load_digits
from saddlepoint.data.npz import load_npz
from saddlepoint.data.samples import Samples

_FORMS = "DATA is digits[:train|:test], FILE.npz[:PART], a folder of images by class, an IDX file, or an OpenML name."


def load(spec: str, *, dtype: torch.dtype = torch.float32) -> Samples:
    """Data named by `spec`.

    `digits`, `digits:train`, `digits:test`; `f.npz` with x, y or `f.npz:test` with x_test, y_test.
    Raises DataError (what is wrong with the data) or RefusedFile (pickles).
    """
    base, part = _split(spec)
    if base == "digits":
        return load_digits(part, spec, dtype)
    if base.lower().endswith(".npz"):
        return load_npz(Path(base), part, spec, dtype)
    raise DataError(f"{spec!r} names no data.", _FORMS)


def _split(spec: str) -> tuple[str, str | None]:
    """ "f.npz:test" -> ("f.npz", "test"); a drive letter or a path after the colon is no part."""
    found = re.fullmatch(r"(.{2,}):(\w+)", spec)
    if found and not Path(spec).exists():
        return found[1], found[2]
    return spec, None
