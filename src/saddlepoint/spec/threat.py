"""A threat: which points, with what access, how many queries, to what end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from saddlepoint.core.digests import canonical_json
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.geometry.box import Box
from saddlepoint.spec.access import Access
from saddlepoint.spec.goal import Goal, Untargeted


@dataclass(frozen=True)
class Threat:
    """The adversary's rules. `canonical()` is their one text, under which evidence is filed."""

    set: PerturbationSet
    access: Access = Access.GRAPH
    queries: int | None = None
    goal: Goal = field(default_factory=Untargeted)

    def within(self, box: Box) -> Threat:
        """The same threat, its points kept inside the data box."""
        return replace(self, set=self.set.within(box))

    def canonical(self) -> str:
        """Canonical JSON: equal threats have equal texts."""
        return canonical_json(
            {
                "set": self.set.canonical(),
                "access": self.access.name,
                "queries": self.queries,
                "goal": self.goal.canonical(),
            }
        )
