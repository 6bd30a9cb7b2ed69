"""An attack under a set, with what the promises need: rows, runs through the engine, and a walk step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from saddlepoint.attack import Answers, Ask, Attack, EngineSettings, Outcome, Rows, run
from saddlepoint.attack.engine.answer import Answerer, Question
from saddlepoint.attack.steps import strict_limits
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.geometry import PerturbationSet
from saddlepoint.testing.models import UNIT, convnet, images, wrap

CLASSES, COUNT = 5, 8
_PATIENCE = 3  # asks over the budget before a walk is given up


@dataclass(frozen=True)
class Trial:
    """An attack under a threat. `net` makes another network than `convnet`: (b, 1, 8, 8) → (b, 5)."""

    attack: Attack[Any]
    threat: PerturbationSet
    net: Callable[[], nn.Module] | None = None

    def network(self) -> nn.Module:
        """The network that is attacked; a fresh one unless the author gave theirs."""
        return convnet(CLASSES) if self.net is None else self.net()

    def rows(self, count: int = COUNT) -> Rows:
        """Images with their labels and the set."""
        return images(self.network(), count, self.threat)

    def run(self, fn: Callable[[Tensor], Tensor] | None = None, rows: Rows | None = None, **how: Any) -> Outcome:
        """The attack through the engine; `how` are fields of EngineSettings."""
        model = wrap(fn or self.network(), CLASSES)
        return run(model, self.attack, rows or self.rows(), EngineSettings(**how))

    def most(self) -> tuple[int, int]:
        """Most forwards and backwards of a sample, x0's own and the ranking of targets included."""
        targets, ranking = self._targets(torch.zeros(1, CLASSES), torch.zeros(1, dtype=torch.int64))
        items = self.attack.restarts * (1 if targets is None else targets.shape[1])
        forwards, backwards = items * self.attack.forwards, items * self.attack.backwards
        return 1 + forwards + ranking, backwards + ranking * (CLASSES - 1)

    def fresh(self, count: int = COUNT) -> Rows:
        """Rows as the engine hands them to `init`: in the data box, with clean logits, numbers and a target."""
        rows = self.rows(count)
        rows = replace(rows, set=rows.set.within(UNIT))
        with torch.no_grad():
            clean = self.network()(rows.x0)
        targets, _ = self._targets(clean, rows.y)
        draws = Draws(row_keys(0, rows.ids, self.attack.stream))
        target = None if targets is None else targets[:, 0]
        return replace(rows, clean=clean, draws=draws, target=target, limits=strict_limits(rows))

    def walk(self, rows: Rows) -> Iterator[tuple[Any, Ask, Answers]]:
        """(state, ask, answers) of every ask of one item, from `init` on; given up a little over the budget."""
        answerer = Answerer(wrap(self.network(), CLASSES), len(rows))
        sample = torch.arange(len(rows))
        with torch.no_grad():
            state, ask = self.attack.init(rows)
            for _ in range(self.attack.forwards + _PATIENCE):
                answers = answerer([Question(rows, ask, sample)])[0].answers
                yield state, ask, answers
                state, following = self.attack.step(state, answers)
                if following is None:
                    return
                ask = following

    def _targets(self, clean: Tensor, y: Tensor) -> tuple[Tensor | None, bool]:
        """The attack's targets, and whether the engine ranks classes by slope for them."""
        if self.attack.ranks_by_slope:
            return self.attack.targets(clean, y, torch.ones_like(clean)), True
        return self.attack.targets(clean, y), False
