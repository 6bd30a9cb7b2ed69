"""One perturbation for all, as an answer: δ itself, and how many samples it fools that it was not made on.

    rate = #{i : f(x_i) right, f(x_i(δ)) broken} / #{i : f(x_i) right}        counts, on samples held out

`find_universal` runs the ascent and keeps, of all its steps, the δ that fools most samples of the training part.
Beside the rate on the held-out part stands that of one random perturbation of the same size (a universal control).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.attack.engine import EngineSettings
from saddlepoint.attack.engine.answer import Answerer, Question
from saddlepoint.attack.measure import Rate, clean_margins, margins
from saddlepoint.attack.rows import Rows, take
from saddlepoint.attack.steps import project, strict_limits, unit
from saddlepoint.attack.universal.ascent import Universal
from saddlepoint.attack.universal.shared import home, points
from saddlepoint.core.errors import InputError
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.geometry import L2, Linf
from saddlepoint.spec.goal import Targeted, Untargeted
from saddlepoint.spec.model import Model


@dataclass(frozen=True)
class Shared:
    """δ (one difference, content or parameter vector), and what it fools: its own samples, others, and noise's."""

    delta: Float[Tensor, "..."]
    pasted: bool
    trained: Rate
    held_out: Rate
    noise: Rate
    forwards: int
    backwards: int

    def on(self, rows: Rows, model: Model) -> Float[Tensor, "b ..."]:
        """The points (or parameters) that δ makes of samples, each in its own set."""
        return points(_ready(rows, model), self.delta[None], self.pasted)

    def __str__(self) -> str:
        return f"held out {self.held_out}, trained on {self.trained}, noise of that size {self.noise}"


def find_universal(
    model: Model,
    rows: Rows,
    held_out: Rows,
    attack: Universal | None = None,
    settings: EngineSettings | None = None,
) -> Shared:
    """Find δ on `rows`, and count what it does to `held_out`; of both, samples that the model gets right.

    Raises InputError where the two share a sample or differ in their set.
    """
    attack, settings = attack or Universal(), settings or EngineSettings()
    rows, held_out = split(model, rows, held_out, settings)
    answerer = Answerer(model, settings.rows_per_call(rows.x0), pad=settings.deterministic)
    sample = torch.arange(len(rows), device=rows.x0.device)
    best, most, asks = None, -1, 0
    with torch.no_grad():
        state, ask = attack.init(rows)
        while ask is not None:
            reply = answerer([Question(rows, ask, sample)])[0]
            asks, fooled = asks + 1, int((reply.margin <= 0).sum())
            if fooled > most:
                best, most = state.delta[0].clone(), fooled
            state, ask = attack.step(state, reply.answers)
    delta = state.delta[0] if best is None else best
    return counted(model, (rows, held_out), delta, attack.pasted, (asks, asks - 1), settings)


def split(model: Model, rows: Rows, held_out: Rows, settings: EngineSettings) -> tuple[Rows, Rows]:
    """Both parts, of each the samples that the model gets right. Raises InputError where they overlap or differ."""
    both = set(rows.ids) & set(held_out.ids)
    if both or rows.set != held_out.set:
        what = f"{len(both)} samples are in both parts" if both else f"sets differ: {rows.set}, {held_out.set}"
        raise InputError(f"{what}.", "Hold out other samples, under the same set.")
    parts = [_ready(part, model) for part in (rows, held_out)]
    right = [_right(model, part, settings) for part in parts]
    kept = [take(part, index.nonzero()[:, 0]) for part, index in zip(parts, right, strict=True)]
    if not len(kept[0]):
        raise InputError(f"of {len(rows)} samples the model gets none right.", "Give others: there is nothing to fool.")
    return kept[0], kept[1]


def counted(
    model: Model,
    parts: tuple[Rows, Rows],
    delta: Tensor,
    pasted: bool,
    cost: tuple[int, int],
    settings: EngineSettings,
) -> Shared:
    """What δ, and a random one of its size, do to the two parts. Cost: (forwards, backwards) per sample."""
    rows, held_out = parts

    def rate(part: Rows, shared: Tensor) -> Rate:
        return Rate.of(margins(model, part, points(part, shared[None], pasted), settings) <= 0)

    random = _noise(rows, delta, pasted, settings.seed)
    return Shared(
        delta=delta,
        pasted=pasted,
        trained=rate(rows, delta),
        held_out=rate(held_out, delta),
        noise=rate(held_out, random),
        forwards=cost[0] * len(rows),
        backwards=cost[1] * len(rows),
    )


def _ready(rows: Rows, model: Model) -> Rows:
    rows = replace(rows, set=rows.set.within(model.domain), clean=None)
    return replace(rows, limits=strict_limits(rows))


def _right(model: Model, rows: Rows, settings: EngineSettings) -> Tensor:
    right = clean_margins(model, replace(rows, goal=Untargeted()), settings) > 0  # NaN is not right
    return right & (rows.y != rows.goal.label) if isinstance(rows.goal, Targeted) else right


def _noise(rows: Rows, delta: Tensor, pasted: bool, seed: int) -> Tensor:
    """One random δ: of the same norm in a ball (±, or a direction), uniform in its box otherwise."""
    one, draws = home(rows, pasted), Draws(row_keys(seed, ["δ"], "noise").to(delta.device))
    if isinstance(rows.set, (Linf, L2)):
        normal = draws.normal(delta.shape, dtype=delta.dtype)
        way = normal.sign() if isinstance(rows.set, Linf) else unit(normal)
        return project(one, delta.abs().amax() * way if isinstance(rows.set, Linf) else delta.norm() * way)[0]
    if one.limits is None:
        return one.set.resized(one.set.gauge(one.x0, delta[None])).sample(one.x0, draws)[0]
    lower, upper = one.limits
    return (lower + draws.uniform(delta.shape, dtype=delta.dtype) * (upper - lower))[0]
