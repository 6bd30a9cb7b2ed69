"""Size arithmetic shared by the architectures."""

from __future__ import annotations

import math

from saddlepoint.core.errors import InputError


def image_shape(name: str, shape: tuple[int, ...], smallest: int) -> tuple[int, int, int]:
    """(channels, height, width), or InputError where the input is no image of at least `smallest` pixels."""
    if len(shape) != 3 or shape[1] < smallest or shape[2] < smallest:
        raise InputError(
            f"{name} takes images (channels, height, width) from {smallest} x {smallest} up, not {shape}.",
            "Use an MLP (mlp:64-64) for other shapes.",
        )
    return shape[0], shape[1], shape[2]


def features(shape: tuple[int, ...]) -> int:
    """Number of values in one input."""
    return math.prod(shape)


def convolved(size: int, kernel: int, stride: int, padding: int) -> int:
    """Output length of a convolution or pooling: floor((n + 2p - k) / s) + 1."""
    return (size + 2 * padding - kernel) // stride + 1
