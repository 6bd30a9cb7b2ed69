"""Several devices: each process works on its rows of every batch, and gradients are averaged before the step.

`accelerate launch script.py` starts one process per device. All of them hold the same weights, shuffle
alike (the order is keyed) and step alike, so nothing else has to be sent. Batch norm normalises by each process' own
rows; its running statistics are averaged at the end of an epoch, so that all processes measure the same network.
The package `accelerate` is optional and imported only when asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from saddlepoint.core.errors import InputError
from saddlepoint.core.extras import require
from saddlepoint.training.feed import Part


@runtime_checkable
class Devices(Protocol):
    """Which rows are this process' own, and how sums over all processes are made."""

    def own(self, part: Part) -> Part:
        """This process' rows of a batch."""
        ...

    def summed(self, gradients: Sequence[Tensor | None], value: float) -> tuple[list[Tensor | None], float]:
        """Gradients and the loss, summed over the processes."""
        ...

    def agree(self, net: nn.Module) -> None:
        """Gives running statistics the mean of all processes' own."""
        ...

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        ...


@dataclass(frozen=True)
class Alone:
    """One process, one device."""

    first: bool = True

    def own(self, part: Part) -> Part:
        """All rows."""
        return part

    def summed(self, gradients: Sequence[Tensor | None], value: float) -> tuple[list[Tensor | None], float]:
        """As they are."""
        return list(gradients), value

    def agree(self, net: nn.Module) -> None:
        """Nobody to agree with."""
        del net


class Accelerated:
    """The processes that `accelerate launch` started."""

    def __init__(self, accelerator: Any = None) -> None:
        self._accelerator = accelerator if accelerator is not None else require("accelerate").Accelerator()
        self.rank, self.world = int(self._accelerator.process_index), int(self._accelerator.num_processes)

    @property
    def first(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    def own(self, part: Part) -> Part:
        """Every world-th row from the rank on. Raises InputError where a process would have none."""
        if len(part) < self.world:
            raise InputError(f"A batch of {len(part)} for {self.world} processes.", "Give a larger batch.")
        rows = torch.arange(self.rank, len(part), self.world, device=part.y.device)
        return Part(part.x[rows], part.y[rows], part.draws.take(rows))

    def summed(self, gradients: Sequence[Tensor | None], value: float) -> tuple[list[Tensor | None], float]:
        """Summed over the processes; a weight without a gradient has none in any of them."""
        reduce, device = self._accelerator.reduce, next(g.device for g in gradients if g is not None)
        totals = [None if g is None else reduce(g, reduction="sum") for g in gradients]
        return totals, float(reduce(torch.tensor(value, dtype=torch.float64, device=device), reduction="sum"))

    def agree(self, net: nn.Module) -> None:
        """The mean over the processes, of statistics that are numbers and not counts."""
        with torch.no_grad():
            for buffer in net.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self._accelerator.reduce(buffer.clone(), reduction="mean"))
