"""What a plan would cost: the method's own count of passes, times measured seconds per pass. It attacks nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.attack.protocol import Attack
from saddlepoint.bound.complete import Complete
from saddlepoint.bound.smoothing import RandomizedSmoothing
from saddlepoint.core.errors import InputError
from saddlepoint.evaluation.plan import Plan
from saddlepoint.evaluation.stages import Clean
from saddlepoint.graph.ir import Graph
from saddlepoint.spec import Access, Model, Threat, margin_matrix


@dataclass(frozen=True)
class Estimate:
    """At most so many passes and seconds per sample that no earlier stage decides."""

    plan: str
    forwards: int
    backwards: int
    seconds: float


def estimate(model: Model, plan: Plan, threat: Threat, x: Tensor, y: Tensor) -> Estimate:
    """Cost per sample under a threat, measured on the batch given (about a second's work)."""
    forward = _per_sample(lambda: _forward(model, x), len(x))
    step = _per_sample(lambda: _gradient(model, x), len(x)) if Access.GRADIENT in model.access else forward
    backward = max(0.0, step - forward)
    forwards, backwards, seconds = 1, 0, forward
    for stage in plan.for_model(model).stages(threat):
        if stage.refusal(model, threat) or isinstance(stage.config, Clean):
            continue
        if isinstance(stage.config, Attack):
            targets = stage.config.targets(model(x[:1]).detach(), y[:1])
            items = stage.config.restarts * (1 if targets is None else targets.shape[1])
            forwards += items * stage.config.forwards
            backwards += items * stage.config.backwards
            seconds += items * (stage.config.forwards * forward + stage.config.backwards * backward)
        elif isinstance(stage.config, RandomizedSmoothing):
            draws = stage.config.n0 + stage.config.n  # of the base classifier: one forward of g is a mean of several
            forwards += draws
            seconds += draws * forward / (1 if model.sampling is None else model.sampling.draws)
        elif isinstance(stage.config, Complete):
            seconds += stage.config.seconds  # at most; what a sample needs is known afterwards
        elif isinstance(model.graph, Graph):
            some = x[:4].to(model.graph.dtype)
            C = margin_matrix(y[:4], model.classes, some.dtype)
            begun = time.perf_counter()
            try:
                stage.config(model.graph, threat.set, some, C)
            except InputError:  # this bound will refuse: it costs nothing
                continue
            seconds += (time.perf_counter() - begun) / len(some)
    return Estimate(plan.name, forwards, backwards, seconds)


def _per_sample(call: Callable[[], object], count: int) -> float:
    call()
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return sorted(times)[1] / count


@torch.no_grad()
def _forward(model: Model, x: Tensor) -> Tensor:
    return model(x)


def _gradient(model: Model, x: Tensor) -> Tensor:
    points = x.clone().requires_grad_()
    return torch.autograd.grad(model(points).sum(), points)[0]
