"""Named tensors as bytes (safetensors): no code runs when they are read."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors
import safetensors.torch
from torch import Tensor

from saddlepoint.core.digests import digest
from saddlepoint.core.errors import LedgerError


def pack(tensors: Mapping[str, Tensor]) -> tuple[str, bytes]:
    """(digest, bytes) of named tensors."""
    data = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    return digest(data), data


def unpack(name: str, data: bytes) -> dict[str, Tensor]:
    """The tensors of a blob. Raises LedgerError if its bytes are not what its name says."""
    if digest(data) != name:
        raise LedgerError(f"blob {name[:12]} is damaged: its content has another digest.", "Use a copy of the ledger.")
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise LedgerError(f"blob {name[:12]} cannot be read: {error}.", "Use a copy of the ledger.") from error
