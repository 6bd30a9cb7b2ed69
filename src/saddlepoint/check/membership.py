"""Is x' in S(x0)? Decided again from the threat's canonical JSON, without the code that built the set.

Float64 arithmetic with its rounding bound settles almost every point; what falls inside the bound is settled in
rational arithmetic. So the answer is that of exact arithmetic on the given floats, with no tolerance.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from saddlepoint.core.arithmetic import gamma
from saddlepoint.core.errors import NotAvailable

Described = dict[str, Any]


def inside(described: Described, x0: Shaped[Tensor, "b ..."], x: Shaped[Tensor, "b ..."]) -> Bool[Tensor, " b"]:
    """Per row, whether x lies in the described set about x0.

    Raises NotAvailable for sets whose members are given by parameters (see `render`), or unknown kinds.
    """
    start, point = x0.detach().cpu().double().numpy(), x.detach().cpu().double().numpy()
    verdicts = [bool(_inside(described, a, b)) for a, b in zip(start, point, strict=True)]
    return torch.tensor(verdicts, dtype=torch.bool)


def _inside(described: Described, x0: np.ndarray, x: np.ndarray) -> bool:
    kind = described["kind"]
    if not np.isfinite(x).all():
        return False
    if kind in ("union", "intersection"):
        answers = [_inside(part, x0, x) for part in described["sets"]]
        return any(answers) if kind == "union" else all(answers)
    if kind == "box":
        return _in_box(described, x)
    if kind not in _BALLS:
        raise NotAvailable(f"membership in a set of kind {kind!r} is not decided on points.", "Check its parameters.")
    box = described.get("box")
    return (box is None or _in_box(box, x)) and _BALLS[kind](described, x0, x)


def _in_box(box: Described, x: np.ndarray) -> bool:
    lower, upper = (limits(box[name], x.size, x.shape) for name in ("lower", "upper"))
    return bool((x >= lower).all() and (x <= upper).all())


def limits(values: list[Any], entries: int, shape: tuple[int, ...]) -> np.ndarray:
    """One limit for all, one per channel (the first axis of a sample), or one per entry, in the sample's shape."""
    given = np.asarray([float(v) for v in values], dtype=np.float64)  # infinite limits are the texts "inf", "-inf"
    if len(given) == 1:
        return np.broadcast_to(given, shape)
    if len(given) == entries:
        return given.reshape(shape)
    if len(given) == shape[0]:
        return np.broadcast_to(given.reshape(-1, *([1] * (len(shape) - 1))), shape)
    raise NotAvailable(f"a box of {len(given)} limits does not fit samples of shape {shape}.", "One, C or all entries.")


def _linf(described: Described, x0: np.ndarray, x: np.ndarray) -> bool:
    size = Fraction(described["size"])
    distance = np.abs(x - x0)
    bound = float(size)
    slack = 4 * np.finfo(np.float64).eps * (np.abs(x) + np.abs(x0) + bound)
    if (distance > bound + slack).any():
        return False
    close = np.flatnonzero((distance >= bound - slack).reshape(-1))
    a, b = x.reshape(-1), x0.reshape(-1)
    return all(abs(Fraction(float(a[i])) - Fraction(float(b[i]))) <= size for i in close)


def _power_sum(described: Described, x0: np.ndarray, x: np.ndarray, power: int) -> bool:
    """Σ |x − x0|^p ≤ ε^p. The float64 sum is off by at most γ_{n+3} of itself (all terms are ≥ 0)."""
    limit = Fraction(described["size"]) ** power
    total = float((np.abs(x - x0) ** power).sum())
    relative = gamma(x.size + 2 * power + 3)
    if total * (1 + relative) < float(limit) * (1 - 1e-15):
        return True
    if total * (1 - relative) > float(limit) * (1 + 1e-15):
        return False
    pairs = zip(x.reshape(-1).tolist(), x0.reshape(-1).tolist(), strict=True)
    return sum(abs(Fraction(a) - Fraction(b)) ** power for a, b in pairs if a != b) <= limit


def _l2(described: Described, x0: np.ndarray, x: np.ndarray) -> bool:
    return _power_sum(described, x0, x, 2)


def _l1(described: Described, x0: np.ndarray, x: np.ndarray) -> bool:
    return _power_sum(described, x0, x, 1)


def _changed(x0: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Which pixels differ: all channels of an image's pixel count as one; features otherwise."""
    different = x != x0
    return different.any(0) if x.ndim == 3 else different


def _l0(described: Described, x0: np.ndarray, x: np.ndarray) -> bool:
    return int(_changed(x0, x).sum()) <= Fraction(described["size"])


def _patch(described: Described, x0: np.ndarray, x: np.ndarray) -> bool:
    rows, columns = np.nonzero(_changed(x0, x))
    if len(rows) == 0:
        return True
    height, width, at = described["height"], described["width"], described.get("at", "any")
    if at == "any":
        return int(np.ptp(rows)) < height and int(np.ptp(columns)) < width
    top, left = at
    return bool(
        (rows >= top).all()
        and (rows < top + height).all()
        and (columns >= left).all()
        and (columns < left + width).all()
    )


def _mask(described: Described, x0: np.ndarray, x: np.ndarray) -> bool:
    allowed = np.array([[bit == "1" for bit in row] for row in described["rows"]])
    pixels = allowed if described["image"] else allowed[0]
    return not bool((_changed(x0, x) & ~pixels).any())


_BALLS = {"linf": _linf, "l2": _l2, "l1": _l1, "l0": _l0, "patch": _patch, "mask": _mask}
