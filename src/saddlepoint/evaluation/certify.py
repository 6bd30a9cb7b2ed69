"""The lower side of a unit: bounds, counts and complete searches, each shown to its checker before it leaves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from saddlepoint.bound.base import BoundMethod
from saddlepoint.bound.complete import Complete
from saddlepoint.bound.smoothing import RandomizedSmoothing
from saddlepoint.check.certificate import Ruling, judge, question, subject
from saddlepoint.check.proofs import recheck
from saddlepoint.check.smoothing import recheck_counts
from saddlepoint.check.witness import replay
from saddlepoint.core.digests import canonical_json
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.evaluation.unit import Result, Shown, Unit, Work, inputs_of, row_of, share, singles, upper_rows
from saddlepoint.graph.ir import Graph
from saddlepoint.ledger.blobs import pack
from saddlepoint.spec import Cost, Model, Targeted, margin, margin_matrix


def bound_unit(model: Model, unit: Unit, method: BoundMethod) -> Result:
    graph = model.graph
    if not isinstance(graph, Graph):
        raise NotAvailable("bounds need the model's graph.", "See the notes of `check` for why it is missing.")
    begun = time.perf_counter()
    goal = unit.threat.goal
    x = unit.x.to(graph.dtype)  # scikit-learn's graphs are float64; every float32 is a float64
    C = margin_matrix(unit.y, model.classes, x.dtype)
    if isinstance(goal, Targeted):  # broken iff z_t is the largest: max_j (z_j − z_t) > 0 is enough to hold
        C = -margin_matrix(torch.full_like(unit.y, goal.label), model.classes, x.dtype)
    worst = torch.amax if isinstance(goal, Targeted) else torch.amin
    try:
        bounds = method(graph, unit.threat.set, x, C)
    except InputError as error:  # what a bound cannot take says nothing about the samples
        raise NotAvailable(str(error)) from error
    claimed = worst(bounds.lower, 1)
    promising = torch.nonzero(claimed > 0)[:, 0]
    value, status = claimed.double().cpu(), ["claimed"] * len(claimed)
    proof = bounds.proof.rows(promising).tensors if bounds.proof else {}
    if len(promising):
        described = unit.threat.set.canonical()
        proved = recheck(graph, described, x[promising], C[promising], proof, method.name)
        value[promising.cpu()] = worst(proved, 1).double().cpu()
        for i in promising.tolist():
            status[i] = "checked"
    name, data = pack(proof) if proof and len(promising) else ("", b"")
    place = {int(i): row for row, i in enumerate(promising.tolist())}
    cost = share(begun, len(unit.y))
    value = torch.where(value.isnan(), -torch.inf, value)  # true of any m*, and certifies nothing
    rows = [
        row_of(unit, i, float(value[i]), Shown(status[i], name if i in place else "", place.get(i, 0), cost))
        for i in range(len(unit.y))
    ]
    blobs, inputs = inputs_of(unit, promising.cpu())
    return Result(rows, ([(name, data)] if name else []) + blobs, inputs)


def count_unit(model: Model, unit: Unit, method: RandomizedSmoothing, work: Work) -> Result:
    """Certificates of a smoothed predictor from counts; the checker computes the bound from the counts again."""
    how = model.smoothing
    if how is None or isinstance(unit.threat.goal, Targeted):
        raise NotAvailable("smoothing certifies that a smoothed predictor keeps its label.", "Load it with --smooth.")
    result, described = Result(), unit.threat.set.canonical()
    for i, part in enumerate(singles(unit)):
        if work.late():
            return replace(result, stopped=True)
        begun = time.perf_counter()
        found = method.certify(how, part.x, (part.subjects[0].sample,), work.seed, work.batch)
        cost = share(begun, 1, forwards=method.n0 + int(found.drawn))
        details = {"label": int(found.label), "radius": float(found.radius), "noise": how.noise.kind}
        shown, value, proof = Shown("claimed", "", 0, cost, canonical_json(details)), -1.0, {}
        if int(found.label) == int(part.y):  # else nothing is counted about y: m* ≥ −1
            proof = {"votes": found.votes, "drawn": found.drawn}
            failure = torch.full((1,), method.failure, dtype=torch.float64)
            value = float(recheck_counts(how, described, part.x[0].numel(), proof, failure))
        if value > 0:
            name, data = pack(proof)
            shown = replace(shown, status="checked", proof=name, failure_probability=method.failure)
            blobs, inputs = inputs_of(part, torch.zeros(1, dtype=torch.int64))
            result.blobs.extend([(name, data), *blobs])
            result.inputs.extend(inputs)
        result.rows.append(row_of(unit, i, value, shown, work.seed))
    return result


def search_unit(model: Model, unit: Unit, method: Complete, work: Work) -> Result:
    """A complete search for each sample: a certificate that the checker accepts, or a point that the model confirms."""
    graph = model.graph
    if not isinstance(graph, Graph) or isinstance(unit.threat.goal, Targeted):
        raise NotAvailable("a complete search needs the model's graph and the untargeted goal.", "See `check`.")
    result, described = Result(), unit.threat.set.canonical()
    for i, part in enumerate(singles(unit)):
        if work.late():
            return replace(result, stopped=True)
        begun = time.perf_counter()
        start = part.x[0].to(graph.dtype)
        query, asked = question(described, start, int(part.y), model.classes), subject(graph, described, start)
        left = math.inf if work.deadline is None else work.deadline - time.time()
        found = method.search(asked, query, time.monotonic() + min(method.seconds, left), _breaks(model, part))
        if found.status == "open" and left < method.seconds:  # cut short: not what the method would have said
            return replace(result, stopped=True)
        value, shown = found.lower, Shown("claimed", "", 0, share(begun, 1, forwards=found.visited))
        if found.certificate is not None:
            # three times its own time, and never less than a second: an unchecked proof counts for nothing
            ruling = judge(asked, query, found.certificate, deadline=time.monotonic() + max(1.0, 3 * method.seconds))
            value, shown = _ruled(part, ruling, found.certificate.tensors(), shown, result)
        if found.witness is not None:
            shape = (1, -1) if part.threat.set.parametric else part.x.shape
            _broken(model, part, found.witness.view(shape).to(part.x), work, result)
        if not math.isnan(value):
            result.rows.append(row_of(unit, i, value, shown))
    return result


def _ruled(
    unit: Unit, ruling: Ruling, proof: Mapping[str, Tensor], shown: Shown, result: Result
) -> tuple[float, Shown]:
    """What an accepted certificate is worth, with its blobs put into the result; one that is not claims nothing."""
    if not ruling.accepted:
        return -math.inf, replace(shown, details=canonical_json({"refused": ruling.reason}))
    name, data = pack({k: t.unsqueeze(0) for k, t in proof.items()})
    blobs, inputs = inputs_of(unit, torch.zeros(1, dtype=torch.int64))
    result.blobs.extend([(name, data), *blobs])
    result.inputs.extend(inputs)
    details = canonical_json({"leaves": ruling.leaves})
    return ruling.lowest, replace(shown, status="checked", proof=name, details=details)


def _breaks(model: Model, unit: Unit) -> Callable[[Tensor], Tensor | None]:
    """Which of some points, moved into the set, the deployed model gets wrong; one is enough."""

    def refute(points: Tensor) -> Tensor | None:
        every = torch.zeros(len(points), dtype=torch.int64, device=unit.x.device)
        x0 = unit.x[every]
        mine = unit.threat.set.rows(every)
        x = mine.project(x0, (points if mine.parametric else points.view(x0.shape)).to(x0))
        with torch.no_grad():
            seen = mine.render(x0, x) if mine.parametric else x
            hit = (margin(model(seen), unit.y[every]) <= 0).nonzero()[:, 0]
        return x[hit[0]].flatten().double() if len(hit) else None

    return refute


def _broken(model: Model, unit: Unit, witness: Tensor, work: Work, result: Result) -> None:
    """Evidence for the upper side from a point, or parameters, that the search came upon: replayed like any other."""
    seen = replay(model, unit.threat.canonical(), unit.x, unit.y, witness, work.deterministic)
    name, data = pack({"witness": witness})
    gauges = unit.threat.set.rows(torch.zeros(1, dtype=torch.int64)).gauge(unit.x, witness)
    rows, failed = upper_rows(unit, work, seen, [Cost(forwards=1)], {0: name}, gauges)
    blobs, inputs = inputs_of(unit, torch.zeros(1, dtype=torch.int64))
    result.rows.extend(rows)
    result.failed.extend(failed)
    result.blobs.extend([(name, data), *blobs])
    result.inputs.extend(inputs)
