"""PDPGD: the smallest perturbation as a game between the perturbation and the price of its norm.

    minimise over δ   λ ‖δ‖ + loss(x0 + δ),      λ raised while x0 + δ is broken, lowered while it is not

Primal: a preconditioned gradient step on the loss, then the proximal operator of the norm in the same metric,
    δ ← prox_{λ η ‖·‖, D}(δ + η m̂ / D),   D = √v̂         (m̂, v̂: moments.py; prox: proximal.py), then the data box
Dual: log λ goes up or down by its rate, smoothed by a running mean. The norm's own kinks (ℓ1 at 0, ℓ∞ at ties)
never see a gradient: that is what the proximal step is for. Matyasko & Chau 2021, §III (two players, the dual by
multiplicative weights) and §IV (proximal steps); both rates fall exponentially to a share of their first values. The
loss's gradient is left out where the sample is broken, and scaled to ‖g‖_* = 1 (dual norm) elsewhere: then nothing
moves at the price λ = 1, for every network, by the condition λ ∂‖δ‖ ∋ g of a smallest δ.
Cost of an item: steps + 1 forwards, `steps` backwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from saddlepoint.attack.minimum.common import ball, box, broken, lead
from saddlepoint.attack.minimum.moments import Moments, no_moments
from saddlepoint.attack.minimum.proximal import prox
from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.attack.steps import dual_norm
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import L1, L2, Linf
from saddlepoint.spec.access import Access

_FLAT = 1e-3  # of the metric's largest entry: where no slope ever was, steps stay bounded


@dataclass(frozen=True)
class State:
    """The point asked for, moments of the gradient, the log of the norm's price and its smoothed step."""

    rows: Rows
    x: Tensor
    moments: Moments
    price: Tensor
    drift: Tensor
    asked: int


@dataclass(frozen=True)
class PDPGD(Attack[State]):
    """`eta`: first primal step; `price`: first λ; `dual`: first step of its logarithm; `…_decay`: share at the end."""

    name: ClassVar[str] = "pdpgd"
    minimum: ClassVar[bool] = True
    steps: int = 1000
    restarts: int = 1
    eta: float = 0.1
    eta_decay: float = 0.01
    price: float = 0.01
    dual: float = 0.1
    dual_decay: float = 0.1
    smoothing: float = 0.9

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise InputError(f"{self.steps} steps and {self.restarts} restarts must be at least 1.")
        if min(self.eta, self.eta_decay, self.price, self.dual, self.dual_decay) <= 0 or not 0 <= self.smoothing < 1:
            raise InputError(
                f"eta {self.eta}, price {self.price}, dual {self.dual} and the decays must be above 0, "
                f"smoothing {self.smoothing} in [0, 1)."
            )

    @property
    def forwards(self) -> int:
        return self.steps + 1

    @property
    def backwards(self) -> int:
        return self.steps

    def init(self, rows: Rows) -> tuple[State, Ask]:
        ball(rows, self.name, (Linf, L2, L1))
        flat = torch.zeros_like(rows.x0.flatten(1)[:, 0])
        state = State(rows, rows.x0, no_moments(rows.x0), flat + math.log(self.price), flat, -1)
        return state, self._ask(rows, rows.x0, 0)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        rows, asked = state.rows, state.asked + 1
        if asked == self.steps:
            return state, None
        hit, g = broken(answers.margin), answers.grad
        size = dual_norm(rows, g).clamp_min(torch.finfo(g.dtype).tiny)
        moments = state.moments.after(torch.where(per_row(hit, g), 0, g / per_row(size, g)))
        eta = self.eta * self.eta_decay ** (asked / self.steps)
        top = per_row(moments.scale.flatten(1).amax(1), g)
        metric = torch.maximum(moments.scale, _FLAT * top).clamp_min(torch.finfo(g.dtype).eps)
        drift = torch.lerp(torch.where(hit, 1.0, -1.0).to(g.dtype), state.drift, self.smoothing)
        price = state.price + self.dual * self.dual_decay ** (asked / self.steps) * drift
        wish = state.x - rows.x0 + eta * moments.slope / metric
        x = torch.clamp(rows.x0 + prox(rows.set, wish, metric, eta * price.exp()), *box(rows))
        return State(rows, x, moments, price, drift, asked), self._ask(rows, x, asked + 1)

    def _ask(self, rows: Rows, x: Tensor, asked: int) -> Ask:
        if asked == self.steps:
            return Ask(x, Access.SCORES)
        return Ask(x, Access.GRADIENT, lead(rows))
