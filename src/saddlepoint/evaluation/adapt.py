"""`run --adapt`: examine a few samples first, then attack what the model computes, not what it lets be differentiated.

    findings  →  cures  →  (the same model with other slopes, or the mean of its draws;  the plan with stages added)

Only a stand-in that was seen to break more than the model's own gradients is applied (or the best one, where the model
has no gradients at all): the choice rests on what attacks did on the sample. Verdicts are the deployed model's as ever,
so a cure that does not help costs time and no soundness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from saddlepoint.attack import APGD, APGDTargeted, RandomSearch, Square
from saddlepoint.core.errors import InputError
from saddlepoint.evaluation.cures import cured, draws_of
from saddlepoint.evaluation.doctor.case import Effort
from saddlepoint.evaluation.doctor.examine import examine
from saddlepoint.evaluation.plan import Plan
from saddlepoint.evaluation.pool import Source
from saddlepoint.evaluation.request import Request
from saddlepoint.evaluation.subjects import choose
from saddlepoint.geometry import L1, L2, Linf
from saddlepoint.ledger import RunRow
from saddlepoint.spec import Model, Threat
from saddlepoint.spec.finding import Finding

DRAWS = 20  # of a random model
_STEPS = 100
_SEARCHED = 4  # samples looked at for each that is examined: some are misclassified


@dataclass(frozen=True)
class Adaptation:
    """What was found on the sample under `threat`, and the cures that follow from it ([] where nothing needs any)."""

    threat: Threat
    findings: tuple[Finding, ...]
    cures: tuple[str, ...]

    def plan(self, plan: Plan) -> Plan:
        """The plan with the stages that the cures ask for at its end."""
        if not self.cures:
            return plan
        name = f"{plan.name} + {' '.join(self.cures)}"
        return Plan(name, lambda threat: [*plan.choose(threat), *_stages(self.cures, threat)])

    def request(self, request: Request) -> Request:
        """What was asked, with the cures applied; `request.model` and `source` are those that were examined."""
        draws = draws_of(self.cures)
        return replace(
            request,
            model=cured(request.model, self.cures),
            plan=self.plan(request.plan),
            source=None if request.source is None else AdaptedSource(request.source, self.cures),
            model_options=request.model_options | ({} if draws is None else {"eot": draws}),
            adapted=self.cures,
        )


@dataclass(frozen=True)
class AdaptedSource:
    """A source with cures applied, for worker processes."""

    source: Source
    cures: tuple[str, ...]

    def __call__(self) -> Model:
        """Load it."""
        return cured(self.source(), self.cures)


def adapt(request: Request, effort: Effort | None = None, draws: int = DRAWS) -> Adaptation:
    """Examine the model on some of the samples asked for, under the first threat whose points are inputs.

    `draws` is how many of a random model's draws are averaged. Raises InputError and its children, as `prepare` does.
    """
    if request.model.smoothing is not None:
        raise InputError("a smoothed model is not adapted.", "Leave out --adapt, or --smooth.")
    effort = effort or Effort()
    threat = next((t for t in request.threats if not t.set.parametric), request.threats[0])
    positions = choose(request.data, request.n, request.sample, request.work.seed)
    apart = max(1, len(positions) // (_SEARCHED * effort.samples))  # data may be sorted by class
    batch = request.data.take(positions[::apart][: _SEARCHED * effort.samples])
    request.model.require_inside(batch.x)
    findings = examine(request.model, batch, threat, effort)
    return Adaptation(threat, tuple(findings), prescription(findings, draws))


def prescription(findings: Sequence[Finding], draws: int = DRAWS) -> tuple[str, ...]:
    """The cures to apply: the stand-in that proved itself, draws for a random model, and stages for the rest."""
    by = {finding.id: finding for finding in findings}
    chosen = list(by["stand-in"].cures) if "stand-in" in by else []
    if "randomness" in by and by["randomness"].fires:
        chosen.append(f"eot:{draws}")
    fired = [finding for finding in findings if finding.fires]
    if fired:
        steps = [cure for finding in fired for cure in finding.cures if cure.startswith("steps:")]
        chosen += ["loss:margin", *steps[:1], "square"]  # cheap where all has fallen: later stages see what stands
    return tuple(dict.fromkeys(chosen))


def cures_of(runs: Sequence[RunRow], spec: str) -> tuple[str, ...]:
    """The cures of the latest adapted run of the model that `spec` names; () if none was adapted."""
    told = [run.spec.get("adapted", []) for run in runs if run.spec.get("model") == spec]
    return next((tuple(cures) for cures in reversed(told) if cures), ())


def _stages(cures: Sequence[str], threat: Threat) -> list[APGD | APGDTargeted | Square | RandomSearch]:
    """The stages at a plan's end: the margin with restarts, targets, and a search without gradients."""
    steps = max([_STEPS, *(int(cure[6:]) for cure in cures if cure.startswith("steps:"))])
    draws = draws_of(cures) or 1
    short = steps if draws == 1 else _STEPS // 2
    search = 1000 // draws
    black_box = Square(search) if isinstance(threat.set, (Linf, L2, L1)) else RandomSearch(search)
    return [APGD(short, 2, "margin"), APGDTargeted(short), black_box]
