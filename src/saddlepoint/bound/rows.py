"""Rows of linear coefficients on one node, each kept to the window where it is not zero.

A neuron of a convolution sees a small window of the layer below, so its row is stored as that window (C, h, w) with
the place (top, left) of its corner, which may lie outside of the node where the window hangs over a border. All rows
of a batch have windows of one size, each its own corner, so neurons from anywhere walk together; a convolution is
the same small map for each of them. Other shapes are stored whole. (The "patches" of auto_LiRPA are the same idea.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.graph.ops import Add, BatchNorm, Conv2d, LinearOp, Sub
from saddlepoint.graph.transpose import spread, transpose

Shape = tuple[int, ...]
WIDE = 0.6  # share of a node from which on a window is not worth its gathering
DENSE = 16  # how many times more products a dense matrix may take than a convolution and still be faster


@dataclass(frozen=True)
class Rows:
    """Coefficients `a` (r, *window) of a node of shape `shape`; `corner` (r, 2) places windows, None: whole.

    `clean`: entries of windows that hang over a border are 0 there. Where not, they stand for nothing and are ignored.
    """

    a: Tensor
    shape: Shape
    corner: Tensor | None = None
    clean: bool = True

    def take(self, index: Tensor) -> Rows:
        """Some rows, repetitions allowed."""
        corner = None if self.corner is None else self.corner.index_select(0, index)
        return replace(self, a=self.a.index_select(0, index), corner=corner)

    def scaled(self, factor: Tensor) -> Rows:
        """Every row times its factor (r,)."""
        return replace(self, a=self.a * factor.view(-1, *(1 for _ in self.shape)))

    def full(self) -> Tensor:
        """The rows with their zeros, (r, *shape)."""
        if self.corner is None:
            return self.a
        (h, w), (height, width) = self.a.shape[-2:], self.shape[1:]
        left, right, above, below = self._margins(self.corner)
        tall, wide = height + above + below, width + left + right
        down = (self.corner[:, 0] + above)[:, None] + torch.arange(h, device=self.a.device)
        along = (self.corner[:, 1] + left)[:, None] + torch.arange(w, device=self.a.device)
        place = (down[:, :, None] * wide + along[:, None, :]).flatten(1)[:, None]
        canvas = self.a.new_zeros((len(self.a), self.shape[0], tall * wide))
        canvas.scatter_(2, place.expand(-1, self.shape[0], -1), self.a.flatten(2))
        return canvas.view(-1, self.shape[0], tall, wide)[:, :, above : above + height, left : left + width]

    def gather(self, t: Tensor, owner: Tensor) -> Tensor:
        """The part of t[owner] (b, *shape) under each row, 0 beyond the borders: (r, *window); (1, *shape) if b = 1."""
        if self.corner is None:
            return t if len(t) == 1 else t.index_select(0, owner)
        left, right, above, below = self._margins(self.corner)
        padded = F.pad(t, (left, right, above, below)) if left or right or above or below else t
        windows = padded.unfold(2, self.a.shape[-2], 1).unfold(3, self.a.shape[-1], 1)
        down, along = self.corner[:, 0] + above, self.corner[:, 1] + left
        tall, wide = windows.shape[2:4]
        if len(t) * tall * wide > len(owner):
            return windows[owner, :, down, along]
        # many rows to a window (a place has a row for every channel): all windows once, then whole rows of memory
        every = windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, *self.a.shape[1:])
        return every.index_select(0, (owner * tall + down) * wide + along)

    def dot(self, t: Tensor) -> Tensor:
        """⟨a, t⟩ per row, for one t (1, *shape): (r,)."""
        if self.corner is None:
            return self.a.flatten(1) @ t.flatten()
        return inner(self.a, self.gather(t, torch.zeros(len(self.a), dtype=torch.int64, device=t.device)))

    def cleaned(self) -> Rows:
        """With zeros beyond the borders."""
        if self.clean or self.corner is None:
            return self
        inside = self.a.new_ones((1, 1, *self.shape[1:]))
        mask = self.gather(inside, torch.zeros(len(self.a), dtype=torch.int64, device=self.a.device))
        return replace(self, a=torch.where(mask > 0, self.a, 0.0), clean=True)

    def __add__(self, other: Rows) -> Rows:
        if self.corner is None or other.corner is None:
            return Rows(self.full() + other.full(), self.shape)
        offset = other.corner - self.corner
        if len(offset) == 0 or bool((offset != offset[:1]).any()):
            return Rows(self.full() + other.full(), self.shape)
        down, along = offset[0].tolist()
        top, left = min(0, down), min(0, along)
        bottom = max(self.a.shape[-2], down + other.a.shape[-2])
        right = max(self.a.shape[-1], along + other.a.shape[-1])
        mine = _grown(self.a, (-top, -left), (bottom - top, right - left))
        yours = _grown(other.a, (down - top, along - left), (bottom - top, right - left))
        corner = self.corner + self.corner.new_tensor([top, left])
        return _fitted(Rows(mine + yours, self.shape, corner, self.clean and other.clean))

    def _margins(self, corner: Tensor) -> tuple[int, int, int, int]:
        """How far windows hang over: left, right, above, below."""
        if len(corner) == 0:
            return 0, 0, 0, 0
        (h, w), (height, width) = self.a.shape[-2:], self.shape[1:]
        (top, left), (bottom, right) = corner.amin(0).tolist(), corner.amax(0).tolist()
        return max(0, -left), max(0, right + w - width), max(0, -top), max(0, bottom + h - height)


def inner(a: Tensor, t: Tensor) -> Tensor:
    """⟨a_i, t_i⟩ of rows (r, …), (r,); one t for all rows if there is one."""
    a, t = a.flatten(1), t.flatten(1)
    return a @ t[0] if len(t) == 1 else torch.einsum("rn,rn->r", a, t)


def _grown(a: Tensor, at: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """a (…, h, w) inside zeros of `size`, its corner at `at`."""
    (top, left), (h, w) = at, a.shape[-2:]
    if (h, w) == size:
        return a
    return F.pad(a, (left, size[1] - left - w, top, size[0] - top - h))


def _fitted(rows: Rows) -> Rows:
    """Whole, where the windows are nearly as large as the node."""
    if rows.corner is None or rows.a.shape[-2] * rows.a.shape[-1] < WIDE * rows.shape[1] * rows.shape[2]:
        return rows
    return Rows(rows.full(), rows.shape)


def one_hot(neurons: Tensor, shape: Shape, like: Tensor) -> Rows:
    """e_n for flat indices `neurons` (r,), in windows of one place."""
    every = torch.arange(len(neurons), device=neurons.device)
    if len(shape) != 3:
        eye = like.new_zeros((len(neurons), *shape))
        eye.view(len(neurons), -1).scatter_(1, neurons[:, None], 1.0)
        return Rows(eye, shape)
    height, width = shape[1:]
    channel, place = neurons // (height * width), neurons % (height * width)
    eye = like.new_zeros((len(neurons), shape[0], 1, 1))
    eye[every, channel] = 1.0
    return Rows(eye, shape, torch.stack([place // width, place % width], 1))


def pull_linear(op: LinearOp, rows: Rows, in_shapes: Sequence[Shape]) -> tuple[Rows, ...]:
    """Wᵀ a for each input: ⟨a, W x⟩ = ⟨Wᵀ a, x⟩. Windows survive convolutions, sums and batch norm."""
    if isinstance(op, Conv2d) and rows.corner is not None:
        return (_pull_convolution(op, rows.cleaned(), in_shapes[0]),)
    if isinstance(op, Add):
        return rows, rows
    if isinstance(op, Sub):
        return rows, replace(rows, a=-rows.a)
    if isinstance(op, BatchNorm):
        return (replace(rows, a=op.map(rows.a)),)  # diagonal per channel: its own transpose
    pulled = transpose(op, rows.full(), in_shapes)
    return tuple(Rows(a, tuple(s)) for a, s in zip(pulled, in_shapes, strict=True))


def _pull_convolution(op: Conv2d, rows: Rows, shape: Shape) -> Rows:
    """The transposed convolution of a window is a window: output place p reads inputs s·p − pad + d·[0, k)."""

    a, (h, w) = rows.a, rows.a.shape[-2:]
    tall, wide = (
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip((h, w), op.stride, op.dilation, op.weight.shape[2:], strict=True)
    )
    if tall * wide >= WIDE * shape[1] * shape[2]:
        (full,) = transpose(op, rows.full(), (shape,))
        return Rows(full, shape)
    entries = a.shape[1] * h * w
    if len(a) > 2 * entries and tall * wide <= DENSE * op.weight.shape[2] * op.weight.shape[3]:
        # a small window's map as one dense matrix: more products, but many times faster per product
        basis = torch.eye(entries, dtype=a.dtype, device=a.device).view(entries, *a.shape[1:])
        a = (a.flatten(1) @ spread(op, basis).flatten(1)).view(len(a), -1, tall, wide)
    else:
        a = spread(op, a)
    if rows.corner is None:
        raise TypeError("rows of a whole node have no window to pull")  # pull_linear sends none
    corner = rows.corner * rows.corner.new_tensor(op.stride) - rows.corner.new_tensor(op.padding)
    return Rows(a, shape, corner, clean=False)
