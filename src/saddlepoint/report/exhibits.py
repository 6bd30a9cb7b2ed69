"""Pictures of failures: clean | perturbation × k | adversarial, beside a random perturbation of the same threat.

The random point is the control: the threat allows it as well and it (usually) changes nothing, so the failure
is the work of an adversary, not of noise. Pixels are shown as they are, every one a block; nothing is smoothed.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from saddlepoint.core.figures import GREY, SKY, VERMILLION, figure, image_png, to_svg
from saddlepoint.ledger.claims import Claim, Exhibit
from saddlepoint.report.wording import gauge

CHART = {"clean": GREY, "adversarial": VERMILLION, "random": SKY}
_SHOWN_FEATURES = 24  # features drawn of a row of a table: those that moved most
_SIDE = 96  # small pictures are enlarged to about this many pixels
_LOW, _HIGH = np.array([0.0, 0.447, 0.698]), np.array([0.835, 0.369, 0.0])  # minus is blue, plus vermillion


@dataclass(frozen=True)
class Tile:
    """One picture with what the model says about it. `source` is a data URI, empty for data without pictures."""

    caption: str
    source: str
    predicted: str = ""
    confidence: float | None = None
    right: bool = True


@dataclass(frozen=True)
class Panel:
    """One failure, ready for the page."""

    id: str
    label: str
    distance: str
    notes: tuple[str, ...]
    tiles: tuple[Tile, ...]
    random: Tile
    chart: str = ""


def panel(claim: Claim, exhibit: Exhibit, prefix: str) -> Panel:
    """One exhibit as tiles; data without pictures get a chart of features instead."""
    names = class_names(claim)
    facts = [_prediction(exhibit.logits[row], exhibit.label, names) for row in range(3)]
    pictures = [_pixels(picture, claim) for picture in (exhibit.x0, exhibit.adversarial, exhibit.random)]
    sources = ["" if picture is None else _source(picture) for picture in pictures]
    clean, adversarial, random = (
        Tile(caption, source, *fact)
        for caption, source, fact in zip(("clean", "adversarial", "random, same threat"), sources, facts, strict=True)
    )
    tiles = [clean, adversarial]
    if exhibit.parameters is not None:
        tiles[1] = Tile("transformed", *[adversarial.source, *facts[1]])
    elif pictures[0] is not None:
        factor, picture = amplified(pictures[1] - pictures[0])  # type: ignore[operator]
        tiles.insert(1, Tile(f"perturbation ×\u00a0{factor}", _source(picture)))
    return Panel(
        id=exhibit.id,
        label=_name(exhibit.label, names),
        distance=gauge(claim, exhibit.gauge),
        notes=tuple(_notes(exhibit)),
        tiles=tuple(tiles),
        random=random,
        chart="" if pictures[0] is not None else _chart(exhibit, prefix),
    )


def class_names(claim: Claim) -> tuple[str, ...]:
    """The model's class names; empty if it has none."""
    return claim.model.class_names or ()


def amplified(delta: Float[np.ndarray, "h w *c"]) -> tuple[str, Float[np.ndarray, "h w 3"]]:
    """(k, picture of k·delta): grey pictures in blue (minus) and vermillion (plus), colours about mid-grey.

    k is the largest of 1, 2, 5, 10, 20, … for which no pixel leaves the scale, fractions for large perturbations.
    """
    largest = float(np.abs(delta).max(initial=0.0))
    factor = _round_factor(0.5 / largest) if largest > 0 else 1.0
    scaled = delta * factor
    if delta.ndim == 3:
        return f"{factor:g}", np.clip(0.5 + scaled, 0, 1)
    strength = np.clip(np.abs(scaled) * 2, 0, 1)[..., None]
    ink = np.where(scaled[..., None] < 0, _LOW, _HIGH)
    return f"{factor:g}", 1 - strength * (1 - ink)


def _round_factor(value: float) -> float:
    ten = 10.0 ** math.floor(math.log10(value))
    return max(step * ten for step in (1, 2, 5) if step * ten <= value * (1 + 1e-9))


def softmax(logits: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """exp(z_j) / Σ exp(z_i), shifted by the maximum so that nothing overflows."""
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def _prediction(logits: Float[np.ndarray, " k"], label: int, names: Sequence[str]) -> tuple[str, float | None, bool]:
    if not np.isfinite(logits).all():
        return "no finite answer", None, False
    winner = int(logits.argmax())
    return _name(winner, names), float(softmax(logits.astype(np.float64))[winner]), winner == label


def _name(label: int, names: Sequence[str]) -> str:
    return str(names[label]) if label < len(names) else str(label)


def _pixels(
    picture: Shaped[np.ndarray, "*shape"], claim: Claim
) -> Float[np.ndarray, "h w"] | Float[np.ndarray, "h w 3"] | None:
    """The picture scaled from the model's domain to [0, 1], or None if the data are not pictures."""
    if picture.ndim == 2:
        picture = picture[None]
    if picture.ndim != 3 or picture.shape[0] not in (1, 3) or min(picture.shape[1:]) < 2:
        return None
    low, high = (_ends(claim, side, picture.shape[0]) for side in ("lower", "upper"))
    scaled = (picture.astype(np.float64) - low) / np.where(high > low, high - low, 1.0)
    return scaled[0] if picture.shape[0] == 1 else scaled.transpose(1, 2, 0)


def _ends(claim: Claim, side: str, channels: int) -> Float[np.ndarray, "c 1 1"]:
    given = claim.model.domain.get(side, [0.0 if side == "lower" else 1.0])
    values = np.atleast_1d(np.asarray(given, dtype=np.float64))
    return np.broadcast_to(values if len(values) in (1, channels) else values[:1], (channels,))[:, None, None]


def _source(picture: Float[np.ndarray, "h w *c"]) -> str:
    scale = max(1, math.ceil(_SIDE / max(picture.shape[:2])))
    return "data:image/png;base64," + base64.b64encode(image_png(picture, scale)).decode()


def _notes(exhibit: Exhibit) -> list[str]:
    notes = []
    if exhibit.parameters is not None and len(exhibit.parameters) == 3:
        angle, down, right = exhibit.parameters
        words = f"rotation {angle:+.1f}°, shift {down:+.2f} px in rows, {right:+.2f} px in columns"
        notes.append(words.replace("-", "−"))
    if exhibit.survives_8bit is not None:
        kept = "still broken" if exhibit.survives_8bit else "no longer broken"
        notes.append(f"{kept} when stored as an 8-bit picture")
    return notes


def _chart(exhibit: Exhibit, prefix: str) -> str:
    """Bars of the features that moved most: clean, adversarial, random."""
    clean, adversarial, random = (
        x.reshape(-1).astype(np.float64) for x in (exhibit.x0, exhibit.adversarial, exhibit.random)
    )
    moved = np.argsort(-np.abs(adversarial - clean), kind="stable")[:_SHOWN_FEATURES]
    moved.sort()
    fig, axes = figure(6.4, 2.4)
    places = np.arange(len(moved))
    for offset, values, colour in (
        (-0.28, clean, CHART["clean"]),
        (0.0, adversarial, CHART["adversarial"]),
        (0.28, random, CHART["random"]),
    ):
        axes.bar(places + offset, values[moved], width=0.26, color=colour)
    axes.set_xticks(places, [str(index) for index in moved])
    axes.set_xlabel("feature")
    axes.set_ylabel("value")
    return to_svg(fig, f"Features of sample {exhibit.id}: clean, adversarial, random", prefix)
