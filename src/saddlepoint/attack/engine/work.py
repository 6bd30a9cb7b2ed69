"""What waits: items (sample, restart × targets + target's rank), in the order in which they start.

Concurrent: all samples' item 0, then all samples' item 1, …; items of one sample may run side by side.
Sequential: an item starts when its predecessor has ended without success, so a sample's result cannot depend
on who else is in the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor


class Work:
    """The list of work of n samples. `gone` (n,) marks samples that need no more of it."""

    def __init__(self, samples: int, sequential: bool) -> None:
        self.samples, self.sequential = samples, sequential
        self.gone = torch.zeros(samples, dtype=torch.bool)
        self.targets, self.items = 1, 0
        self._closed = [False] * samples
        self._left = [0] * samples
        self._queue: deque[tuple[int, int]] = deque()
        self._order: Iterator[tuple[int, int]] = iter(())

    def open(self, restarts: int, targets: int) -> None:
        """Every sample gets restarts × targets items."""
        self.targets, self.items = targets, restarts * targets
        self._left = [self.items] * self.samples
        if self.sequential:
            self._queue.extend((s, 0) for s in range(self.samples) if self.items)
        else:
            self._order = ((s, i) for i in range(self.items) for s in range(self.samples))

    def next(self, count: int) -> list[tuple[int, int]]:
        """Up to `count` items of samples that are still open."""
        found: list[tuple[int, int]] = []
        while len(found) < count:
            item = (self._queue.popleft() if self._queue else None) if self.sequential else next(self._order, None)
            if item is None:
                break
            if not self._closed[item[0]]:
                found.append(item)
        return found

    def end(self, samples: Iterable[int], items: Iterable[int]) -> None:
        """These items ran to their end."""
        for s, i in zip(samples, items, strict=True):
            self._left[s] -= 1
            if self.sequential and i + 1 < self.items and not self._closed[s]:
                self._queue.append((s, i + 1))

    def finish(self, samples: Iterable[int]) -> None:
        """These samples have had all the work they are allowed."""
        for s in samples:
            self._left[s] = 0
            self._close(s)

    def close(self, samples: Tensor | Mapping[int, str]) -> bool:
        """These samples (a mask, or keys) fell or failed: their waiting items are void. Whether any is new."""
        which = list(samples) if isinstance(samples, Mapping) else samples.nonzero()[:, 0].tolist()
        fresh = [s for s in which if not self._closed[s]]
        for s in fresh:
            self._close(s)
        return bool(fresh)

    def over(self, sample: int) -> bool:
        """Whether nothing is left to do for the sample."""
        return self._closed[sample] or self._left[sample] == 0

    @property
    def settled(self) -> int:
        """How many samples are over."""
        return sum(self.over(s) for s in range(self.samples))

    def _close(self, sample: int) -> None:
        self._closed[sample] = True
        self.gone[sample] = True
