"""Rows of linear coefficients on one node, kept to the window where they are not zero.

A neuron of a convolution sees a small window of the layer below, so its row is stored as that window
(r, C, h, w) with the place (top, left) of its corner; everything outside is zero. Other shapes are stored
whole. This saves an order of magnitude of work on the rows of early convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.graph.ops import Add, BatchNorm, Conv2d, LinearOp, Sub
from saddlepoint.graph.transpose import transpose

Shape = tuple[int, ...]
DENSE = 16  # how many times more products a dense matrix may take than a convolution and still be faster


@dataclass(frozen=True)
class Rows:
    """Coefficients `a` (r, *window) of a node of shape `shape`; `corner` places a window of (C, H, W)."""

    a: Tensor
    shape: Shape
    corner: tuple[int, int] = (0, 0)

    @property
    def whole(self) -> bool:
        """Whether the window is all of the node."""
        return tuple(self.a.shape[1:]) == self.shape

    def take(self, index: Tensor) -> Rows:
        """Some rows, repetitions allowed."""
        return Rows(self.a.index_select(0, index), self.shape, self.corner)

    def full(self) -> Tensor:
        """The rows with their zeros, (r, *shape)."""
        if self.whole:
            return self.a
        (top, left), (h, w) = self.corner, self.a.shape[-2:]
        return F.pad(self.a, (left, self.shape[2] - left - w, top, self.shape[1] - top - h))

    def window(self, t: Tensor) -> Tensor:
        """The part of `t` (b, *shape) that lies under these rows."""
        if self.whole:
            return t
        (top, left), (h, w) = self.corner, self.a.shape[-2:]
        return t[..., top : top + h, left : left + w]

    def dot(self, t: Tensor) -> Tensor:
        """⟨a, t⟩ per row, for one t (1, *shape): (r,)."""
        return self.a.flatten(1) @ self.window(t).reshape(-1)

    def __add__(self, other: Rows) -> Rows:
        if self.corner == other.corner and self.a.shape == other.a.shape:
            return Rows(self.a + other.a, self.shape, self.corner)
        return Rows(self.full() + other.full(), self.shape)


def one_hot(neurons: Tensor, shape: Shape, like: Tensor) -> Rows:
    """e_n for flat indices `neurons` (r,), kept to the smallest window that holds all of them."""
    if len(shape) != 3:
        eye = like.new_zeros((len(neurons), *shape))
        eye.view(len(neurons), -1).scatter_(1, neurons[:, None], 1.0)
        return Rows(eye, shape)
    height, width = shape[1:]
    channel, place = neurons // (height * width), neurons % (height * width)
    row, column = place // width, place % width
    top, left = int(row.min()), int(column.min())
    h, w = int(row.max()) - top + 1, int(column.max()) - left + 1
    eye = like.new_zeros((len(neurons), shape[0], h, w))
    eye[torch.arange(len(neurons), device=neurons.device), channel, row - top, column - left] = 1.0
    return Rows(eye, shape, (top, left))


def pull_linear(op: LinearOp, rows: Rows, in_shapes: Sequence[Shape]) -> tuple[Rows, ...]:
    """Wᵀ a for each input: ⟨a, W x⟩ = ⟨Wᵀ a, x⟩. Windows survive convolutions, sums and batch norm."""
    if isinstance(op, Conv2d) and not rows.whole:
        return (_pull_convolution(op, rows, in_shapes[0]),)
    if isinstance(op, Add):
        return rows, rows
    if isinstance(op, Sub):
        return rows, Rows(-rows.a, rows.shape, rows.corner)
    if isinstance(op, BatchNorm):
        return (Rows(op.map(rows.a), rows.shape, rows.corner),)  # diagonal per channel: its own transpose
    pulled = transpose(op, rows.full(), in_shapes)
    return tuple(Rows(a, tuple(s)) for a, s in zip(pulled, in_shapes, strict=True))


def _pull_convolution(op: Conv2d, rows: Rows, shape: Shape) -> Rows:
    """The transposed convolution of a window is a window: output place p reads inputs s·p − pad + d·[0, k)."""

    def pull(a: Tensor) -> Tensor:
        return F.conv_transpose2d(a, op.weight, None, op.stride, 0, 0, op.groups, op.dilation)

    a, (h, w) = rows.a, rows.a.shape[-2:]
    tall, wide = (
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip((h, w), op.stride, op.dilation, op.weight.shape[2:], strict=True)
    )
    entries = a.shape[1] * h * w
    if len(a) > 2 * entries and tall * wide <= DENSE * op.weight.shape[2] * op.weight.shape[3]:
        # a small window's map as one dense matrix: more products, but many times faster per product
        basis = torch.eye(entries, dtype=a.dtype, device=a.device).view(entries, *a.shape[1:])
        a = (a.flatten(1) @ pull(basis).flatten(1)).view(len(a), -1, tall, wide)
    else:
        a = pull(a)
    top, left = (c * s - p for c, s, p in zip(rows.corner, op.stride, op.padding, strict=True))
    bottom, right = min(top + tall, shape[1]), min(left + wide, shape[2])
    a = a[:, :, max(-top, 0) : bottom - top, max(-left, 0) : right - left]
    return Rows(a, shape, (max(top, 0), max(left, 0)))
