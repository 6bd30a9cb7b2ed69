"""The anytime schedule: cheapest evidence first, for every sample and threat, until nothing is open or time is up.

    for stage in plan (cheapest first):  for threat:  for unit of samples still open:  execute, commit

A unit's rows and blobs are committed together, so the ledger's bracket is valid at any moment, and resuming is the plan
minus the rows present. Which samples a stage sees is decided by the evidence of *earlier* stages alone: an interrupted
and resumed run forms the same units as an uninterrupted one.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from saddlepoint.attack.cascade import worth
from saddlepoint.core.errors import Contradiction
from saddlepoint.evaluation.nested import carried, larger, smallest_first
from saddlepoint.evaluation.pool import Pool
from saddlepoint.evaluation.request import Request
from saddlepoint.evaluation.stages import Stage
from saddlepoint.evaluation.subjects import Sample
from saddlepoint.evaluation.unit import Result, Unit
from saddlepoint.ledger import Ledger
from saddlepoint.ledger.labels import label_of
from saddlepoint.spec import Method, Threat, Verdict

_OPEN = (Verdict.OPEN, Verdict.NOT_RUN, Verdict.ERROR)


@dataclass(frozen=True)
class Progress:
    """The running bracket: verdict counts of the threat under way, and how far its stage is."""

    threat: Threat
    stage: str
    counts: Counter[Verdict]
    done: int
    total: int
    seconds: float

    @property
    def eta(self) -> float | None:
        """Seconds until the stage ends, from its own pace; None before the first unit."""
        return self.seconds * (self.total - self.done) / self.done if self.done else None


Watch = Callable[[Progress], None]


class Schedule:
    """The state of one call: what is decided so far, and what refused to run."""

    def __init__(self, request: Request, ledger: Ledger, samples: list[Sample], watch: Watch, begun: float) -> None:
        self.request, self.ledger, self.samples, self.watch = request, ledger, samples, watch
        self.refused: set[str] = set()
        deadline = None if request.budget is None else begun + request.budget
        self.work = replace(request.work, deadline=deadline)
        self.threats: list[Threat] = []
        self.counts: dict[str, Counter[Verdict]] = {}
        self.verdicts: dict[str, dict[str, Verdict]] = {}

    def carry_out(self, threats: list[Threat], pool: Pool) -> None:
        """Stage by stage; within a stage, threat by threat."""
        self.threats = smallest_first(threats)
        plans = [(threat, self.request.plan.stages(threat)) for threat in self.threats]
        for threat in threats:
            self._recount(threat, [sample.subject.content for sample in self.samples])
            self._stop_the_line(threat.canonical())
        for level in range(max(len(stages) for _, stages in plans)):
            for threat, stages in plans:
                if level < len(stages) and not self.work.late():
                    earlier = [stage.method(self.work.seed) for stage in stages[:level]]
                    self._stage(stages[level], threat, earlier, pool)

    def _stage(self, stage: Stage, threat: Threat, earlier: list[Method], pool: Pool) -> None:
        refusal = stage.refusal(self.request.model, threat)
        if refusal:
            self._refuse(threat, refusal)
            return
        begun, done = time.time(), 0
        todo = self._units(stage, threat, earlier)
        total = sum(len(unit) for unit in todo)
        self._tell(threat, stage, 0, total, begun)
        results = pool.map(self._load(stage, threat, todo), self.work)
        for unit, result in results:
            self._commit(unit, result)
            done += len(unit.subjects)
            self._tell(threat, stage, done, total, begun)
            if result.refused:
                self._refuse(threat, result.refused)
                break
            if self.work.late():
                break

    def _units(self, stage: Stage, threat: Threat, earlier: list[Method]) -> list[list[Sample]]:
        """Samples still open after the earlier stages, cut into windows; windows that are done fall away."""
        model, text, size = self.request.model.digest, threat.canonical(), stage.window(self.work.batch)
        present = self.ledger.done(model, text, stage.method(self.work.seed))
        candidates = self._worth(stage, text, self._candidates(text, earlier), earlier)
        windows = [candidates[i : i + size] for i in range(0, len(candidates), size)]
        units = []
        for window in windows:
            missing = [s for s in window if s.subject.content not in present]
            missing = [s for s in missing if self.verdicts[text][s.subject.content] in _OPEN]
            if missing:
                units.append(window if self.work.deterministic else missing)
        return units

    def _candidates(self, threat: str, earlier: list[Method]) -> list[Sample]:
        """Samples that the earlier stages left open. Whoever decided the others: a later stage, another run?"""
        if not earlier:
            return self.samples
        decided = [s.subject.content for s in self.samples if self.verdicts[threat][s.subject.content] not in _OPEN]
        settled = set()
        for start in range(0, len(decided), 256):
            some = decided[start : start + 256]
            before = self.ledger.brackets(self.request.model.digest, threat, some, earlier)
            settled.update(content for content, bracket in before.items() if bracket.verdict not in _OPEN)
        return [s for s in self.samples if s.subject.content not in settled]

    def _worth(self, stage: Stage, threat: str, samples: list[Sample], earlier: list[Method]) -> list[Sample]:
        """Those that the stage's own rule still finds worth trying, by the evidence of earlier stages."""
        if stage.near is None or not earlier:
            return samples
        keep = []
        for start in range(0, len(samples), 256):
            some = samples[start : start + 256]
            contents = [s.subject.content for s in some]
            clean = self._uppers(threat, contents, earlier[:1])
            best = self._uppers(threat, contents, earlier)
            keep += [s for s, good in zip(some, worth(clean, best, stage.near).tolist(), strict=True) if good]
        return keep

    def _uppers(self, threat: str, contents: list[str], methods: list[Method]) -> torch.Tensor:
        """(n,) float64 smallest checked upper bounds of these methods, +inf where there is none."""
        found = self.ledger.brackets(self.request.model.digest, threat, contents, methods)
        rows = [found[content].upper for content in contents]
        return torch.tensor([torch.inf if row is None else row.value for row in rows], dtype=torch.float64)

    def _load(self, stage: Stage, threat: Threat, windows: list[list[Sample]]) -> Iterator[Unit]:
        for window in windows:
            if self.work.late():
                return
            batch = self.request.data.take([sample.position for sample in window])
            yield Unit(stage, threat, batch.x, batch.y, tuple(sample.subject for sample in window))

    def _commit(self, unit: Unit, result: Result) -> None:
        text, method = unit.threat.canonical(), unit.stage.method(self.work.seed)
        with self.ledger.transaction():
            known = {blob for blob, contents in result.inputs if all(map(self.ledger.input, contents))}
            for name, data in result.blobs:
                if name not in known:  # x0 is stored once, with the first witness
                    self.ledger.add_packed(name, data)
            for blob, contents in result.inputs:
                if blob not in known:
                    self.ledger.add_inputs(contents, blob)
            self.ledger.add(result.rows)
            wider = larger(unit.threat, self.threats)
            for threat in wider:
                self.ledger.add(carried(result.rows, threat))
            self.ledger.clear_failures(text, method, [row.subject for row in result.rows])
            self.ledger.add_failures(text, method, result.failed)
        for threat in (unit.threat, *wider):
            self._recount(threat, [subject.content for subject in unit.subjects])
            self._stop_the_line(threat.canonical())

    def _stop_the_line(self, text: str) -> None:
        """A contradiction, found now or in an earlier run, ends everything: nothing built on it would be believed."""
        if self.counts[text][Verdict.CONTRADICTION]:
            bad = next(c for c, v in self.verdicts[text].items() if v is Verdict.CONTRADICTION)
            sample = next(s.subject.sample for s in self.samples if s.subject.content == bad)
            raise Contradiction(
                f"sample {sample}: a certificate lies above a witnessed margin, so some method is unsound.",
                "The run has stopped; `saddlepoint replay` shows which evidence does not hold.",
            )

    def _recount(self, threat: Threat, contents: list[str]) -> None:
        text = threat.canonical()
        known = self.verdicts.setdefault(text, {})
        for start in range(0, len(contents), 256):
            folded = self.ledger.brackets(self.request.model.digest, text, contents[start : start + 256])
            known.update((content, bracket.verdict) for content, bracket in folded.items())
        self.counts[text] = Counter(known.values())

    def _refuse(self, threat: Threat, why: str) -> None:
        self.refused.add(f"{label_of(json.loads(threat.canonical()))[0]}: {why}")

    def _tell(self, threat: Threat, stage: Stage, done: int, total: int, begun: float) -> None:
        counts = self.counts[threat.canonical()]
        self.watch(Progress(threat, stage.name, counts, done, total, time.time() - begun))
