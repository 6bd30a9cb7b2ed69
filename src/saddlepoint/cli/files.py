"""Writing what a person asked for: whole or not at all, and with a word on what went wrong."""

from __future__ import annotations

from pathlib import Path

from saddlepoint.core.errors import InputError


def write(path: Path, content: str | bytes) -> None:
    """Write a file by way of a neighbour, so that a reader never meets half of it. Raises InputError."""
    data = content.encode() if isinstance(content, str) else content
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise InputError(f"{path} cannot be written: {reason}.", "Choose another place; the ledger is kept.") from error
