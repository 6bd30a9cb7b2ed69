"""From JSON back to sets: the inverse of `canonical()`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch

from saddlepoint.core.errors import InputError
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.geometry.box import Box
from saddlepoint.geometry.combine import Union, intersect
from saddlepoint.geometry.l0 import L0
from saddlepoint.geometry.l1 import L1
from saddlepoint.geometry.l2 import L2
from saddlepoint.geometry.linf import Linf
from saddlepoint.geometry.mask import Mask
from saddlepoint.geometry.patch import Patch
from saddlepoint.geometry.spatial import RotationTranslation

_BALLS = {ball.kind: ball for ball in (Linf, L2, L1, L0)}


def from_canonical(spec: Mapping[str, Any]) -> PerturbationSet:
    """The set that a canonical JSON object describes. Raises InputError on an unknown kind or missing key."""
    kind = spec.get("kind")
    if kind in _BALLS:
        return _BALLS[kind](_get(spec, "size"), _box(spec.get("box")))
    build = _OTHERS.get(str(kind))
    if build is None:
        known = ", ".join(sorted([*_BALLS, *_OTHERS]))
        raise InputError(f"No set of kind {kind!r}.", f"Known kinds: {known}.")
    return build(spec)


def _a_box(spec: Mapping[str, Any]) -> Box:
    return Box([float(v) for v in _get(spec, "lower")], [float(v) for v in _get(spec, "upper")])


def _box(spec: Mapping[str, Any] | None) -> Box | None:
    return None if spec is None else _a_box(spec)


def _patch(spec: Mapping[str, Any]) -> Patch:
    at = _get(spec, "at")
    where = at if isinstance(at, str) else (int(at[0]), int(at[1]))
    return Patch(_get(spec, "height"), _get(spec, "width"), where, _box(spec.get("box")))


def _mask(spec: Mapping[str, Any]) -> Mask:
    rows = [[letter == "1" for letter in row] for row in _get(spec, "rows")]
    mask = torch.tensor(rows)
    return Mask(mask if spec.get("image", True) else mask[0], _box(spec.get("box")))


def _spatial(spec: Mapping[str, Any]) -> RotationTranslation:
    if spec.get("padding", "zeros") != "zeros":
        raise InputError(f"Padding {spec['padding']!r}.", 'Only "zeros" is defined.')
    return RotationTranslation(
        _get(spec, "rotation"), _get(spec, "shift"), _box(spec.get("box")), spec.get("size", "1")
    )


def _union(spec: Mapping[str, Any]) -> PerturbationSet:
    return Union(tuple(from_canonical(s) for s in _get(spec, "sets")))


def _intersection(spec: Mapping[str, Any]) -> PerturbationSet:
    return reduce(intersect, (from_canonical(s) for s in _get(spec, "sets")))


def _get(spec: Mapping[str, Any], key: str) -> Any:
    if key not in spec:
        raise InputError(f"A set of kind {spec.get('kind')!r} without {key!r}: {dict(spec)}.", "Is the file whole?")
    return spec[key]


_OTHERS: dict[str, Callable[[Mapping[str, Any]], PerturbationSet]] = {
    "box": _a_box,
    "patch": _patch,
    "mask": _mask,
    "spatial": _spatial,
    "union": _union,
    "intersection": _intersection,
}
