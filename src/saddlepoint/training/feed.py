"""Batches for training: small data are held as one tensor, large data are read ahead by a thread.

A row's random numbers are keyed once by (seed, id) and forked by the epoch, so an epoch hashes nothing anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data import Data

_IN_MEMORY = 1 << 30  # bytes
_AHEAD = 2


@dataclass(frozen=True)
class Part:
    """One batch: inputs, labels, its random numbers."""

    x: Float[Tensor, "b *shape"]
    y: Int64[Tensor, " b"]
    draws: Draws

    def __len__(self) -> int:
        return len(self.y)

    def split(self, count: int) -> list[Part]:
        """Nearly equal pieces, none of them empty."""
        if count == 1 or len(self) == 1:
            return [self]
        every = torch.arange(len(self), device=self.y.device).tensor_split(min(count, len(self)))
        return [Part(self.x[rows], self.y[rows], self.draws.take(rows)) for rows in every]


class Feed:
    """The batches of any epoch, on a device."""

    def __init__(self, data: Data, size: int, seed: int, device: torch.device) -> None:
        self._data, self._seed, self._device = data, seed, device
        self.count = -(-len(data) // size)
        self._keys = row_keys(seed, data.ids, "training")
        small = len(data) * math.prod(data.shape) * 4 <= _IN_MEMORY
        whole = data.take(slice(0, len(data))) if small else None
        self._whole = None if whole is None else (_laid_out(whole.x.to(device)), whole.y.to(device))

    def batches(self, epoch: int, first: int = 0) -> Iterator[Part]:
        """The batches of an epoch from number `first` on: nearly equal parts of a shuffled order."""
        shuffle = Draws(row_keys(self._seed, ["order"], "training", epoch))
        order = shuffle.uniform((len(self._keys),), dtype=torch.float64)[0].argsort(stable=True)
        keys = Draws(self._keys).fork(epoch).keys
        # batch norm cannot take a last batch of one, so no batch is much smaller than another
        rows = torch.tensor_split(order, self.count)[first:]
        for at, (x, y) in zip(rows, self._read(rows), strict=True):
            yield Part(x, y, Draws(keys[at].to(self._device)))

    def inputs(self, size: int = 256) -> Iterator[Tensor]:
        """All inputs in the order of the data, in nearly equal parts."""
        every = torch.arange(len(self._keys))
        for x, _ in self._read(torch.tensor_split(every, -(-len(every) // size))):
            yield x

    def _read(self, rows: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, Tensor]]:
        if self._whole is not None:
            x, y = self._whole
            for at in rows:
                here = at.to(self._device)
                yield x[here], y[here]
            return
        with ThreadPoolExecutor(1) as reader:
            waiting = [reader.submit(self._data.take, at.tolist()) for at in rows[:_AHEAD]]
            for number in range(len(rows)):
                batch = waiting.pop(0).result()
                if number + _AHEAD < len(rows):
                    waiting.append(reader.submit(self._data.take, rows[number + _AHEAD].tolist()))
                yield _laid_out(batch.x.to(self._device)), batch.y.to(self._device)


def _laid_out(x: Tensor) -> Tensor:
    """Images with the channels last in memory: the layout that convolutions' backward passes are fastest in."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
