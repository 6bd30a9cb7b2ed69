"""A stage: one method, and for which models and threats it can say anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from saddlepoint.attack.protocol import Attack, parameters
from saddlepoint.bound.base import BoundMethod
from saddlepoint.bound.complete import Complete
from saddlepoint.bound.smoothing import RandomizedSmoothing
from saddlepoint.core.digests import canonical_json
from saddlepoint.geometry import RotationTranslation
from saddlepoint.spec import Access, Method, Model, Targeted, Threat
from saddlepoint.spec.bracket import CLEAN
from saddlepoint.spec.evidence import Side


@dataclass(frozen=True)
class Clean:
    """The sample itself as witness: x0 lies in every set, so m* ≤ m(x0)."""

    name: ClassVar[str] = CLEAN


@dataclass(frozen=True)
class Stage:
    """One method of a plan, as configured; `near` leaves out samples that earlier stages left too far from falling
    (attack/cascade.py). It chooses samples and changes no evidence, so it is no part of the method's identity."""

    config: Attack | BoundMethod | RandomizedSmoothing | Complete | Clean
    near: float | None = None

    @property
    def name(self) -> str:
        """The method's name in evidence."""
        return self.config.name

    @property
    def side(self) -> Side:
        """Which side of the bracket it tightens."""
        return "upper" if isinstance(self.config, (Clean, Attack)) else "lower"

    def method(self, seed: int) -> Method:
        """The identity under which its evidence is filed. What draws nothing has no seed."""
        if isinstance(self.config, Attack):
            return self.config.method(seed)
        version = getattr(self.config, "version", "1")
        drawn = seed if isinstance(self.config, RandomizedSmoothing) else 0
        return Method(self.name, version, canonical_json(parameters(self.config)), drawn)

    def refusal(self, model: Model, threat: Threat) -> str:
        """Why it cannot run on this model under this threat; "" if it can."""
        if isinstance(self.config, Clean):
            return ""
        if isinstance(self.config, Attack):
            allowed = model.access & threat.access
            short = self.config.needs not in allowed
            return f"{self.name} needs {self.config.needs.name} access, there is {allowed.name}" if short else ""
        if isinstance(self.config, RandomizedSmoothing):
            return "" if model.smoothing else f"{self.name} certifies smoothed predictors: load one with --smooth"
        if isinstance(self.config, Complete) and isinstance(threat.goal, Targeted):
            return f"{self.name} answers whether the label stays, not whether a target is reached"
        if model.access is not Access.GRAPH:
            return f"{self.name} needs the model's graph, there is {model.access.name} access"
        if threat.set.parametric and not isinstance(self.config, Complete):
            return f"{self.name} bounds sets of points, not of parameters"
        if threat.set.parametric and not isinstance(threat.set, RotationTranslation):
            return f"{self.name} certifies rotation + translation, this is a set of kind {threat.set.kind}"
        return ""

    def window(self, batch: int) -> int:
        """Samples in one unit of work: enough to keep the batch full while samples fall, few where one costs much."""
        if isinstance(self.config, Complete):
            return 1
        return 2 * batch if self.side == "upper" else max(1, batch // 4)
