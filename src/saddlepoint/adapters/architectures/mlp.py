"""Multilayer perceptrons: flatten, then (linear, ReLU) per hidden width, then linear.

z_0 = vec(x),   z_i = max(0, W_i z_{i-1} + b_i),   logits = W_L z_{L-1} + b_L
"""

from __future__ import annotations

import itertools
from collections import OrderedDict

from torch import nn

from saddlepoint.adapters.architectures.shapes import features


def _pairs(shape: tuple[int, ...], classes: int, hidden: tuple[int, ...]) -> list[tuple[int, int]]:
    widths = (features(shape), *hidden, classes)
    return list(itertools.pairwise(widths))


def mlp_positional(shape: tuple[int, ...], classes: int, hidden: tuple[int, ...]) -> nn.Module:
    """Layers numbered by position (state dict keys "1.weight", "3.weight", …), as ERAN's networks are."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in _pairs(shape, classes, hidden):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])  # no ReLU on the logits


def mlp_named(shape: tuple[int, ...], classes: int, hidden: tuple[int, ...]) -> nn.Module:
    """Layers called linear1, relu1, linear2, …"""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    pairs = _pairs(shape, classes, hidden)
    for i, (inputs, outputs) in enumerate(pairs, 1):
        layers[f"linear{i}"] = nn.Linear(inputs, outputs)
        if i < len(pairs):
            layers[f"relu{i}"] = nn.ReLU()
    return nn.Sequential(layers)
