"""A folder of images by class: FOLDER/CLASS/…/image.png; classes in the order of their sorted names.

Ids are the paths relative to the folder. Images are decoded when they are asked for, so memory does not
grow with their number; all must have one size.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from saddlepoint.core.errors import DataError
from saddlepoint.core.extras import require
from saddlepoint.data.assemble import Description, assemble
from saddlepoint.data.rows import Rows
from saddlepoint.data.samples import Samples

_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


class ImageRows(Rows):
    """Images on disk: (h, w) greyscale where the first one is, (h, w, 3) else; uint8."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self._root = root
        self._names = names
        self._pillow: ModuleType = require("PIL.Image")
        self.count = len(names)
        self.dtype = np.dtype(np.uint8)
        self._mode = "L" if self._first_mode() in ("1", "L", "I;16", "LA") else "RGB"
        self.shape = self._decode(names[0], None).shape

    def read(self, at: np.ndarray) -> np.ndarray:
        """Decodes the images at these positions."""
        out = np.empty((len(at), *self.shape), np.uint8)
        for row, i in enumerate(at):
            out[row] = self._decode(self._names[int(i)], self.shape)
        return out

    def content_digest(self) -> str:
        """Digest of the files' bytes."""
        whole = hashlib.sha256(self._mode.encode())
        for name in self._names:
            with (self._root / name).open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        return whole.hexdigest()

    def check_sizes(self) -> None:
        """Reads every header: all images must have the first one's size. Raises DataError."""
        for name in self._names:
            with self._open(name) as image:
                width, height = image.size
            if (height, width) != self.shape[:2]:
                self._refuse_size(name, height, width)

    def _first_mode(self) -> str:
        with self._open(self._names[0]) as image:
            return str(image.mode)

    def _decode(self, name: str, shape: tuple[int, ...] | None) -> np.ndarray:
        try:
            with self._open(name) as image:
                pixels = np.array(image.convert(self._mode), np.uint8)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{self._root / name} is truncated ({error}).", "Copy it again or remove it.") from error
        if shape is not None and pixels.shape != shape:
            self._refuse_size(name, *pixels.shape[:2])
        return pixels

    def _open(self, name: str):  # noqa: ANN202  # Pillow is optional: its types are not at hand
        try:
            return self._pillow.open(self._root / name)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(
                f"{self._root / name} is no readable image ({error}).", "Copy it again or remove it."
            ) from error

    def _refuse_size(self, name: str, height: int, width: int) -> None:
        raise DataError(
            f"{name} is {height} x {width}, the first image {self.shape[0]} x {self.shape[1]} (height x width).",
            "Resize or crop all images to the size the model takes.",
        )


def load_folder(root: Path, spec: str, dtype: torch.dtype = torch.float32) -> Samples:
    """Samples of a folder with one sub-folder per class."""
    classes = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    names: list[str] = []
    labels: list[int] = []
    for label, kind in enumerate(classes):
        found = sorted(
            p.relative_to(root).as_posix()
            for p in (root / kind).rglob("*")
            if p.suffix.lower() in _ENDINGS and not p.name.startswith(".")
        )
        names += found
        labels += [label] * len(found)
    if not names:
        raise DataError(
            f"{root} holds no images in sub-folders.", "Lay it out as FOLDER/CLASS/image.png, one folder per class."
        )
    rows = ImageRows(root, names)
    rows.check_sizes()
    about = Description(spec, names, max(len(classes), 1), tuple(classes), dtype)
    return assemble(rows, np.array(labels), about)
