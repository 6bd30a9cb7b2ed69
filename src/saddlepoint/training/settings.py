"""Settings of the loop: the optimiser, its rate over time, how fast the set grows, averages of the weights, precision.

Rates over p, the part of training that is done:
    cosine     r (1 + cos π p) / 2
    cyclic     r p / 0.4 up to p = 0.4, then r (1 − p) / 0.6          Smith 2017; Wong, Rice, Kolter 2020, §5
    step       r, r / 10 from p = 1/2, r / 100 from p = 3/4           Rice, Wong, Kolter 2020, §3
    constant   r
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import torch
from torch import Tensor

from saddlepoint.core.errors import InputError
from saddlepoint.training.checks import check, check_above, check_count

Optimiser = Literal["adam", "adamw", "sgd"]
Schedule = Literal["cosine", "cyclic", "step", "constant"]
Averaging = Literal["none", "ema", "swa"]
Precision = Literal["auto", "full", "outer", "all"]
Devices = Literal["one", "accelerate"]
_PEAK = 0.4  # where the cyclic rate is highest


@dataclass(frozen=True)
class Trainer:
    """Settings of the loop.

    `warm_up`: epochs (or a part of one) over which the set (and what an objective weighs with it) grows, step by step,
    to its full size.
    `batch` samples make a step; their gradients are worked out in `accumulate` parts. `clip`: largest norm of the
    gradient. `precision`: bfloat16 for nothing ("full"), for inner searches where the processor multiplies it
    in hardware ("auto"), for the outer loss instead ("outer"), or for the whole objective ("all"); weights and
    optimiser stay in their own type. EMA averages the weights of every step with `decay`; SWA those at the end of
    every epoch from `average_from` on.
    """

    epochs: int = 10
    batch: int = 64
    rate: float = 2e-3
    weight_decay: float = 0.0
    warm_up: float | int = 0
    seed: int = 0
    optimiser: Optimiser = "adam"
    schedule: Schedule = "cosine"
    momentum: float = 0.9
    nesterov: bool = True
    clip: float | None = None
    averaging: Averaging = "none"
    decay: float = 0.999
    average_from: float = 0.75
    accumulate: int = 1
    precision: Precision = "auto"
    devices: Devices = "one"
    """"accelerate": the processes of `accelerate launch` share every batch (several.py)."""

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)
        check_count("batch", self.batch)
        if not 0 <= self.warm_up <= self.epochs:
            raise InputError(
                f"A warm-up of {self.warm_up} in {self.epochs} epochs: the set never has its whole size.",
                "Give a warm_up from 0 to the number of epochs.",
            )
        if not (math.isfinite(self.rate) and self.rate > 0 and self.weight_decay >= 0):
            raise InputError(f"rate={self.rate}, weight_decay={self.weight_decay} are no step sizes.")
        words = {
            "optimiser": Optimiser,
            "schedule": Schedule,
            "averaging": Averaging,
            "precision": Precision,
            "devices": Devices,
        }
        for name, allowed in words.items():
            if getattr(self, name) not in get_args(allowed):
                raise InputError(f"{name}={getattr(self, name)!r}.", f"Give one of {', '.join(get_args(allowed))}.")
        check("momentum", self.momentum, 0, 1)
        check("decay", self.decay, 0, 1)
        check("average_from", self.average_from, 0, 1)
        check_count("accumulate", self.accumulate, self.batch)
        if self.clip is not None:
            check_above("clip", self.clip)

    def fraction(self, step: int, per_epoch: int) -> Fraction:
        """How much of the set's size step number `step` (from 0) uses, with `per_epoch` steps an epoch."""
        return min(Fraction(1), Fraction(step + 1, round(self.warm_up * per_epoch) + 1))

    def rate_at(self, progress: float) -> float:
        """The rate when this part of training (0 ≤ progress < 1) is done."""
        if self.schedule == "cosine":
            return self.rate * (1 + math.cos(math.pi * progress)) / 2
        if self.schedule == "cyclic":
            return self.rate * min(progress / _PEAK, (1 - progress) / (1 - _PEAK))
        if self.schedule == "step":
            return self.rate * (1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01)
        return self.rate

    def optimiser_of(self, weights: Iterable[Tensor]) -> torch.optim.Optimizer:
        """A fresh optimiser of these weights."""
        if self.optimiser == "sgd":
            nesterov = self.nesterov and self.momentum > 0
            return torch.optim.SGD(weights, self.rate, self.momentum, 0, self.weight_decay, nesterov)
        kind = torch.optim.Adam if self.optimiser == "adam" else torch.optim.AdamW
        return kind(weights, lr=self.rate, weight_decay=self.weight_decay)
