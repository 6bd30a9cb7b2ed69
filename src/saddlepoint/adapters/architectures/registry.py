"""The one list of built-in architectures.

A name is either an entry of `names()` or one of the parametrised forms `mlp:64-64` (hidden widths) and
`mobilenet-v1-0.5` (width multiplier among 1.0, 0.75, 0.5, 0.25).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from saddlepoint.adapters.architectures.convolutional import (
    cnn_s,
    lenet5,
    two_convolutions,
)
from saddlepoint.adapters.architectures.lipschitz import lipschitz_s
from saddlepoint.adapters.architectures.mlp import mlp_named, mlp_positional
from saddlepoint.adapters.architectures.mobilenet import mobilenet_v1
from saddlepoint.adapters.architectures.residual import resnet_2b, resnet_4b, resnet_cifar
from saddlepoint.core.errors import InputError

Shape = tuple[int, ...]
Builder = Callable[[Shape, int], nn.Module]


@dataclass(frozen=True)
class Entry:
    """One architecture: its builder, and the input shape it was published for (the default)."""

    builder: Builder
    shape: Shape
    classes: int = 10


_MNIST: Shape = (1, 28, 28)
_CIFAR: Shape = (3, 32, 32)
_IMAGENET: Shape = (3, 224, 224)


def _registry() -> dict[str, Entry]:
    """Built in one place, so that the printed list and what `build` knows cannot differ."""
    entries = {
        "cnn-s": Entry(cnn_s, _MNIST),
        "lenet5": Entry(lenet5, _MNIST),
        "lipschitz-s": Entry(lipschitz_s, _MNIST),
        "mlp-300-100": Entry(lambda s, k: mlp_named(s, k, (300, 100)), _MNIST),
        "mlp-6x100": Entry(lambda s, k: mlp_positional(s, k, (100,) * 5), _MNIST),
        "wk17": Entry(lambda s, k: two_convolutions(s, k, (16, 32), padding=1), _MNIST),
        "cnn-a": Entry(lambda s, k: two_convolutions(s, k, (16, 32), padding=1), _CIFAR),
        "cnn-small-eran": Entry(lambda s, k: two_convolutions(s, k, (16, 32), padding=0), _CIFAR),
        "oval-base": Entry(lambda s, k: two_convolutions(s, k, (8, 16), padding=1), _CIFAR),
        "resnet8": Entry(lambda s, k: resnet_cifar(s, k, 1), _CIFAR),
        "resnet20": Entry(lambda s, k: resnet_cifar(s, k, 3), _CIFAR),
        "resnet32": Entry(lambda s, k: resnet_cifar(s, k, 5), _CIFAR),
        "resnet56": Entry(lambda s, k: resnet_cifar(s, k, 9), _CIFAR),
        "resnet2b": Entry(resnet_2b, _CIFAR),
        "resnet4b": Entry(resnet_4b, _CIFAR),
    }
    for text, width in (("-1.0", 1.0), ("-0.75", 0.75), ("-0.5", 0.5), ("-0.25", 0.25)):
        entries["mobilenet-v1" + text] = Entry(_mobilenet(width), _IMAGENET, 1000)
    return entries


def _mobilenet(width: float) -> Builder:
    return lambda shape, classes: mobilenet_v1(shape, classes, width)


_ENTRIES = _registry()
_ALIASES = {"mobilenet-v1": "mobilenet-v1-1.0"}


def names() -> tuple[str, ...]:
    """Names of the built-in architectures; `mlp:64-64` style names are accepted as well."""
    return tuple(_ENTRIES)


def _entry(name: str) -> Entry:
    if name.startswith("mlp:"):
        widths = _widths(name)
        return Entry(lambda s, k: mlp_positional(s, k, widths), _MNIST)
    key = _ALIASES.get(name, name)
    if key not in _ENTRIES:
        raise InputError(
            f"No built-in architecture is called {name!r}.",
            f"Choose among {', '.join(names())}, mlp:64-64 (hidden widths), or give package.module:factory.",
        )
    return _ENTRIES[key]


def _widths(name: str) -> tuple[int, ...]:
    parts = name.removeprefix("mlp:").split("-")
    if not all(p.isdigit() and int(p) > 0 for p in parts):
        raise InputError(f"{name!r} does not name hidden widths.", "Write them as positive integers: mlp:64-64.")
    return tuple(int(p) for p in parts)


def canonical_shape(name: str) -> tuple[Shape, int]:
    """Input shape (without the batch) and number of classes the architecture was published for."""
    entry = _entry(name)
    return entry.shape, entry.classes


def build(name: str, shape: Shape | None = None, classes: int | None = None) -> nn.Module:
    """A freshly initialised network; `shape` and `classes` default to the published ones.

    Raises InputError for an unknown name or for a shape the layers cannot take.
    """
    entry = _entry(name)
    shape = entry.shape if shape is None else tuple(shape)
    classes = entry.classes if classes is None else classes
    if classes < 2:
        raise InputError(f"{name} with {classes} classes is no classifier.", "Give at least 2 classes.")
    if not shape or min(shape) < 1:
        raise InputError(f"{name} cannot take inputs of shape {shape}.", "Give positive sizes, e.g. 1,28,28.")
    return entry.builder(shape, classes)
