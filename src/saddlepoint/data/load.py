"""`load(spec)`: the DATA argument of the command line."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from saddlepoint.core.errors import DataError, RefusedFile
from saddlepoint.data.digits import load_digits
from saddlepoint.data.folder import load_folder
from saddlepoint.data.idx import holds_idx, is_idx, load_idx, load_idx_folder
from saddlepoint.data.npz import load_npz
from saddlepoint.data.openml import is_openml, load_openml
from saddlepoint.data.samples import Samples

_FORMS = "DATA is digits[:train|:test], FILE.npz[:PART], a folder of images by class, an IDX file, or an OpenML name."

_PICKLES = (".pkl", ".pickle", ".joblib")
_FILES = (".npy", ".csv", ".tsv", ".parquet", ".zip", ".gz", ".h5", ".mat", ".txt", ".json")


def load(spec: str, *, dtype: torch.dtype = torch.float32) -> Samples:
    """Data named by `spec`.

    `digits`, `digits:train`, `digits:test`; `f.npz` with x, y or `f.npz:test` with x_test, y_test; a folder
    of images by class; an IDX file of images, or a folder of them with `:train` or `:test`; an OpenML name.
    Raises DataError (what is wrong with the data) or RefusedFile (pickles).
    """
    base, part = _split(spec)
    if base == "digits":
        return load_digits(part, spec, dtype)
    path = Path(base)
    if path.suffix.lower() == ".npz":
        return load_npz(path, part, spec, dtype)
    if path.suffix.lower() in _PICKLES:
        raise RefusedFile(f"{spec} is a pickle: reading it runs whatever code it holds.", "Save it with numpy.savez.")
    if path.is_dir():
        return load_idx_folder(path, part, spec, dtype) if holds_idx(path) else load_folder(path, spec, dtype)
    if is_idx(path):
        return load_idx(path, spec, dtype)
    if path.exists() or "/" in base or path.suffix.lower() in _FILES or not is_openml(spec):
        raise DataError(f"{spec!r} names no data" + (" that can be read." if path.exists() else "."), _FORMS)
    return load_openml(spec, dtype)


def _split(spec: str) -> tuple[str, str | None]:
    """ "f.npz:test" -> ("f.npz", "test"); a drive letter or a path after the colon is no part."""
    found = re.fullmatch(r"(.{2,}):(\w+)", spec)
    if found and not Path(spec).exists():
        return found[1], found[2]
    return spec, None
