"""One self-contained HTML page: opens offline, reads on a phone, prints on paper, light and dark.

Everything that came from a user (names, paths, ids, class names) passes through jinja2's autoescape; figures are
inline SVG, pictures PNG data URIs. The page loads nothing from anywhere and says so in its content policy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from saddlepoint.core.digests import canonical_json
from saddlepoint.ledger.claims import Claim, Exhibit, MethodRow, ModelRow, RunRow
from saddlepoint.report import wording
from saddlepoint.report.curves import Curve, curve_key, curves, draw, model_colours, position
from saddlepoint.report.exhibits import CHART, panel
from saddlepoint.report.findings import SEVERITY
from saddlepoint.report.learning import learning_curves
from saddlepoint.report.record import Record
from saddlepoint.report.untested import untested
from saddlepoint.spec.bracket import Verdict
from saddlepoint.spec.finding import Finding

SHOWN = 6  # failures shown per claim
_IDS = 60  # ids listed per undecided verdict


@dataclass(frozen=True)
class Row:
    """One model under one threat."""

    claim: Claim
    colour: str
    segments: tuple[tuple[str, float, float], ...]  # (kind, start, width), shares of the bar in percent
    note: str


@dataclass(frozen=True)
class Card:
    """One threat, every model under it."""

    name: str
    detail: str
    rows: tuple[Row, ...]
    comparison: tuple[str, ...]


def html_report(record: Record, ledger_name: str = "run.ledger", images: bool = True) -> str:
    """The page. `ledger_name` appears in the commands to check it again; `images=False` leaves pictures out."""
    claims, models, runs = record.claims(), record.models(), record.runs()
    colours = model_colours(models)
    environment = Environment(
        loader=PackageLoader("saddlepoint.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup  # only for figures drawn by this house, which escape their text
    environment.filters["words"] = _words
    environment.filters["keep"] = _keep
    return environment.get_template("report.html.j2").render(
        title=_title(models),
        models=models,
        colours=colours,
        cards=_cards(claims, colours),
        clean=[(model, _largest(claims, model)) for model in models],
        contradictions=[claim for claim in claims if claim.counts.get(Verdict.CONTRADICTION, 0)],
        galleries=_galleries(record, claims) if images else [],
        images=images,
        chart=CHART,
        figures=_figures(claims, colours),
        claims=claims,
        verdicts=list(Verdict),
        left=[(claim, *rest) for claim in claims for rest in _left(claim)],
        methods=[(claim, sorted(claim.methods, key=_first_cheap)) for claim in claims],
        runs=runs,
        versions=_versions(runs),
        untested=untested(record),
        examined=_examined(record, claims),
        learning=learning_curves(record.events()),
        ledger=ledger_name,
        say=wording,
    )


def _title(models: Sequence[ModelRow]) -> str:
    names = [model.name for model in models]
    if not names:
        return "Nothing was evaluated yet"
    if len(names) > 3:
        return f"How robust are {len(names)} models?"
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"How robust {'is' if len(names) == 1 else 'are'} {listed}?"


def _largest(claims: Sequence[Claim], model: ModelRow) -> Claim | None:
    own = [claim for claim in claims if claim.model.digest == model.digest]
    return max(own, key=lambda claim: claim.n, default=None)


def _cards(claims: Sequence[Claim], colours: dict[str, str]) -> list[Card]:
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(canonical_json(claim.threat), []).append(claim)
    return [
        Card(
            wording.threat_name(group[0].label),
            wording.threat_detail(group[0]),
            tuple(_row(claim, colours[claim.model.digest]) for claim in group),
            tuple(_comparison(first, group[0]) for first in group[1:]),
        )
        for group in groups.values()
    ]


def _row(claim: Claim, colour: str) -> Row:
    kinds = (
        ("certified", (Verdict.CERTIFIED,)),
        ("open", (Verdict.OPEN, Verdict.NOT_RUN, Verdict.ERROR, Verdict.CONTRADICTION)),
        ("broken", (Verdict.BROKEN,)),
        ("wrong", (Verdict.MISCLASSIFIED,)),
    )
    segments, start = [], 0.0
    for kind, verdicts in kinds:
        width = 100 * sum(claim.counts.get(verdict, 0) for verdict in verdicts) / max(claim.n, 1)
        segments.append((kind, start, width))
        start += width
    certifying = any(method.side == "lower" and method.rows for method in claim.methods)
    note = "" if certifying or not claim.n else "No certificate was tried: only the upper end carries information."
    return Row(claim, colour, tuple(segments), note)


def _comparison(a: Claim, b: Claim) -> str:
    """What can be said of accuracy(a) − accuracy(b): bracket minus bracket, and whether the intervals are apart."""
    better, worse = (a, b) if a.certified + a.attacked >= b.certified + b.attacked else (b, a)
    low, high = better.certified - worse.attacked, better.attacked - worse.certified
    apart = better.ci95[0] > worse.ci95[1]
    names = f"{better.model.name} against {worse.model.name}"
    verdict = "their 95 % intervals do not meet" if apart else "their 95 % intervals overlap"
    sizes = f"n = {a.n}" if a.n == b.n else f"n = {better.n} and {worse.n}"
    intervals = f"{wording.interval(better.ci95)} and {wording.interval(worse.ci95)}, {sizes}"
    if a.n == b.n and low > 0:
        return f"{names}: higher by {wording.down(low)} to {wording.up(high)} on these samples; {verdict}: {intervals}"
    return f"{names}: {verdict}: {intervals}"


def _galleries(record: Record, claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Per model and family of nested threats its nearest failures, whichever size they were found at."""
    groups: dict[tuple[str, str], list[Claim]] = {}
    for claim in claims:
        groups.setdefault((claim.model.digest, curve_key(claim)), []).append(claim)
    found = []
    for number, group in enumerate(groups.values()):
        largest = max(group, key=lambda claim: claim.size)
        nearest: dict[str, tuple[float, Claim, Exhibit]] = {}
        for claim in group:
            for exhibit in record.exhibits(claim.model.digest, canonical_json(claim.threat)):
                place = position(claim, exhibit.gauge)
                if exhibit.id not in nearest or place < nearest[exhibit.id][0]:
                    nearest[exhibit.id] = (place, claim, exhibit)
        chosen = sorted(nearest.values(), key=lambda found: found[0])[:SHOWN]
        panels = [panel(claim, exhibit, f"x{number}-{i}") for i, (_, claim, exhibit) in enumerate(chosen)]
        if panels:
            up_to = "up to " if len(group) > 1 else ""
            found.append({"claim": largest, "panels": panels, "up_to": up_to})
    return found


def _examined(record: Record, claims: Sequence[Claim]) -> list[tuple[Claim, list[Finding]]]:
    """Claims whose evaluation was examined, with the findings, the worst first."""
    found = []
    for claim in claims:
        findings = record.findings(claim.model.digest, canonical_json(claim.threat))
        if findings:
            found.append((claim, sorted(findings, key=lambda finding: SEVERITY.index(finding.verdict))))
    return found


def _figures(claims: Sequence[Claim], colours: dict[str, str]) -> list[dict[str, Any]]:
    """One figure per curve, those of one family beside each other."""
    groups: dict[str, list[Curve]] = {}
    for curve in curves(claims):
        groups.setdefault(curve.key, []).append(curve)
    pairs = [(curve, group) for group in groups.values() for curve in group]
    return [
        {
            "svg": draw(group, curve, colours, f"curve{index}"),
            "model": curve.model,
            "others": [other.model for other in group if other is not curve],
            "n": curve.n,
        }
        for index, (curve, group) in enumerate(pairs)
    ]


def _left(claim: Claim) -> list[tuple[str, list[str], int]]:
    """(words, first ids, how many) of the samples that nobody decided."""
    left = []
    for verdict, words in wording.UNDECIDED:
        ids = [sample.id for sample in claim.samples if sample.verdict is verdict]
        if ids:
            left.append((words, ids[:_IDS], len(ids)))
    return left


def _first_cheap(method: MethodRow) -> tuple[bool, float, str]:
    return method.name != "clean", method.seconds, method.name


def _versions(runs: Sequence[RunRow]) -> dict[str, str]:
    return {name: version for run in runs for name, version in run.versions.items()}


def _keep(text: str) -> str:
    """The text with spaces that do not break a line inside intervals, "n = 300" and "95 % interval"."""
    kept = re.sub(r"\[[^\[\]]*\]", lambda match: match[0].replace(" ", "\u00a0"), text)
    return re.sub(r"(?<=\bn) = |(?<=95) (?=%)|(?<=%) (?=interval)", lambda match: match[0].replace(" ", "\u00a0"), kept)


def _words(parameters: dict[str, Any]) -> str:
    """`steps 20, restarts 1` instead of JSON."""
    shown = (
        f"{key} {value if isinstance(value, (str, int, float)) else json.dumps(value, ensure_ascii=False)}"
        for key, value in sorted(parameters.items())
    )
    return ", ".join(shown)
