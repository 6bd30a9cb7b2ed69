"""Paths of fixed steps that repeat themselves: what is left of them is known.

    x_{t+1} = F(x_t),   x_t = x_s with s < t   ⇒   x_{t+k} = x_{s+k} for every k

Sign steps of a fixed length inside a box run into its walls, where clamping makes coordinates repeat exactly; after
some 25 steps of ε/4 most paths on a robust network alternate between two points (arXiv 2503.19347). A row whose iterate
comes back has seen every point that it would still visit, so it may leave with the verdict of the whole run. Points are
compared exactly, no hash decides. Brent's algorithm (1980): each iterate is compared with a kept one, which is replaced
at powers of two; a cycle of length λ entered at μ is found by step 2 max(μ, λ) + λ, in the memory of one point.

What an attack still wants after the path (PGD: the vertex of the gradient at x_{N−1}) is asked as soon as the path
stands at a point equal to that one: `due` says at which index, at most N − 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_GLANCE = 32  # coordinates that are looked at before whole points are


@dataclass(frozen=True)
class Path:
    """Per row: the iterate kept for comparison, and the index at which a repeating path may end (−1: unknown)."""

    kept: Tensor
    due: Tensor
    index: int  # of the kept iterate

    @staticmethod
    def at(x: Float[Tensor, "b ..."]) -> Path:
        """A path that begins at x."""
        return Path(x, torch.full((len(x),), -1, dtype=torch.int64, device=x.device), 0)


def follow(path: Path, x: Float[Tensor, "b ..."], index: int, last: int) -> Path:
    """The path with its iterate of that index; where it repeats, `due` ≡ last modulo the cycle, index ≤ due ≤ last."""
    back = _equal(path.kept, x)
    if back is not None:
        cycle = index - path.index
        due = torch.full_like(path.due, index + (last - index) % cycle)
        path = replace(path, due=torch.where(back & (path.due < 0), due, path.due))
    return replace(path, kept=x, index=index) if index & (index - 1) == 0 else path


def _equal(a: Tensor, b: Tensor) -> Bool[Tensor, " b"] | None:
    """Which rows are equal; None for none. A glance at a few coordinates spares most rows the whole comparison."""
    a, b = a.flatten(1), b.flatten(1)
    stride = max(1, a.shape[1] // _GLANCE)
    rows = (a[:, ::stride] == b[:, ::stride]).all(1).nonzero()[:, 0]
    if len(rows) == 0:
        return None
    same = (a[rows] == b[rows]).all(1)
    if not bool(same.any()):
        return None
    return torch.zeros(len(a), dtype=torch.bool, device=a.device).index_put((rows,), same)
