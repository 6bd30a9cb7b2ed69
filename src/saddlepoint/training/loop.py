"""The outer minimisation: steps over shuffled batches, one event per epoch, guards between epochs.

    θ ← θ − rate_t · optimiser(∇_θ objective_t(θ; batch))        objective_t: the set still growing (warm-up)

Everything random is keyed: the order by (seed, epoch), a sample's draws by (seed, id, epoch), layers such as
dropout by (seed, step). So equal seeds give equal weights, no global generator is left moved, and a run that goes on
from a checkpoint in the middle of an epoch ends with the weights of one that was never interrupted.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from saddlepoint.data import Data, split
from saddlepoint.geometry import PerturbationSet
from saddlepoint.training.checkpoint import Keeper
from saddlepoint.training.fits import check_fits, check_kinds
from saddlepoint.training.guards import Guards, Note
from saddlepoint.training.measure import Epoch, Measure
from saddlepoint.training.objective import Objective, Standard
from saddlepoint.training.running import Run
from saddlepoint.training.settings import Trainer

_HELD_OUT = 0.05, 1000  # a share of the data, at most so many samples
_FEWEST = 200  # samples from which a part is held out


@dataclass(frozen=True)
class Trained:
    """The trained copy, with the flags of the network it was copied from, its learning curve, and what guards said."""

    net: nn.Module
    epochs: tuple[Epoch, ...]
    notes: tuple[Note, ...] = ()


def train(
    net: nn.Module,
    data: Data,
    objective: Objective | None = None,
    trainer: Trainer | None = None,
    measure: Measure | None = None,
    guards: Guards | None = Guards(),  # noqa: B008  # frozen
    keeper: Keeper | None = None,
) -> Trained:
    """Train a copy of `net`; the caller's network is left as it is. Defaults: cross-entropy, `Trainer()`.

    Without a measure, and with guards, a validation part is held out of 200 samples or more (`validation`); with fewer
    there is none, and the guards have nothing to look at.
    With a keeper, the same call again goes on from its checkpoint. Raises: see `epochs`.
    """
    objective, trainer = objective or Standard(), trainer or Trainer()
    check_kinds(net, data, objective, trainer)
    if measure is None and guards is not None and len(data) >= _FEWEST:
        data, measure = validation(data, objective, trainer.seed)
    copied = copy.deepcopy(net)
    events = list(epochs(copied, data, objective, trainer, measure, guards, keeper))
    curve = tuple(event for event in events if isinstance(event, Epoch))
    return Trained(copied, curve, tuple(event for event in events if isinstance(event, Note)))


def validation(data: Data, objective: object, seed: int = 0, size: int | None = None) -> tuple[Data, Measure]:
    """(the rest, a measure on a held-out part: 5 % of the data, at most 1,000), against the objective's own sets."""
    share, most = _HELD_OUT
    rest, part = split(data, size or min(most, max(1, round(share * len(data)))), seed)
    inner = getattr(objective, "objective", None) or objective  # AWP has its set inside
    wanted = getattr(inner, "sets", None) or getattr(inner, "set", None)
    return rest, Measure(part, wanted if isinstance(wanted, PerturbationSet | tuple) else None)


def epochs(
    net: nn.Module,
    data: Data,
    objective: Objective,
    trainer: Trainer,
    measure: Measure | None = None,
    guards: Guards | None = Guards(),  # noqa: B008  # frozen
    keeper: Keeper | None = None,
) -> Iterator[Epoch | Note]:
    """Train the weights of `net` in place; yield after each epoch, and what a guard noticed.

    Between two epochs the network is whole: flags as found, no gradients in the weights, fit to be saved or measured.
    Stopping early is leaving the iteration. Frozen weights (requires_grad False) stay as they are; the running
    statistics of batch norm move in every layer, since the whole network trains in train mode. At the end `net` has
    the averaged weights, if averages were asked for, and with guards those of the last epoch as good on validation
    as the best (guards.py).
    What a keeper's checkpoint already holds is yielded again first.

    Raises:
        DataError: no data. UnsupportedModel: nothing to train. NonFinite: the loss left the numbers.
        InputError: an argument of another kind, data that do not fit the network, a keeper that holds a training with
        other settings. KeyboardInterrupt: the keeper asked to stop.
    """
    check_kinds(net, data, objective, trainer)
    check_fits(net, data)
    run = Run(net, data, objective, trainer, measure, guards, keeper)
    yield from run.events
    while not run.done:
        before = len(run.events)
        run.epoch()
        yield from run.events[before:]
    run.finish()
