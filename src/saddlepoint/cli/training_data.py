"""Which samples a `train` command trains on and which judge it; both are looked through before the first step."""

from __future__ import annotations

import math

import numpy as np

from saddlepoint.core.errors import DataError, InputError, InputOutsideDomain, NoSuchPart
from saddlepoint.data import Data, PartOfData, split
from saddlepoint.data import load as load_data
from saddlepoint.geometry import Box

_VALIDATION, _TEST = 500, 1000  # most samples that are held out
_SHARE = 0.1  # of the data, at most
_CHUNK = 2048  # rows looked at together


def parts(spec: str, count: int | None, named: str | None, seed: int) -> tuple[Data, Data, str]:
    """(to train on, to judge by, where those come from): named, the data's own test part, or a part held out."""
    whole: Data = load_data(spec)
    if count is not None:
        if count < 1:
            raise InputError(f"--n {count} trains on nothing.", "Give at least 1.")
        whole = PartOfData(whole, np.arange(min(count, len(whole))))
    test = _test_part(spec, named)
    if test is None:
        return *split(whole, _some(whole, _TEST), seed + 1), f"held out of {spec}"
    if tuple(test.shape) != tuple(whole.shape):
        raise DataError(
            f"{test.spec} has shape {tuple(test.shape)}, {spec} {tuple(whole.shape)}.", "Give a fitting one."
        )
    return whole, test, f"of {test.spec}"


def _test_part(spec: str, named: str | None) -> Data | None:
    """The samples that were named, or else the data's own test part; None where it has none."""
    if named is not None:
        return load_data(named)
    if not spec.endswith(":train"):
        return None
    try:
        return load_data(spec.removesuffix("train") + "test")
    except NoSuchPart:
        return None


def validation(data: Data, seed: int) -> tuple[Data, Data]:
    """(the rest, a part held out to watch the training by)."""
    return split(data, _some(data, _VALIDATION), seed)


def check_domain(data: Data, box: Box, spec: str) -> None:
    """Raises InputOutsideDomain with the first sample that leaves the box. One pass."""
    for start in range(0, len(data), _CHUNK):
        batch = data.take(slice(start, start + _CHUNK))
        inside = box.contains(batch.x, batch.x)
        if bool(inside.all()):
            continue
        first = int(inside.int().argmin())
        low, high = float(batch.x[first].min()), float(batch.x[first].max())
        raise InputOutsideDomain(
            f"Sample {batch.ids[first]} of {spec} has values from {low:g} to {high:g}, the domain is {box}.",
            "Give --domain, or data in raw units with --mean and --std.",
        )


def check_test(test: Data, count: int, box: Box, outputs: int) -> None:
    """Raises InputError for what would end the run at its bracket on the first `count`, hours later."""
    labels = np.unique(test.labels[:count])
    if labels.max() >= outputs:
        raise DataError(
            f"{test.spec} has labels up to {labels.max()}, the network {outputs} outputs.", "Give a fitting --test."
        )
    if len(labels) == 1 and count > 1:
        raise DataError(
            f"The first {count} samples of {test.spec} have label {labels[0]} only, and a bracket on one class says "
            "nothing of a classifier.",
            "Shuffle them, raise --bracket, or end with --no-bracket.",
        )
    check_domain(test, box, test.spec)


def _some(data: Data, most: int) -> int:
    return min(most, max(1, math.floor(_SHARE * len(data))))
