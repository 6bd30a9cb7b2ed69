"""Names by content: equal things have equal digests, so evidence merges by union."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: one text per value.

    >>> canonical_json({"b": 1, "a": [1.5, None]})
    '{"a":[1.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(data: bytes | str) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def digest_json(value: Any) -> str:
    """Digest of the canonical JSON text."""
    return digest(canonical_json(value))


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Digest over names, types, shapes and bytes, in the order of the names."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        whole.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        whole.update(_bytes(tensor))
    return whole.hexdigest()


def sample_digest(x: Tensor, label: int) -> str:
    """Digest of one sample as the model sees it, with its label."""
    whole = hashlib.sha256(canonical_json([str(x.dtype), list(x.shape), int(label)]).encode())
    whole.update(_bytes(x.detach().cpu().contiguous()))
    return whole.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    # a view as bytes also serves types that NumPy does not know (bfloat16)
    return np.asarray(tensor.reshape(-1).view(torch.uint8) if tensor.numel() else tensor).tobytes()
