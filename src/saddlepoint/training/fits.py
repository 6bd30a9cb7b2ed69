"""Do network, data, objective and settings belong together? Asked before the first step, in words of the user's."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from saddlepoint.core.errors import DataError, InputError, UnsupportedModel
from saddlepoint.data import Data
from saddlepoint.geometry import PerturbationSet
from saddlepoint.training.measure import Measure
from saddlepoint.training.objective import Objective
from saddlepoint.training.replayed import Replays
from saddlepoint.training.settings import Trainer
from saddlepoint.training.state import keyed_randomness, mode

_OF_DATA = ("take", "ids", "labels", "classes", "shape")


def check_kinds(net: Any, data: Any, objective: Any, trainer: Any) -> None:
    """Raises InputError where an argument is of another kind than `train` takes."""
    if not isinstance(net, nn.Module):
        raise InputError(f"{type(net).__name__} is no network that can be trained.", "Give an nn.Module.")
    if not all(hasattr(data, name) for name in _OF_DATA):
        raise InputError(
            f"{type(data).__name__} is no data.", "Use saddlepoint.data: load('digits:train'), or from_arrays(x, y)."
        )
    if isinstance(objective, type) or not isinstance(objective, Objective | Replays):
        said = objective.__name__ if isinstance(objective, type) else repr(objective)
        raise InputError(f"{said} is no objective.", "Give one as Adversarial(Linf('8/255')), say.")
    if not isinstance(trainer, Trainer):
        raise InputError(f"{type(trainer).__name__} holds no settings of the loop.", "Give Trainer(epochs=10), say.")
    _check_sets(objective)


def check_fits(net: nn.Module, data: Data) -> int:
    """How many outputs the network has.

    Raises UnsupportedModel where nothing in it can be trained, DataError where there are no data, InputError where it
    does not take such samples or has fewer outputs than they have classes.
    """
    weight = next((weight for weight in net.parameters() if weight.requires_grad), None)
    if weight is None:
        raise UnsupportedModel("The network has no trainable weights.", "Set requires_grad on some of them.")
    if len(data) == 0:
        raise DataError("There are no samples to train on.")
    x = data.take(slice(0, 1)).x.to(weight.device)
    if x.dtype != weight.dtype:
        raise InputError(
            f"The data are {x.dtype}, the network's weights {weight.dtype}.", f"Convert it: net.to({x.dtype})."
        )
    try:
        with mode(net, False), torch.no_grad():
            z = net(x)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"The network does not take samples of shape {tuple(data.shape)}: {_one(error)}.") from error
    if not isinstance(z, Tensor):
        raise InputError(f"The network gives {type(z).__name__}, not scores.", "Wrap it so that it returns one tensor.")
    if z.ndim != 2 or z.shape[1] < data.classes:
        raise InputError(
            f"For one sample the network gives shape {tuple(z.shape)}; the data have {data.classes} classes.",
            "Build it with as many outputs as there are classes.",
        )
    return z.shape[1]


def check_measure(net: nn.Module, data: Data, measure: Measure) -> None:
    """Raises InputError where the held-out samples are not like those trained on."""
    if tuple(measure.data.shape) != tuple(data.shape):
        raise InputError(
            f"Held-out samples have shape {tuple(measure.data.shape)}, those trained on {tuple(data.shape)}.",
            "Hold out a part of the same data.",
        )
    check_fits(net, measure.data)


def check_rows(net: nn.Module, data: Data, trainer: Trainer, fewest: int) -> None:
    """Raises InputError where batch norm would be given a single value a channel. `fewest`: rows of the least batch."""
    rows = max(1, fewest // trainer.accumulate)
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if rows > 1 or not norms:
        return
    # on a copy: statistics move
    tried, x = copy.deepcopy(net).train(), data.take(slice(0, rows)).x.to(next(net.parameters()).device)
    try:
        with torch.no_grad(), keyed_randomness(trainer.seed, "rows"):
            tried(x)
    except ValueError as error:
        raise InputError(
            f"{len(data)} samples in batches of {trainer.batch}, each in {trainer.accumulate} parts, give a part of "
            f"one row, and batch norm takes none: {_one(error)}.",
            "Give a larger batch, or fewer parts.",
        ) from error


def check_replays(trainer: Trainer) -> None:
    """Raises InputError for settings that replays have no use for."""
    if trainer.devices != "one":
        raise InputError("Objectives with replays run on one device.", "Leave devices out, or use pgd.")
    if trainer.accumulate > 1 or trainer.precision in ("outer", "all"):
        raise InputError(
            f"A replay takes its batch whole and in the weights' own precision, not accumulate={trainer.accumulate}, "
            f"precision={trainer.precision!r}.",
            "Give a smaller batch and leave both out, or use pgd.",
        )


def _check_sets(objective: Any) -> None:
    name, sets = type(objective).__name__, getattr(objective, "sets", ())
    one = getattr(objective, "set", None)
    if one is not None and not isinstance(one, PerturbationSet):
        raise InputError(f"{name} was given {one!r} as its set.", "Give a set: Linf('8/255'), L2('0.5'), ….")
    if not isinstance(sets, tuple) or not all(isinstance(ball, PerturbationSet) for ball in sets):
        raise InputError(f"{name} was given {sets!r} as its sets.", "Give a tuple: (Linf('0.1'), L2('1')), say.")
    inner = getattr(objective, "objective", None)
    if inner is not None:
        _check_sets(inner)


def _one(error: Exception) -> str:
    """torch's answers have many lines."""
    return " ".join(str(error).split()).rstrip(". ")
