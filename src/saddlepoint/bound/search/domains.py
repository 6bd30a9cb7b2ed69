"""Domains of a search over neurons: subsets of the box where some hidden values lie on one side of a threshold.

One row per domain of one clause: bounds of the free entries, where its splits are (sign 1: v ≤ t, −1: v ≥ t), the point
that its bound was found at, and the entries that are worth a split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

Path = tuple[tuple[int, int, float], ...]  # (column, sign, threshold), root first


@dataclass(frozen=True)
class Domains:
    """lower, upper, beta (n, F), sign int8, threshold (n, F), choice uint8, bound (n,), clause, columns (n, k)."""

    lower: Tensor
    upper: Tensor
    sign: Tensor
    threshold: Tensor
    choice: Tensor
    beta: Tensor
    bound: Tensor
    clause: Tensor
    columns: Tensor
    allowed: Tensor
    node: np.ndarray
    path: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.bound)

    def take(self, index: Tensor) -> Domains:
        """Some domains, repetitions allowed."""
        rows = index.tolist()
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {name: t[index] for name, t in parts.items() if isinstance(t, Tensor)}
        return Domains(**tensors, node=self.node[rows], path=tuple(self.path[i] for i in rows))


def joined(parts: Sequence[Domains]) -> Domains:
    """All of them."""
    names = [f.name for f in fields(Domains) if f.name not in ("node", "path")]
    tensors = {name: torch.cat([getattr(p, name) for p in parts]) for name in names}
    node = np.concatenate([p.node for p in parts])
    return Domains(**tensors, node=node, path=tuple(path for p in parts for path in p.path))
