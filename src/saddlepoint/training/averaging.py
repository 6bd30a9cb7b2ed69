"""Averages of the weights: EMA of every step, or SWA over the last epochs.

    EMA   θ̄ ← d θ̄ + (1 − d) θ,   d = min(decay, (1 + t) / (10 + t))     (t steps so far: early weights are forgotten)
    SWA   θ̄ = mean of θ at the ends of epochs from `average_from` on    Izmailov et al., UAI 2018, Alg. 1

Running statistics belong to the weights they were gathered with, so batch norm's are gathered anew for the average, by
one pass over the training inputs (torch.optim.swa_utils.update_bn), whenever the average is looked at.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from saddlepoint.training.feed import Feed
from saddlepoint.training.settings import Trainer
from saddlepoint.training.state import keyed_randomness, mode


class Average:
    """The averaged weights of a network, and how many were taken in."""

    def __init__(self, net: nn.Module, trainer: Trainer) -> None:
        self._trainer = trainer
        self.count = 0
        self.weights: dict[str, Tensor] = {name: w.detach().clone() for name, w in net.named_parameters()}

    def after_step(self, net: nn.Module) -> None:
        """Takes the weights in, if this is an EMA."""
        if self._trainer.averaging == "ema":
            self._add(net, 1 - min(self._trainer.decay, (1 + self.count) / (10 + self.count)))

    def after_epoch(self, net: nn.Module, done: int) -> None:
        """Takes the weights in, if this is an SWA and its time has come."""
        if self._trainer.averaging == "swa" and done > self._trainer.average_from * self._trainer.epochs:
            self._add(net, 1 / (self.count + 1))

    def network(self, net: nn.Module, feed: Feed) -> nn.Module:
        """A network with the averaged weights, batch norm's statistics gathered anew; `net` itself before the first."""
        if self.count == 0:
            return net
        averaged = copy.deepcopy(net)
        with torch.no_grad():
            for name, weight in averaged.named_parameters():
                weight.copy_(self.weights[name])
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in averaged.modules()):
            # layers such as dropout draw in this pass too
            with mode(averaged, True), keyed_randomness(self._trainer.seed, "average", self.count):
                update_bn(feed.inputs(), averaged)
        return averaged

    def load(self, count: int, weights: Mapping[str, Tensor]) -> None:
        """Goes on from a checkpoint."""
        self.count = count
        for name, weight in self.weights.items():
            weight.copy_(weights[name])

    def _add(self, net: nn.Module, share: float) -> None:
        self.count += 1
        with torch.no_grad():
            for name, weight in net.named_parameters():
                self.weights[name].lerp_(weight, share)
