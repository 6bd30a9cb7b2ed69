"""Which modules hide the gradient, and which views of the model are worth trying.

The suspects are found by what they do (adapters/suspects.py): a module is asked how its output moves, and whether its
backward says so.
"""

from __future__ import annotations

from saddlepoint.adapters.suspicion import Suspect, suspects
from saddlepoint.core.errors import InputError
from saddlepoint.evaluation.doctor.case import Case
from saddlepoint.spec import Model
from saddlepoint.spec.finding import Finding

_TITLE = "Every module passes its gradient on"
_RADII = (0.5, 0.15)  # of a typical coordinate of a random point of the set


def modules(model: Model, case: Case) -> tuple[Finding, list[Suspect]]:
    """The finding, and the suspects; `model` is the model itself, not its mean."""
    try:
        found = suspects(model, case.rows.x0)
    except InputError as error:
        return Finding("zero-gradient-modules", _TITLE, "pass", None, f"no modules to ask: {error.what}"), []
    names = "; ".join(f"{s.path or 'the whole network'}: {s.why}" for s in found[:4])
    more = f"; {len(found) - 4} more" if len(found) > 4 else ""
    detail = f"{names}{more}" if found else f"asked on n = {len(case)} samples"
    id, value, cures = "zero-gradient-modules", float(len(found)), _prescribed(found)
    if not found:
        return Finding(id, _TITLE, "pass", value, detail, unit="modules"), found
    if model.slopes is not None:
        return Finding(id, _TITLE, "pass", value, f"replaced by another backward: {detail}", unit="modules"), []
    remedy = "Replace the backward of these modules (BPDA); give one with with_backward where the shape changes."
    return Finding(id, _TITLE, "fail", value, detail, remedy, "modules", cures=cures), found


def candidates(case: Case, found: list[Suspect], troubled: bool) -> list[tuple[str, ...]]:
    """Views to try: replacements of the suspects, and averages over neighbours where gradients are in trouble."""
    paths = tuple(f"bpda:{s.path}" for s in found if s.same_shape)
    views: list[tuple[str, ...]] = []
    if found:
        views.append(("straight-through",))
    if paths:
        views += [paths, ("straight-through", *paths)]
    if troubled:
        views += [(*base, f"smooth:{radius:.3g}") for base in [(), *views[:2]] for radius in _radii(case)]
    return views


def _prescribed(found: list[Suspect]) -> tuple[str, ...]:
    paths = [f"bpda:{s.path}" for s in found if s.suggestion == "identity"]
    return (*(["straight-through"] if any(s.suggestion == "straight-through" for s in found) else []), *paths)


def _radii(case: Case) -> list[float]:
    """Shares of how far a random point of the set lies in a coordinate that it moves."""
    if case.rows.set.parametric:
        return []
    moved = (case.near("radius") - case.rows.x0).abs()
    typical = float(moved[moved > 0].mean()) if bool((moved > 0).any()) else 0.0
    return [share * typical for share in _RADII if typical > 0]
