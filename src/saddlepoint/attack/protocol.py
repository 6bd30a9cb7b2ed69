"""Ask and tell: how an attack and the engine talk.

An attack is an update rule. It never calls the model, never loops over the batch and never looks at which
rows fell: `init` and `step` return an `Ask` (points, and what is wanted there), the engine answers it with
one forward (and one backward where a gradient is wanted), keeps the best points and decides who goes on.
The objective is always *maximised*.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, TypeVar

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from saddlepoint.attack.rows import Rows
from saddlepoint.core.digests import canonical_json
from saddlepoint.core.errors import InputError
from saddlepoint.spec.access import Access
from saddlepoint.spec.evidence import Method

S = TypeVar("S")

Objective = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""loss(logits (b, K), y (b,), target (b,) or None) -> (b,), to be maximised; row i depends on row i only."""


@dataclass(frozen=True)
class Ask:
    """Points in search space (inputs, or the parameters of a parametric set), and what is wanted there.

    `want` is a level of access: LABEL, SCORES or GRADIENT (of `objective` with respect to the points).
    `scale_free` says that the gradient is needed up to a positive factor per row only; the engine then
    scales the loss's slope in the logits to 1 first, so that saturated losses keep a direction.
    `done` marks rows whose search ends with this answer. `target` (b,) takes the place of the rows' own targets.
    `values` False says that the next step reads gradients only: values may then be looked at where it matters alone.
    """

    points: Float[Tensor, "b ..."]
    want: Access = Access.GRADIENT
    objective: Objective | None = None
    scale_free: bool = False
    done: Bool[Tensor, " b"] | None = None
    target: Int64[Tensor, " b"] | None = None
    values: bool = True


@dataclass(frozen=True)
class Answers:
    """What the model said. Reading what was not asked for raises InputError.

    Not-a-number never reaches a step rule as a direction: gradients that are not finite are zero.
    """

    label: Int64[Tensor, " b"]
    scores: Float[Tensor, "b k"] | None = None
    margins: Float[Tensor, " b"] | None = None
    values: Float[Tensor, " b"] | None = None
    slopes: Float[Tensor, "b ..."] | None = None

    @property
    def logits(self) -> Float[Tensor, "b k"]:
        """Scores of the deployed model at the points."""
        return _wanted(self.scores, "logits")

    @property
    def margin(self) -> Float[Tensor, " b"]:
        """Margin under the threat's goal (broken at ≤ 0), NaN where logits are not finite."""
        return _wanted(self.margins, "margins")

    @property
    def loss(self) -> Float[Tensor, " b"]:
        """The objective's value, from the deployed model's logits."""
        return _wanted(self.values, "the loss")

    @property
    def grad(self) -> Float[Tensor, "b ..."]:
        """Gradient of the objective with respect to the points."""
        return _wanted(self.slopes, "gradients")


class Attack(ABC, Generic[S]):
    """Base of all attacks: a frozen dataclass of hyper-parameters with two pure functions.

    `minimum` attacks look for the smallest perturbation that breaks a sample: of the rows' set only the norm and
    the data box matter to them, and their asks may lie anywhere in the domain.
    `coupled` attacks share state between rows (universal perturbations): nothing is dropped or refilled.
    `forwards` and `backwards` bound the cost of one item; a sample has restarts × targets items.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    coupled: ClassVar[bool] = False
    minimum: ClassVar[bool] = False
    needs: ClassVar[Access] = Access.GRADIENT
    restarts: int = 1

    @property
    @abstractmethod
    def forwards(self) -> int:
        """Most forwards that one item asks for."""

    @property
    @abstractmethod
    def backwards(self) -> int:
        """Most backwards that one item asks for."""

    @abstractmethod
    def init(self, rows: Rows) -> tuple[S, Ask]:
        """The state of fresh rows, and their first ask."""

    @abstractmethod
    def step(self, state: S, answers: Answers) -> tuple[S, Ask | None]:
        """The next state and ask, or no ask at the end of the item."""

    @property
    def ranks_by_slope(self) -> bool:
        """Whether `targets` wants the slopes at x0 (K − 1 backwards a sample)."""
        return False

    def targets(
        self, clean: Float[Tensor, "b k"], y: Int64[Tensor, " b"], slopes: Float[Tensor, "b k"] | None = None
    ) -> Int64[Tensor, "b t"] | None:
        """The classes to try, one item each, most promising first; None for one untargeted item.

        `slopes`, where asked for: the dual norm of ∇(z_t − z_y) at x0, by how much a step of size 1 can raise class t.
        """
        return None

    @property
    def stream(self) -> str:
        """The name under which random numbers are drawn: variants of an attack should not share theirs."""
        return self.name

    def method(self, seed: int = 0) -> Method:
        """The name, version and parameters under which evidence is filed."""
        return Method(self.name, self.version, canonical_json(parameters(self)), seed)


def parameters(attack: object) -> dict[str, object]:
    """The hyper-parameters as JSON: plain values as they are, anything else by its repr."""
    plain = (str, int, float, bool, type(None))
    values = {f.name: getattr(attack, f.name) for f in fields(attack)}  # pyright: ignore[reportArgumentType]
    return {name: v if isinstance(v, plain) else repr(v) for name, v in values.items()}


def _wanted(value: Any, what: str) -> Any:
    if value is None:
        raise InputError(f"{what} were not asked for.", "Set `want` and `objective` in the Ask.")
    return value
