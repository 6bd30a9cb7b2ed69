"""A training run as tensors and facts, to be gone on from bit for bit.

    weights and buffers · the optimiser's state · averages · the perturbation carried over (Free) · the good epoch kept
    position: epoch, batch within it, step, the epoch's loss so far · the curve and the notes so far · the settings

Orders and random numbers are functions of (seed, epoch, step), so none are kept. Where it is written is the keeper's
business (adapters/checkpoint_file.py): training knows no paths.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from saddlepoint.core.digests import digest_json
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import PerturbationSet


@runtime_checkable
class Keeper(Protocol):
    """Where checkpoints are kept."""

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last one, if there is one."""
        ...

    def write(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Keep it in place of the last one; whole or not at all."""
        ...

    def due(self) -> bool:
        """Whether one is wanted now, in the middle of an epoch."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether the run has been asked to stop once a checkpoint is kept."""
        ...


def described(value: Any) -> Any:
    """Settings as JSON: equal settings have equal descriptions."""
    if isinstance(value, PerturbationSet):
        return value.canonical()
    if is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__, **{f.name: described(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, tuple | list):
        return [described(part) for part in value]
    if isinstance(value, Fraction):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)


def check_settings(before: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raises InputError with what differs, unless a checkpoint of `before` may be gone on from."""
    if digest_json(before) == digest_json(settings):
        return
    differing = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
    raise InputError(
        f"The checkpoint is of a training with other settings ({', '.join(differing)}).",
        "Give the settings it was begun with, another output, or remove the checkpoint.",
    )


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by weight number and name."""
    state = optimiser.state_dict()["state"]
    return {
        f"{number}.{name}": torch.as_tensor(value)
        for number, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts the state back; hyper-parameters are the optimiser's own."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def state_of(net: nn.Module) -> dict[str, Tensor]:
    """Copies of weights and buffers."""
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors with a prefix to their names."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names have the prefix, without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
