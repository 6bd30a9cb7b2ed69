"""How good a network is on held-out data between epochs: counts, so that an interval can always be given.

    clean_k  = #{i : m(x_i) > 0}            robust_k = #{i : m > 0 at x_i and at every point the search visited}

    single_k = #{i : m > 0 at x_i and after one step of the whole size from x_i}

robust_k counts what a short search did not break: an upper bound on what is robust, meant for learning curves only.
single_k far above it is the mark of catastrophic overfitting (guards.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data import Batch, Data
from saddlepoint.geometry import PerturbationSet
from saddlepoint.spec import margin
from saddlepoint.training.adversarial import Search, worst_points
from saddlepoint.training.state import mode


@dataclass(frozen=True)
class Epoch:
    """One point of a learning curve. `robust_k` is None where no set was given to measure against; n may be 0."""

    epoch: int
    loss: float
    n: int = 0
    clean_k: int = 0
    robust_k: int | None = None
    single_k: int | None = None
    predicted: float | None = None
    """Over how many classes the predictions are spread: exp of their entropy."""
    present: float = 0.0
    """The same of the labels."""

    @property
    def single(self) -> float | None:
        """Accuracy after one step over the n held-out samples."""
        return self.single_k / self.n if self.n and self.single_k is not None else None

    @property
    def clean(self) -> float | None:
        """Clean accuracy over the n held-out samples."""
        return self.clean_k / self.n if self.n else None

    @property
    def robust(self) -> float | None:
        """Accuracy at the worst points found over the n held-out samples."""
        return self.robust_k / self.n if self.n and self.robust_k is not None else None

    def event(self, run: str) -> dict[str, str | int | float | None]:
        """As the ledger's event table takes it."""
        counts = {"n": self.n, "clean": self.clean, "robust": self.robust, "single": self.single}
        return {"kind": "epoch", "run": run, "epoch": self.epoch, "loss": self.loss, **counts}


@dataclass(frozen=True)
class Counts:
    """What was counted on held-out data."""

    n: int
    clean_k: int
    robust_k: int | None
    single_k: int | None
    predicted: float
    present: float


@dataclass(frozen=True)
class Measure:
    """What to count after each epoch: held-out data and, if robustness is to be counted too, the set or the sets.

    With several sets a sample counts where a search in none of them broke it.
    """

    data: Data
    set: PerturbationSet | tuple[PerturbationSet, ...] | None = None
    steps: int = 10
    batch: int = 256
    seed: int = 0

    def __call__(self, net: nn.Module) -> Counts:
        """The counts of `net` in eval mode."""
        clean = many = single = 0
        sets = (self.set,) if isinstance(self.set, PerturbationSet) else self.set or ()
        predictions: list[Tensor] = []
        with mode(net, False):
            for batch in batches(self.data, torch.arange(len(self.data)), self.batch):
                x, y = to_device(batch, net)
                with torch.no_grad():
                    z = net(x)
                predictions.append(z.argmax(1).cpu())
                clean += int((margin(z, y) > 0).sum())
                if sets:
                    draws = Draws(row_keys(self.seed, batch.ids, "measure").to(x.device))
                    searches = [Search(ball, self.steps, _negative_margin) for ball in sets]
                    steps = [Search(ball, 1, _negative_margin, random=False) for ball in sets]
                    many += _unbroken(net, searches, x, y, draws)
                    single += _unbroken(net, steps, x, y, draws)
        labels = torch.from_numpy(self.data.labels)
        spreads = _effective_classes(torch.cat(predictions)), _effective_classes(labels)
        return Counts(len(labels), clean, *((many, single) if sets else (None, None)), *spreads)


def _unbroken(net: nn.Module, searches: list[Search], x: Tensor, y: Tensor, draws: Draws) -> int:
    stands = torch.ones_like(y, dtype=torch.bool)
    for search in searches:
        worst = worst_points(net, search, x, y, draws)
        with torch.no_grad():
            stands &= margin(net(worst), y) > 0
    return int(stands.sum())


def _effective_classes(labels: Int64[Tensor, " n"]) -> float:
    """exp of the entropy: k for k equally frequent classes, 1 for one class."""
    share = torch.bincount(labels).to(torch.float64) / len(labels)
    return float(torch.special.entr(share).sum().exp())


def _negative_margin(z: Float[Tensor, "b k"], y: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
    return -margin(z, y)


def batches(data: Data, order: Int64[Tensor, " n"], size: int) -> Iterator[Batch]:
    """Batches of at most `size` in the given order, nearly equal (batch norm cannot take a last batch of one)."""
    count = -(-len(order) // size)
    for rows in torch.tensor_split(order, count):
        yield data.take(rows.tolist())


def to_device(batch: Batch, net: nn.Module) -> tuple[Tensor, Tensor]:
    """x and y where the weights are."""
    device = next(net.parameters()).device
    return batch.x.to(device), batch.y.to(device)
