"""Learning curves from events, and what the guards said. They are the trainer's own measurements, not evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saddlepoint.core.figures import BLUE, VERMILLION, figure, to_svg


@dataclass(frozen=True)
class LearningCurve:
    """One training run as a picture."""

    run: str
    svg: str
    epochs: int
    notes: tuple[str, ...] = ()


def learning_curves(events: Sequence[Mapping[str, Any]]) -> list[LearningCurve]:
    """One picture per run that has at least two epochs; other events are left alone."""
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        if event.get("kind") == "epoch" and isinstance(event.get("epoch"), int):
            runs.setdefault(str(event.get("run", "")), []).append(event)
    said = [event for event in events if event.get("kind") == "guard" and isinstance(event.get("epoch"), int)]
    drawn = []
    for index, (run, own) in enumerate(runs.items()):
        own = sorted(own, key=lambda event: event["epoch"])
        if len(own) > 1:
            notes = [note for note in said if str(note.get("run", "")) == run]
            picture = _draw(own, [note["epoch"] for note in notes if note["epoch"]], run, f"learning{index}")
            drawn.append(LearningCurve(run, picture, len(own), tuple(map(_said, notes))))
    return drawn


def _said(note: Mapping[str, Any]) -> str:
    """A note as a line; what was said before the first epoch (0) is about the whole run."""
    when = f"epoch {note['epoch']}: " if note["epoch"] else ""
    return f"{when}{note.get('guard', '')}: {note.get('text', '')}"


def _draw(events: Sequence[Mapping[str, Any]], marked: Sequence[int], run: str, prefix: str) -> str:
    fig, axes = figure(5.4, 2.6)
    for epoch in sorted(set(marked)):
        axes.axvline(epoch, color="0.6", linestyle=":", linewidth=1)
    for key, colour, style in (("clean", BLUE, "-"), ("robust", VERMILLION, (0, (4, 1.6)))):
        points = [(event["epoch"], event[key]) for event in events if _finite(event.get(key))]
        if points:
            epochs, values = zip(*points, strict=True)
            axes.plot(epochs, values, color=colour, linestyle=style, linewidth=2, marker="o", markersize=3)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy while training")
    return to_svg(fig, f"Learning curve of {run}", prefix)


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
