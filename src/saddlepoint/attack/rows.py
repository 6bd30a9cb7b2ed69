"""Rows: what an attack works on, and how any state made of rows is cut and joined.

A row is one work item: a sample under one restart and, for targeted attacks, one target. Rows and the
states of attacks are frozen dataclasses in which **every tensor has the row dimension first**; whatever
belongs to the whole batch (a step counter, a schedule) is a plain number. That one rule lets the engine
drop, refill and permute the rows of attacks it knows nothing about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saddlepoint.core.errors import InputError
from saddlepoint.core.rng import Draws
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.spec.goal import Goal, Untargeted

T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """Samples with their sets. Callers give the first five (and `clean` if they have it); the engine the rest.

    `target` is the class that a row is driven to (None: away from y), `clean` the logits at x0, `draws`
    the row's own random numbers, keyed by (seed, sample id, method, restart), and `limits` the set's strict
    inner box where the set is one: projection is then a clamp.
    """

    x0: Float[Tensor, "b ..."]
    y: Int64[Tensor, " b"]
    ids: tuple[str, ...]
    set: PerturbationSet
    goal: Goal = field(default_factory=Untargeted)
    target: Int64[Tensor, " b"] | None = None
    clean: Float[Tensor, "b k"] | None = None
    draws: Draws | None = None
    limits: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        if not len(self.x0) == len(self.y) == len(self.ids):
            raise InputError(f"{len(self.x0)} inputs, {len(self.y)} labels and {len(self.ids)} ids do not match.")

    def __len__(self) -> int:
        return len(self.x0)

    @property
    def random(self) -> Draws:
        """The rows' random numbers. Raises InputError on rows that did not come from the engine."""
        if self.draws is None:
            raise InputError("these rows carry no random numbers.", "Run the attack through attack.engine.run.")
        return self.draws


def take(value: T, index: Int64[Tensor, " m"]) -> T:
    """The chosen rows of a tensor, set, Draws, Rows, dataclass or tuple of those; numbers and text stay.

    A tensor that occurs twice (x0 in the rows and in a state) is cut once.
    """
    return _take(value, index, {})


def span(value: T, begin: int, end: int) -> T:
    """Rows begin…end − 1, as views where they can be."""
    return _take(value, slice(begin, end), {})


def concat(values: Sequence[T]) -> T:
    """Join the rows of equal dataclasses. Raises InputError where they differ in something that is not a row."""
    first = values[0]
    if len(values) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(values))  # pyright: ignore
    if isinstance(first, PerturbationSet) and isinstance(first.size, Tensor):
        return first.resized(torch.cat([v.size for v in values]))  # pyright: ignore
    if isinstance(first, Rows):
        ids = tuple(i for v in values for i in v.ids)  # pyright: ignore[reportAttributeAccessIssue]
        parts = {f.name: concat([getattr(v, f.name) for v in values]) for f in fields(first) if f.name != "ids"}
        return replace(first, ids=ids, **parts)
    if isinstance(first, tuple):
        return tuple(concat(group) for group in zip(*values, strict=True))  # pyright: ignore
    if is_dataclass(first) and not isinstance(first, (type, PerturbationSet)):
        parts = {f.name: concat([getattr(v, f.name) for v in values]) for f in fields(first)}
        return replace(first, **parts)
    if any(v != first for v in values):
        raise InputError(f"rows with different {type(first).__name__} values cannot be joined: {list(values)!r}.")
    return first


def check_rows(value: Any, count: int, where: str) -> None:
    """Raise InputError unless every tensor inside `value` has `count` rows."""
    if isinstance(value, Tensor):
        if value.ndim == 0 or len(value) != count:
            raise InputError(
                f"{where} has shape {tuple(value.shape)}, not {count} rows.",
                "Every tensor of a state has the row dimension first; keep batch-wide values as plain numbers.",
            )
    elif isinstance(value, tuple):
        for i, part in enumerate(value):
            check_rows(part, count, f"{where}[{i}]")
    elif is_dataclass(value) and not isinstance(value, (type, PerturbationSet)):
        for f in fields(value):
            check_rows(getattr(value, f.name), count, f"{where}.{f.name}")


def _take(value: Any, index: Tensor | slice, done: dict[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        if id(value) not in done:
            done[id(value)] = value[index] if isinstance(index, slice) else value.index_select(0, index)
        return done[id(value)]
    if isinstance(value, PerturbationSet):
        return value.rows(torch.arange(index.start, index.stop) if isinstance(index, slice) else index)
    if isinstance(value, tuple):
        return tuple(_take(part, index, done) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        if isinstance(value, Rows):  # ids are text: one pass, not one call for each
            ids = value.ids[index] if isinstance(index, slice) else tuple(value.ids[i] for i in index.tolist())
            parts = {f.name: _take(getattr(value, f.name), index, done) for f in fields(value) if f.name != "ids"}
            return replace(value, ids=ids, **parts)
        return replace(value, **{f.name: _take(getattr(value, f.name), index, done) for f in fields(value)})
    return value
