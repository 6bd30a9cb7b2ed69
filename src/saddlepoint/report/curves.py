"""Robust accuracy against size: every claim of one family, and every witness, as one curve.

Sets are nested in their size. A witness at gauge g therefore breaks its sample at every size ≥ g, and a certificate
at size s holds at every size ≤ s:

    attacked(e)  = 1 − #{samples with a witness at gauge ≤ e, or misclassified} / n     (never too low)
    certified(e) = #{samples with a certificate at some size ≥ e} / n                   (never too high)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes

from saddlepoint.check.counts import clopper_pearson
from saddlepoint.core.arithmetic import exact
from saddlepoint.core.digests import canonical_json
from saddlepoint.core.errors import InputError
from saddlepoint.core.figures import INK, SERIES, figure, to_svg
from saddlepoint.ledger.claims import Claim, ModelRow
from saddlepoint.report.wording import threat_name
from saddlepoint.spec.bracket import Verdict

_NESTED = ("linf", "l2", "l1", "l0", "spatial")  # families whose size is one number to draw along
_BREAKS = 400  # distinct sizes drawn; witnesses in between move to the next larger one


@dataclass(frozen=True)
class Curve:
    """Steps of one model in one family: at sizes `sizes`, counts before and at (after) each size."""

    model: ModelRow
    claims: tuple[Claim, ...]
    n: int
    sizes: Float64[np.ndarray, " m"]
    attacked: Float64[np.ndarray, "m 2"]
    certified: Float64[np.ndarray, "m 2"]

    @property
    def key(self) -> str:
        """Equal for curves that may share axes: the threat without its size."""
        return curve_key(self.claims[0])

    def branches(self, size: float) -> tuple[float, float]:
        """(certified, attacked) shares at `size` itself."""
        place = int(np.searchsorted(self.sizes, size, side="left"))
        here = place < len(self.sizes) and self.sizes[place] == size
        certified = self.certified[place, 0] if place < len(self.sizes) else 0.0
        attacked = self.attacked[place, 1] if here else self.attacked[place - 1, 1]
        return float(certified) / self.n, float(attacked) / self.n


def curves(claims: Sequence[Claim]) -> list[Curve]:
    """One curve per model and family of nested threats; families without a size to draw along have none."""
    groups: dict[tuple[str, str], list[Claim]] = {}
    for claim in claims:
        if (
            claim.threat.get("set", {}).get("kind") in _NESTED
            and claim.n
            and math.isfinite(claim.size)
            and claim.size > 0
        ):
            groups.setdefault((curve_key(claim), claim.model.digest), []).append(claim)
    return [_curve(sorted(group, key=lambda claim: claim.size)) for group in groups.values()]


def draw(group: Sequence[Curve], shown: Curve, colours: dict[str, str], prefix: str) -> str:
    """One model's curve as SVG, in its colour; the other curves of its family are thin lines to compare with."""
    fig, axes = figure()
    top = max(float(curve.sizes[-1]) for curve in group)
    for curve in group:
        if curve is not shown:
            _draw_lines(axes, curve, colours[curve.model.digest], 1.0)
    _draw_bands(axes, shown, colours[shown.model.digest])
    _draw_lines(axes, shown, colours[shown.model.digest], 2.2)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(-0.02 * top, 1.02 * top)
    axes.set_ylabel("accuracy")
    axes.set_xlabel(_axis_label(shown.claims[-1]))
    _ticks(axes, [claim for curve in group for claim in curve.claims], top)
    return to_svg(fig, f"Accuracy of {shown.model.name} against the size of the perturbation", prefix)


def curve_key(claim: Claim) -> str:
    """The threat without its size: equal for threats of which one holds the other.

    Rotations with shifts are nested if their ratio is the same.
    """
    described = dict(claim.threat["set"])
    described.pop("size", None)
    if described.get("kind") == "spatial":
        rotation, shift = (Fraction(described.pop(name, "0")) for name in ("rotation", "shift"))
        described["ratio"] = str(shift / rotation) if rotation else "shift only"
    return canonical_json({**claim.threat, "set": described})


def position(claim: Claim, gauge: float | None) -> float:
    """A witness's gauge on the axis of `claim.size`; the claim's own size if it was not measured."""
    if gauge is None:
        return claim.size
    if claim.threat["set"].get("kind") == "spatial":  # gauge: a multiple of the set's full range
        full = Fraction(claim.threat["set"]["rotation"]) or Fraction(claim.threat["set"]["shift"])
        gauge *= float(full)
    return min(gauge, claim.size)  # a witness of the claim lies inside, whatever the last digit says


def _curve(claims: list[Claim]) -> Curve:
    breaks: dict[str, float] = {}
    holds: dict[str, float] = {}
    for claim in claims:
        for sample in claim.samples:
            breaks.setdefault(sample.id, math.inf)
            holds.setdefault(sample.id, -math.inf)
            if sample.verdict is Verdict.MISCLASSIFIED:
                breaks[sample.id] = 0.0
            elif sample.verdict is Verdict.BROKEN:
                breaks[sample.id] = min(breaks[sample.id], position(claim, sample.gauge))
            elif sample.verdict is Verdict.CERTIFIED:
                holds[sample.id] = max(holds[sample.id], claim.size)
    top, n = claims[-1].size, len(breaks)
    # rounding a witness's size up keeps the attacked branch an upper bound; sizes of claims are kept exact
    grid = np.unique(np.concatenate([np.linspace(0.0, top, _BREAKS), [claim.size for claim in claims]]))
    at = np.array([grid[np.searchsorted(grid, size)] for size in breaks.values() if size <= top])
    to = np.array([size for size in holds.values() if size > 0])
    sizes = np.unique(np.concatenate([[0.0, top], at, to]))
    attacked = [(n - int((at < e).sum()), n - int((at <= e).sum())) for e in sizes]
    certified = [(int((to >= e).sum()), int((to > e).sum())) for e in sizes]
    return Curve(claims[0].model, tuple(claims), n, sizes, np.array(attacked, float), np.array(certified, float))


def _steps(curve: Curve) -> Float64[np.ndarray, "3 k"]:
    """(size, certified count, attacked count) along the curve, two points at every step, from 0 to the largest size."""
    x = curve.sizes.repeat(2)[1:]  # to the left of size 0 there is nothing
    certified, attacked = curve.certified.ravel()[1:], curve.attacked.ravel()[1:]
    certified[-1] = certified[-2]  # beyond the largest size nothing was asked: no drop is drawn there
    return np.stack([x, certified, attacked])


def _draw_lines(axes: Axes, curve: Curve, colour: str, width: float) -> None:
    x, certified, attacked = _steps(curve)
    axes.plot(x, attacked / curve.n, color=colour, linewidth=width, linestyle=(0, (4, 1.6)))
    axes.plot(x, certified / curve.n, color=colour, linewidth=width)


def _draw_bands(axes: Axes, curve: Curve, colour: str) -> None:
    """The gap, its 95 % interval, the claims themselves and clean accuracy."""
    x, certified, attacked = _steps(curve)
    low = [clopper_pearson(int(k), curve.n)[0] for k in certified]
    high = [clopper_pearson(int(k), curve.n)[1] for k in attacked]
    axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
    axes.fill_between(x, certified / curve.n, attacked / curve.n, color=colour, alpha=0.26, linewidth=0)
    largest = max(curve.claims, key=lambda claim: claim.clean_n)
    if largest.clean_n:
        share, (below, above) = largest.clean_k / largest.clean_n, largest.clean_ci95
        error = [[max(0.0, share - below)], [max(0.0, above - share)]]
        axes.errorbar([0], [share], yerr=error, color=colour, fmt="o", markersize=6, capsize=3, clip_on=False)
    for claim in curve.claims:
        axes.plot([claim.size], [claim.attacked], "v", color=colour, markersize=6, clip_on=False)
        axes.plot([claim.size], [claim.certified], "^", color=colour, markersize=6, clip_on=False)


def _axis_label(claim: Claim) -> str:
    described = claim.threat["set"]
    if described["kind"] == "spatial":
        rotation, shift = Fraction(described["rotation"]), Fraction(described["shift"])
        if not rotation:
            return "largest shift in pixels"
        return "largest rotation in degrees" + (
            f", shift ≤ {float(shift / rotation):.3g} px per degree" if shift else ""
        )
    return f"size of the perturbation, {threat_name(described['kind'] + ':1').removesuffix(' 1')}"


def _ticks(axes: Axes, claims: Sequence[Claim], top: float) -> None:
    """Ticks at the sizes asked for, as they were written, where those are simple numbers with room between."""
    marks = {0.0: "0"}
    for claim in claims:
        text = claim.label.partition(":")[2]
        try:
            exact(text)
        except InputError:
            continue  # options instead of a size: matplotlib's own ticks serve
        marks[claim.size] = text
    places = sorted(marks)
    gaps = [after - before for before, after in itertools.pairwise(places)]
    if 1 < len(places) <= 8 and min(gaps) >= 0.1 * top:
        axes.set_xticks(places, [marks[place] for place in places])
    axes.tick_params(labelcolor=INK)


def model_colours(models: Sequence[ModelRow]) -> dict[str, str]:
    """A colour for each model's digest, in turn."""
    return {model.digest: SERIES[index % len(SERIES)] for index, model in enumerate(models)}
