"""A training's checkpoint as one safetensors file: tensors, and the facts as JSON in its metadata. No pickle.

The write goes by way of a neighbour and a rename, so a process that is killed leaves the old file or the new one.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from saddlepoint.core.errors import InputError, RefusedFile

_KEY = "facts"


class CheckpointFile:
    """Keeps a training's last checkpoint. `every`: seconds between two in the middle of an epoch."""

    def __init__(self, path: str | Path, every: float = 30.0) -> None:
        self.path, self._every = Path(path), every
        self._last = time.monotonic()
        self.stopping = False

    def stop(self) -> None:
        """Ask for a checkpoint at the end of this step, and for the end of the run after it."""
        self.stopping = True

    def due(self) -> bool:
        """Whether it is time, or the run has been asked to stop."""
        return self.stopping or time.monotonic() - self._last >= self._every

    def write(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """The new checkpoint in place of the old one. Raises InputError where the disk refuses."""
        part = self.path.with_name(self.path.name + ".part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # tied weights share memory, which the format refuses: each is written out
            whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
            part.write_bytes(save(whole, {_KEY: json.dumps(facts)}))
            part.replace(self.path)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            raise InputError(f"{self.path} cannot be written: {error}.", "Choose another place.") from error
        self._last = time.monotonic()

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was written last, if anything. Raises RefusedFile for a file that is no checkpoint."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                facts = (file.metadata() or {})[_KEY]
                return {name: file.get_tensor(name) for name in file.keys()}, json.loads(facts)  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise RefusedFile(f"{self.path} is no checkpoint ({error}).", "Remove it to begin anew.") from error

    def remove(self) -> None:
        """The training is done."""
        self.path.unlink(missing_ok=True)
