"""What training borrows and gives back: train/eval flags and torch's global random state.

Layers such as dropout and `reset_parameters` draw from torch's global generator and cannot be handed another one.
So that state is set from our own key for the length of a `with` block and put back afterwards: results depend on the
seed alone, and the caller's generator stands where it stood.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from saddlepoint.core.errors import UnsupportedModel
from saddlepoint.core.rng import row_keys


@contextmanager
def mode(net: nn.Module, training: bool) -> Iterator[None]:
    """Put every submodule into train or eval mode, and each flag back as it was found."""
    found = [(module, module.training) for module in net.modules()]
    net.train(training)
    try:
        yield
    finally:
        for module, flag in found:
            module.training = flag


@contextmanager
def keyed_randomness(seed: int, purpose: str, turn: int = 0) -> Iterator[None]:
    """torch's global random state from (seed, purpose, turn) inside the block, restored after it."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(row_keys(seed, [purpose], "training", turn)[0]))
        yield


def fresh(net: nn.Module, seed: int = 0) -> nn.Module:
    """A copy of `net` with newly drawn weights: equal seeds give equal weights.

    Raises UnsupportedModel, with its name, for a module that owns parameters but has no `reset_parameters`.
    """
    new = copy.deepcopy(net)
    with keyed_randomness(seed, "weights"):
        for name, module in new.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif next(module.parameters(recurse=False), None) is not None:
                raise UnsupportedModel(
                    f"{name or 'the network'} ({type(module).__name__}) owns weights but has no reset_parameters().",
                    "Add that method to the module, or train from the weights it has.",
                )
    return new
