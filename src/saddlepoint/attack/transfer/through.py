"""Gradients seen through something: the base of input transforms and gradient filters that make attacks transfer.

    g = F( 1/m Σ_i ∂ loss(f(T_i(x))) / ∂x )          T_i a transform of the asked points, F a filter of their gradient

The inner attack asks for the gradient at x and is told g; the model is asked at T_i(x), i = 1…m, one forward and one
backward each, and the chain rule is followed through T_i. Labels, margins and losses that the inner attack reads are
the model's at x itself (one forward more, only where they are read). So any fixed-size attack can be inside, wrappers
nest, and all randomness comes from the rows' own numbers: per sample, whatever the batch (trap 44).

    Diverse(Scaled(Smoothed(Nesterov(PGD(…)))))      SI-NI-DI-TI: the outermost transform is nearest to the model

Points T_i(x) lie outside the set as a rule; the engine looks at them and keeps none. Cost of an item: at most the
inner's forwards, plus m forwards and m backwards for each of its backwards.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saddlepoint.attack.fixed.pgd import PGD
from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.spec.access import Access

INNER = PGD(
    steps=10, step_size=0.1, random_start=False, polish=False
)  # the iterative method that the papers start from


@dataclass(frozen=True)
class Seen:
    """The inner attack's state and ask; the sum of gradients so far, a filter's memory, views and asks answered."""

    rows: Rows
    inner: Any
    ask: Ask
    total: Tensor
    memory: Tensor
    view: int
    asked: int


@dataclass(frozen=True)
class Through(Attack[Seen]):
    """Wraps a fixed-size attack. Subclasses say how many views there are, what they show, how gradients are read."""

    attack: Attack[Any] = field(default=INNER)

    def __post_init__(self) -> None:
        if self.attack.minimum or self.attack.coupled:
            raise InputError(f"{self.attack.name} inside {self.name}.", "Wrap a fixed-size attack of single samples.")

    # -- what subclasses say -------------------------------------------------------------------------------
    @property
    def views(self) -> int:
        """m: how many transformed copies are looked at for one gradient."""
        return 1

    @abstractmethod
    def look(self, seen: Seen, points: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """T_i(points), differentiable; i is seen.view."""

    def filtered(self, seen: Seen, grad: Float[Tensor, "b ..."]) -> tuple[Tensor, Tensor]:
        """F(grad), and the memory for the next one."""
        return grad, seen.memory

    # -- the inner attack's own ----------------------------------------------------------------------------
    @property
    def restarts(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The inner attack's."""
        return self.attack.restarts

    @property
    def forwards(self) -> int:
        return self.attack.forwards + self.views * self.attack.backwards

    @property
    def backwards(self) -> int:
        return self.views * self.attack.backwards

    @property
    def stream(self) -> str:
        return self.attack.stream  # the inner attack's starts are the same with and without its wrapper

    @property
    def ranks_by_slope(self) -> bool:
        return self.attack.ranks_by_slope

    def targets(
        self, clean: Float[Tensor, "b k"], y: Int64[Tensor, " b"], slopes: Float[Tensor, "b k"] | None = None
    ) -> Int64[Tensor, "b t"] | None:
        return self.attack.targets(clean, y, slopes)

    # -- ask and tell --------------------------------------------------------------------------------------
    def init(self, rows: Rows) -> tuple[Seen, Ask]:
        if rows.set.parametric:
            raise NotAvailable(f"{self.name} transforms images, {rows.set.kind} asks in parameters.", "Use Linf or L2.")
        inner, ask = self.attack.init(rows)
        return self._begin(Seen(rows, inner, ask, rows.x0, torch.zeros_like(rows.x0), 0, 0))

    def step(self, state: Seen, answers: Answers) -> tuple[Seen, Ask | None]:
        if state.ask.want < Access.GRADIENT:
            return self._tell(state, answers)
        if state.view < self.views:
            state = replace(state, total=state.total + self._pulled(state, answers.grad), view=state.view + 1)
            if state.view < self.views:
                return state, self._view(state)
            if state.ask.values:
                return state, replace(state.ask, want=Access.SCORES)
        grad, memory = self.filtered(state, state.total / self.views)
        return self._tell(replace(state, memory=memory), replace(answers, slopes=grad))

    def _begin(self, state: Seen) -> tuple[Seen, Ask]:
        """The first question that an ask of the inner attack becomes."""
        if state.ask.want < Access.GRADIENT:
            return state, state.ask
        state = replace(state, total=torch.zeros_like(state.ask.points), view=0)
        return state, self._view(state)

    def _view(self, state: Seen) -> Ask:
        ask, last = state.ask, state.view == self.views - 1 and not state.ask.values
        points = self.look(state, ask.points)
        return replace(ask, points=points, values=False, done=ask.done if last else None)

    def _pulled(self, state: Seen, grad: Tensor) -> Tensor:
        """The transpose of T_i's derivative, applied to the gradient at T_i(x)."""
        with torch.enable_grad():
            points = state.ask.points.detach().requires_grad_()
            (pulled,) = torch.autograd.grad(self.look(state, points), points, grad)
        return pulled

    def _tell(self, state: Seen, answers: Answers) -> tuple[Seen, Ask | None]:
        inner, ask = self.attack.step(state.inner, answers)
        if ask is None:
            return state, None
        return self._begin(replace(state, inner=inner, ask=ask, asked=state.asked + 1))
