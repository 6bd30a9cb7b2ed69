"""From data to subjects: every sample is looked at once, named by its content, refused if no claim can rest on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saddlepoint.core.digests import sample_digest
from saddlepoint.core.errors import DataError, InputError
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data import Data
from saddlepoint.spec import Model, Subject

CHUNK = 256


@dataclass(frozen=True)
class Sample:
    """A subject and where it stands in the data."""

    subject: Subject
    position: int


def choose(data: Data, n: int | None, how: str, seed: int) -> list[int]:
    """Positions of the samples to ask about: the first n, or n drawn without replacement.

    Raises InputError for n < 1 or more samples than there are (no silent cap).
    """
    total = len(data)
    count = total if n is None else n
    if not 1 <= count <= total:
        raise InputError(f"n = {count}, but the data hold {total} samples.", f"Choose n from 1 to {total}.")
    if how == "first":
        return list(range(count))
    if how != "random":
        raise InputError(f"sample = {how!r}.", "Choose first or random.")
    # one number per row number: the choice of 100 is a subset of the choice of 1,000 under the same seed
    rank = Draws(row_keys(seed, ["data"], "choose")).uniform((total,), dtype=torch.float64)[0]
    return sorted(rank.argsort()[:count].tolist())


def scan(model: Model, data: Data, positions: list[int]) -> list[Sample]:
    """Digest and check the chosen samples, a chunk at a time.

    Raises InputOutsideDomain (normalised images, another range), DataError (NaN, labels that are no class of the
    model, one class only, a shape that the model does not take).
    """
    if tuple(data.shape) != tuple(model.shape):
        raise DataError(
            f"samples have shape {tuple(data.shape)}, the model takes {tuple(model.shape)}.",
            "Images are (channels, height, width); is this the right data for this model?",
        )
    labels = np.unique(data.labels[positions])
    if labels.min() < 0 or labels.max() >= model.classes:
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}, the model has {model.classes} classes.",
            "Labels count from 0. Is this the right data for this model?",
        )
    if len(labels) == 1 and len(positions) > 1:
        raise DataError(
            f"all {len(positions)} samples have label {labels[0]}: accuracy on one class says nothing of a classifier.",
            "Is the data sorted by class? Try --sample random.",
        )
    found = []
    for at, x, y, ids in batches(data, positions):
        if not bool(torch.isfinite(x).all()):
            raise DataError(f"sample {_first_bad(x, ids)} holds NaN or infinity.", "Clean the data first.")
        model.require_inside(x)
        for i, sample in enumerate(ids):
            label = int(y[i])
            found.append(Sample(Subject(model.digest, sample, label, sample_digest(x[i], label)), at[i]))
    if len({s.subject.content for s in found}) < len(found):
        return _without_twins(found)
    return found


def batches(data: Data, positions: list[int]) -> Iterator[tuple[list[int], Tensor, Tensor, tuple[str, ...]]]:
    """(positions, x, y, ids) in chunks of constant size."""
    for start in range(0, len(positions), CHUNK):
        at = positions[start : start + CHUNK]
        batch = data.take(at)
        yield at, batch.x, batch.y, batch.ids


def _without_twins(samples: list[Sample]) -> list[Sample]:
    """Identical samples stay separate subjects: the later ones get their id mixed into their name."""
    seen: set[str] = set()
    out = []
    for sample in samples:
        s = sample.subject
        if s.content in seen:
            s = Subject(s.model, s.sample, s.label, f"{s.content}#{s.sample}")
        seen.add(s.content)
        out.append(Sample(s, sample.position))
    return out


def _first_bad(x: Tensor, ids: tuple[str, ...]) -> str:
    return ids[int(torch.nonzero(~torch.isfinite(x).flatten(1).all(1))[0, 0])]
