"""The outer minimisation: Adam with a cosine rate over shuffled batches, one event per epoch.

    θ ← θ − rate_t · Adam(∇_θ objective(θ; batch)),      rate_t = rate (1 + cos(π t / T)) / 2

Everything random is keyed: the order by (seed, epoch), a sample's draws by (seed, id, epoch), layers such as
dropout by (seed, epoch). So equal seeds give equal weights, and no global generator is left moved.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from saddlepoint.core.errors import DataError, InputError, NonFinite, UnsupportedModel
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data import Data
from saddlepoint.training.measure import Epoch, Measure, batches, to_device
from saddlepoint.training.objective import Objective, Standard
from saddlepoint.training.state import keyed_randomness, mode


@dataclass(frozen=True)
class Trainer:
    """Settings of the loop. `warm_up`: epochs over which the objective's set grows linearly to its full size."""

    epochs: int = 10
    batch: int = 64
    rate: float = 2e-3
    weight_decay: float = 0.0
    warm_up: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or self.warm_up < 0:
            raise InputError(
                f"epochs={self.epochs}, batch={self.batch}, warm_up={self.warm_up} train nothing.",
                "Give epochs and batch of at least 1 and a warm_up of at least 0.",
            )
        if not (math.isfinite(self.rate) and self.rate > 0 and self.weight_decay >= 0):
            raise InputError(f"rate={self.rate}, weight_decay={self.weight_decay} are no step sizes.")

    def fraction(self, epoch: int) -> Fraction:
        """How much of the set's size epoch number `epoch` (from 0) uses."""
        return min(Fraction(1), Fraction(epoch + 1, self.warm_up + 1))

    def rate_at(self, progress: float) -> float:
        """The cosine from `rate` to 0 as progress goes from 0 to 1."""
        return self.rate * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Trained:
    """The trained copy, with the flags of the network it was copied from, and its learning curve."""

    net: nn.Module
    epochs: tuple[Epoch, ...]


def train(
    net: nn.Module,
    data: Data,
    objective: Objective | None = None,
    trainer: Trainer | None = None,
    measure: Measure | None = None,
) -> Trained:
    """Train a copy of `net`; the caller's network is left as it is. Defaults: cross-entropy, `Trainer()`.

    Raises: see `epochs`.
    """
    copied = copy.deepcopy(net)
    curve = tuple(epochs(copied, data, objective or Standard(), trainer or Trainer(), measure))
    return Trained(copied, curve)


def epochs(
    net: nn.Module, data: Data, objective: Objective, trainer: Trainer, measure: Measure | None = None
) -> Iterator[Epoch]:
    """Train the weights of `net` in place, and yield after each epoch.

    Between two epochs the network is whole: flags as found, no gradients in the weights, fit to be saved or measured.
    Stopping early is leaving the iteration. Frozen weights (requires_grad False) stay as they are.

    Raises:
        DataError: no data. UnsupportedModel: nothing to train. NonFinite: the loss left the numbers.
    """
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    if not weights:
        raise UnsupportedModel("The network has no trainable weights.", "Set requires_grad on some of them.")
    if len(data) == 0:
        raise DataError("There are no samples to train on.")
    optimiser = torch.optim.Adam(weights, lr=trainer.rate, weight_decay=trainer.weight_decay)
    for epoch in range(trainer.epochs):
        stage = objective.at(trainer.fraction(epoch))
        with mode(net, True), keyed_randomness(trainer.seed, "layers", epoch):
            loss = _one_epoch(net, data, stage, trainer, epoch, optimiser)
        clean_k, robust_k = measure(net) if measure else (0, None)
        yield Epoch(epoch + 1, loss, len(measure.data) if measure else 0, clean_k, robust_k)


def _one_epoch(
    net: nn.Module,
    data: Data,
    objective: Objective,
    trainer: Trainer,
    epoch: int,
    optimiser: torch.optim.Optimizer,
) -> float:
    """One pass over the data; the mean loss of its samples, each at the weights of its own step."""
    shuffle = Draws(row_keys(trainer.seed, ["order"], "training", epoch))
    order = shuffle.uniform((len(data),), dtype=torch.float64)[0].argsort(stable=True)
    total, seen = 0.0, 0
    for batch in batches(data, order, trainer.batch):
        x, y = to_device(batch, net)
        draws = Draws(row_keys(trainer.seed, batch.ids, "training", epoch).to(x.device))
        loss = objective(net, x, y, draws)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFinite(
                f"The training loss became {value} in epoch {epoch + 1}.",
                f"Lower the rate ({trainer.rate}) or check the data and the network's initial weights.",
            )
        progress = (epoch + seen / len(data)) / trainer.epochs
        _step(optimiser, loss, trainer.rate_at(progress))
        total, seen = total + value * len(y), seen + len(y)
    return total / seen


def _step(optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """Gradients by the weights only, one step, and none left behind."""
    for group in optimiser.param_groups:
        group["lr"] = rate
        gradients = torch.autograd.grad(loss, group["params"], allow_unused=True)
        for weight, gradient in zip(group["params"], gradients, strict=True):
            weight.grad = gradient
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
