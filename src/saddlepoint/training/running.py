"""The state of one training, and what an epoch does to it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from saddlepoint.core.digests import digest_tensors
from saddlepoint.core.errors import NonFinite
from saddlepoint.data import Data
from saddlepoint.training.averaging import Average
from saddlepoint.training.checkpoint import (
    Keeper,
    below,
    check_settings,
    described,
    optimiser_tensors,
    restore_optimiser,
    state_of,
    under,
)
from saddlepoint.training.feed import Feed, Part
from saddlepoint.training.fits import check_measure, check_replays, check_rows
from saddlepoint.training.guards import Guards, Note
from saddlepoint.training.measure import Epoch, Measure
from saddlepoint.training.objective import Objective
from saddlepoint.training.precision import searched_in
from saddlepoint.training.replayed import Replays
from saddlepoint.training.settings import Trainer
from saddlepoint.training.several import Accelerated, Alone
from saddlepoint.training.state import keyed_randomness, mode
from saddlepoint.training.step import gradients, loss_of, set_gradients


@dataclass
class Position:
    """Where a run stands: whole epochs, batches within the next one, steps in all, and the epoch's loss so far."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    total: float = 0.0
    seen: int = 0


@dataclass
class Good:
    """The weights to end with or to go back to, and what made them good."""

    epoch: int = 0
    score: tuple[int, int] = (-1, -1)
    state: dict[str, Tensor] = field(default_factory=dict)


class Run:
    """One training of `net`, in place."""

    def __init__(
        self,
        net: nn.Module,
        data: Data,
        objective: Objective,
        trainer: Trainer,
        measure: Measure | None,
        guards: Guards | None,
        keeper: Keeper | None,
    ) -> None:
        self.net, self.objective, self.trainer, self.guards, self.keeper = net, objective, trainer, guards, keeper
        self.measure = measure if measure is not None and len(measure.data) else None
        self.weights = [weight for weight in net.parameters() if weight.requires_grad]
        self.feed = Feed(data, trainer.batch, trainer.seed, self.weights[0].device)
        self.optimiser = trainer.optimiser_of(self.weights)
        self.average = Average(net, trainer)
        self.devices = Accelerated() if trainer.devices == "accelerate" else Alone()
        check_rows(net, data, trainer, len(data) // self.feed.count)
        if self.measure is not None:
            check_measure(net, data, self.measure)
        if isinstance(objective, Replays):
            check_replays(trainer)
        self.position, self.good = Position(), Good()
        self.events: list[Epoch | Note] = []
        self.carried: Tensor | None = None
        self.stopped = False
        self._collapsed = 0
        self._replays = objective.replays if isinstance(objective, Replays) else 1
        self._steps = self.feed.count * self._replays
        self._settings: dict[str, Any] = {}
        self._searches = searched_in(trainer.precision, self.weights[0])
        if keeper is not None:
            self._settings = _settings(objective, trainer, guards, measure, data, net)
            self._resume(keeper)

    @property
    def done(self) -> bool:
        """Whether all epochs are done, or a guard has stopped the run."""
        return self.stopped or self.position.epoch >= self.trainer.epochs

    def epoch(self) -> None:
        """The rest of one epoch, its measure, and the guards."""
        here = self.position
        with mode(self.net, True):
            for part in self.feed.batches(here.epoch, here.batch):
                if isinstance(self.objective, Replays):
                    self._replayed_batch(self.objective, part)
                else:
                    self._batch(part)
                here.batch += 1
                if self.keeper is not None and here.batch < self.feed.count and self.keeper.due():
                    self._keep(self.keeper)
        self.devices.agree(self.net)
        self.average.after_epoch(self.net, here.epoch + 1)
        self._measured(here.total / here.seen)
        self.position = Position(here.epoch + 1, step=here.step)
        if self.keeper is not None:
            self._keep(self.keeper)

    def finish(self) -> None:
        """The weights to end with: those kept, or else the averages."""
        kept = self.stopped or (self.guards is not None and self.guards.keep_best)
        state = self.good.state if kept else {}
        self.net.load_state_dict(state or state_of(self.average.network(self.net, self.feed)))

    # -- a batch ---------------------------------------------------------------------------------------------
    def _batch(self, part: Part) -> None:
        here, trainer = self.position, self.trainer
        stage = self.objective.at(trainer.fraction(here.step, self._steps))
        sums: list[Tensor | None] = [None] * len(self.weights)
        value, own = 0.0, self.devices.own(part)
        with keyed_randomness(trainer.seed, "layers", here.step):
            for piece in own.split(trainer.accumulate):
                loss = loss_of(stage, self.net, piece, trainer.precision) * (len(piece) / len(part))
                value += float(loss.detach())
                sums = gradients(loss, self.weights, sums)
        self._step(*self.devices.summed(sums, value), len(part))

    def _replayed_batch(self, objective: Replays, part: Part) -> None:
        here, trainer = self.position, self.trainer
        for _ in range(objective.replays):
            stage = objective.at(trainer.fraction(here.step, self._steps))
            z = stage.begin(part.x, _rows_of(self.carried, part.x)).detach().requires_grad_()
            with keyed_randomness(trainer.seed, "layers", here.step):
                loss = stage.loss_at(self.net, z, part.y)
                *sums, slope = gradients(loss, [*self.weights, z], [None] * (len(self.weights) + 1))
            assert slope is not None
            self.carried = (stage.move(part.x, z.detach(), slope) - part.x).detach()
            self._step(sums, float(loss.detach()), len(part))

    def _step(self, sums: list[Tensor | None], value: float, rows: int) -> None:
        here, trainer = self.position, self.trainer
        if not math.isfinite(value):
            raise NonFinite(
                f"The training loss became {value} in epoch {here.epoch + 1}.",
                f"Lower the rate ({trainer.rate}) or check the data and the network's initial weights.",
            )
        here.total, here.seen = here.total + value * rows, here.seen + rows
        rate = trainer.rate_at((here.step + 0.5) / (self._steps * trainer.epochs))
        set_gradients(self.weights, sums, trainer.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.after_step(self.net)
        here.step += 1

    # -- the end of an epoch ---------------------------------------------------------------------------------
    def _measured(self, loss: float) -> None:
        number = self.position.epoch + 1
        full = number > self.trainer.warm_up
        if self.measure is None:
            self.events.append(Epoch(number, loss))
            return
        current = self.average.network(self.net, self.feed)
        epoch = Epoch(number, loss, **asdict(self.measure(current)))
        self.events.append(epoch)
        if self.guards is None:
            return
        overfitted = self.guards.overfitted(epoch, self.objective) if full else None
        collapsed = self.guards.collapsed(epoch)
        self._collapsed = self._collapsed + 1 if collapsed and full else 0
        for note in filter(None, (overfitted, collapsed)):
            self.events.append(note)
        if overfitted or self._collapsed >= self.guards.patience:
            self._stop(number)
        elif not collapsed:
            score = (int(full), epoch.clean_k if epoch.robust_k is None else epoch.robust_k)
            if not self.guards.keep_best or self.guards.as_good(score, self.good.score, epoch.n):
                self.good = Good(number, max(score, self.good.score), state_of(current))
        if number == self.trainer.epochs and self.guards.keep_best and 0 < self.good.epoch < number:
            text = f"the weights of epoch {self.good.epoch} are kept, the last as good as the best on validation"
            self.events.append(Note(number, "overfitting", text))

    def _stop(self, number: int) -> None:
        """Back to the last good epoch and out, where there is one; a run that never was good goes on."""
        if self.good.state:
            self.stopped = True
            self.events.append(Note(number, "stopped", f"back to the weights of epoch {self.good.epoch}"))

    # -- checkpoints -----------------------------------------------------------------------------------------
    def _keep(self, keeper: Keeper) -> None:
        tensors = {
            **under("net", state_of(self.net)),
            **under("optimiser", optimiser_tensors(self.optimiser)),
            **under("good", self.good.state),
            **(under("average", self.average.weights) if self.average.count else {}),
            **({"carried": self.carried} if self.carried is not None else {}),
        }
        facts = {
            "settings": self._settings,
            "searches": self._searches,
            "position": asdict(self.position),
            "events": [[type(event).__name__, asdict(event)] for event in self.events],
            "good": [self.good.epoch, list(self.good.score)],
            "averaged": self.average.count,
            "stopped": self.stopped,
            "collapsed": self._collapsed,
        }
        if self.devices.first:
            keeper.write(tensors, facts)
        if keeper.stopping:
            raise KeyboardInterrupt

    def _resume(self, keeper: Keeper) -> None:
        found = keeper.read()
        if found is None:
            return
        tensors, facts = found
        check_settings(facts["settings"], self._settings)
        self.net.load_state_dict(below("net", tensors))
        restore_optimiser(self.optimiser, below("optimiser", tensors))
        self.position = Position(**facts["position"])
        self.events = [_EVENTS[kind](**values) for kind, values in facts["events"]]
        epoch, score = facts["good"]
        device = self.weights[0].device
        self.good = Good(epoch, (score[0], score[1]), {k: v.to(device) for k, v in below("good", tensors).items()})
        if facts["averaged"]:
            self.average.load(facts["averaged"], below("average", tensors))
        self.carried = tensors["carried"].to(device) if "carried" in tensors else None
        self.stopped, self._collapsed = facts["stopped"], facts["collapsed"]
        before = facts.get("searches", self._searches)
        if before != self._searches and not self.done:
            text = f"searches were in {before} until here, and are in {self._searches} on this processor"
            remedy = "equal seeds give other weights; precision full makes none of this difference"
            self.events.append(Note(self.position.epoch + 1, "precision", f"{text}: {remedy}"))


_EVENTS = {"Epoch": Epoch, "Note": Note}


def _rows_of(carried: Tensor | None, x: Tensor) -> Tensor:
    """The perturbation carried over, for as many rows as the batch has; 0 where there is none."""
    offset = torch.zeros_like(x)
    if carried is not None:
        rows = min(len(carried), len(x))
        offset[:rows] = carried[:rows]
    return offset


def _settings(
    objective: Objective, trainer: Trainer, guards: Guards | None, measure: Measure | None, data: Data, net: nn.Module
) -> dict[str, Any]:
    held_out = None if measure is None else {**described(measure), "data": measure.data.digest}
    return {
        "objective": described(objective),
        **{k: v for k, v in described(trainer).items() if k != "kind"},
        "guards": described(guards),
        "validation": held_out,
        "data": data.digest,
        "network": str(net),
        "initial weights": digest_tensors({name: tensor.cpu() for name, tensor in net.state_dict().items()}),
    }
