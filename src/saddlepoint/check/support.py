"""max of ⟨a, z⟩ over S(x₀), from the threat's canonical JSON: float64 numbers that are true upper bounds.

    box, linf    Σ max(aᵢ lᵢ, aᵢ uᵢ)
    l2 ∩ box     min over λ ≥ 0 of  λ ε²/2 + Σ max over lᵢ ≤ dᵢ ≤ uᵢ of (aᵢ dᵢ − λ dᵢ²/2)       weak duality
    l1 ∩ box     min over λ ≥ 0 of  λ ε + Σ (|aᵢ| − λ)⁺ capᵢ,   capᵢ the room of dᵢ in the sign of aᵢ
    l0 ∩ box     the k largest gains of a pixel;  patch: the best window of gains;  mask: allowed entries only
    union        the largest of its parts;  intersection: the smallest (an upper bound of the true one)

d = z − x₀. By weak duality *every* λ ≥ 0 gives an upper bound, so how λ is found needs no proof: l1 sorts,
l2 iterates λ = ‖a_free‖ / √(ε² − ‖d_clipped‖²) from above. ε is the exact rational rounded up, limits are rounded
outward, and sums get γ_n of their absolute terms (Higham 2002, §3.1) plus an allowance for underflow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.core.arithmetic import dots, float_above, gamma
from saddlepoint.core.errors import InputError, InputOutsideDomain, NotAvailable

Described = dict[str, Any]
U = torch.finfo(torch.float64).eps  # two units of roundoff, to be generous
TINY = torch.finfo(torch.float64).tiny  # more than any underflow, flushed to zero or not
ITERATIONS = 12
BALLS = ("linf", "l2", "l1")
CHANGES = ("l0", "patch", "mask")


@dataclass(frozen=True)
class Region:
    """S(x₀) for a batch. x, lower, upper float64 (b, *shape) on the CPU; lower ≤ z ≤ upper on S(x₀)."""

    described: Described
    x: Tensor
    lower: Tensor
    upper: Tensor

    @property
    def boxed(self) -> bool:
        """Whether the enclosing box is the set itself."""
        return self.described["kind"] in ("linf", "box", "mask")

    def take(self, index: Tensor) -> Region:
        """Some samples, repetitions allowed."""
        return Region(self.described, *(t.index_select(0, index) for t in (self.x, self.lower, self.upper)))

    def maximum(self, a: Tensor) -> Tensor:
        """An upper bound (b,) of max ⟨a, z⟩ over S(x₀), a (b, *shape) float64, one row per sample."""
        return _maximum(self.described, self.x, a)


def region(described: Described, x: Tensor) -> Region:
    """The set about x (b, *shape). Raises NotAvailable for kinds that have no rule here."""
    point = x.detach().cpu().double()
    if not bool(torch.isfinite(point).all()):
        raise InputError("x0 holds NaN or infinity.", "Remove those samples.")
    _require_inside(described, point)
    return Region(described, point, *_hull(described, point))


def corner(a: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """An upper bound (r,) of max ⟨a, z⟩ over lower ≤ z ≤ upper, all (r, …)."""
    a, lower, upper = a.flatten(1), lower.flatten(1), upper.flatten(1)
    value = dots(a, torch.where(a > 0, upper, lower))
    # computed ≥ exact − γ_n Σ |aᵢ| |zᵢ|
    size = dots(a.abs(), torch.maximum(lower.abs(), upper.abs()))
    return _raise(value, size, a.shape[1])


def _raise(value: Tensor, size: Tensor, n: int) -> Tensor:
    """value + an allowance for n products and sums whose absolute values add up to `size`."""
    return value + (2 * gamma(n + 8) * size + (n + 8) * TINY)


def _hull(described: Described, x: Tensor) -> tuple[Tensor, Tensor]:
    kind = described["kind"]
    if kind in ("union", "intersection"):
        lows, highs = zip(*(_hull(part, x) for part in described["sets"]), strict=True)
        low, high = torch.stack(lows), torch.stack(highs)
        return (low.amin(0), high.amax(0)) if kind == "union" else (low.amax(0), high.amin(0))
    if kind == "box":
        return _limits(described, x)
    low, high = _limits(described.get("box"), x)
    if kind in BALLS:
        reach = _size(described)
        below = torch.nextafter(x - reach, torch.full_like(x, -torch.inf))
        above = torch.nextafter(x + reach, torch.full_like(x, torch.inf))
        return torch.maximum(low, below), torch.minimum(high, above)
    if kind not in CHANGES:
        raise NotAvailable(
            f"the checker has no support function for sets of kind {kind!r}.", "Sets of points have one."
        )
    if kind == "mask":
        return _masked(described, x, low, x), _masked(described, x, high, x)
    if kind == "patch" and described.get("at", "any") != "any":
        inside = torch.zeros(x.shape[-2:], dtype=torch.bool)
        top, left = described["at"]
        inside[top : top + int(described["height"]), left : left + int(described["width"])] = True
        return torch.where(inside, low, x), torch.where(inside, high, x)
    return low, high


def _maximum(described: Described, x: Tensor, a: Tensor) -> Tensor:
    kind = described["kind"]
    if kind in ("union", "intersection"):
        parts = torch.stack([_maximum(part, x, a) for part in described["sets"]])
        return parts.amax(0) if kind == "union" else parts.amin(0)
    if kind in ("linf", "box", "mask"):
        return corner(a, *_hull(described, x))
    low, high = _limits(described.get("box"), x)
    # the room around x₀ (low ≤ x₀ ≤ high holds), one unit in the last place wider than computed
    room = torch.where(a > 0, high - x, x - low)
    room = torch.nextafter(room, torch.full_like(room, torch.inf))
    gain = _GAINS[kind](described, a, room)
    flat = a.flatten(1)
    size = dots(flat.abs(), x.flatten(1).abs())
    return _raise(dots(flat, x.flatten(1)), size, flat.shape[1]) + gain * (1 + 2 * U)


def _l1_gain(described: Described, a: Tensor, room: Tensor) -> Tensor:
    """λ ε + Σ (|a| − λ)⁺ cap for the best λ: where the caps of the largest |a| add up to ε."""
    weight, room, reach = a.flatten(1).abs(), room.flatten(1), _size(described)
    order = weight.sort(dim=1, descending=True)
    filled = room.gather(1, order.indices).cumsum(1) >= reach
    first = filled.to(torch.uint8).argmax(1, keepdim=True)
    multiplier = torch.where(filled.any(1, keepdim=True), order.values.gather(1, first), 0.0)
    over = weight - multiplier
    gains = torch.where(over > 0, over * room, 0.0)  # 0 · ∞ counts as 0: the term's maximum is at d = 0
    n = weight.shape[1]
    return (multiplier[:, 0] * reach + gains.sum(1)) * (1 + 2 * gamma(n + 8)) + (n + 8) * TINY


def _l2_gain(described: Described, a: Tensor, room: Tensor) -> Tensor:
    """λ ε²/2 + Σ max (|a| d − λ d²/2) over 0 ≤ d ≤ room, at a good λ, and at λ = 0 (the box alone)."""
    weight, room, reach = a.flatten(1).abs(), room.flatten(1), _size(described)
    n = weight.shape[1]
    corner_gain = torch.where(weight > 0, weight * room, 0.0).sum(1) * (1 + 2 * gamma(n + 8)) + (n + 8) * TINY
    if reach == 0:
        return torch.zeros_like(corner_gain)
    multiplier = torch.linalg.vector_norm(weight, dim=1, keepdim=True) / reach
    for _ in range(ITERATIONS):
        clipped = weight >= multiplier * room
        free = torch.where(clipped, 0.0, weight).square().sum(1, keepdim=True)
        left = reach * reach - torch.where(clipped, room, 0.0).square().sum(1, keepdim=True)
        better = torch.sqrt(free / left)
        multiplier = torch.where((left > 0) & (better < multiplier) & (better > 0), better, multiplier)
    offset = torch.minimum(weight / multiplier, room)
    linear, square = weight * offset, multiplier * offset.square() / 2
    # g(d) = |a| d − λ d²/2 peaks at min(|a|/λ, room); one rounding of d there costs λ (u d)²/2, far below u λ d²
    value = (multiplier[:, 0] * reach * reach / 2) + (linear - square).sum(1)
    size = (multiplier[:, 0] * reach * reach / 2) + (linear + square).sum(1)
    dual = _raise(value, size, n)
    return torch.where(dual < corner_gain, dual, corner_gain)  # a NaN dual (a = 0) loses


def _pixel_gains(a: Tensor, room: Tensor) -> Tensor:
    """|a| · room added over the channels of an image's pixel, (b, pixels…); rounded up."""
    gains = torch.where(a != 0, a.abs() * room, 0.0)
    n = a.shape[1]
    return gains.sum(1) * (1 + 2 * gamma(n + 4)) + (n + 4) * TINY if a.ndim == 4 else gains * (1 + U) + TINY


def _l0_gain(described: Described, a: Tensor, room: Tensor) -> Tensor:
    gains = _pixel_gains(a, room).flatten(1)
    count = min(int(Fraction(described["size"])), gains.shape[1])  # int() rounds towards zero
    return gains.topk(count, dim=1).values.sum(1) * (1 + 2 * gamma(count + 2))


def _patch_gain(described: Described, a: Tensor, room: Tensor) -> Tensor:
    if a.ndim != 4:
        raise NotAvailable(f"a patch needs images (b, c, h, w), not {tuple(a.shape)}.")
    gains = _pixel_gains(a, room)
    height, width = int(described["height"]), int(described["width"])
    at = described.get("at", "any")
    grow = 1 + 2 * gamma(height * width + 2)
    if at != "any":
        top, left = at
        return gains[:, top : top + height, left : left + width].sum((1, 2)) * grow
    window = (min(height, gains.shape[1]), min(width, gains.shape[2]))
    ones = gains.new_ones((1, 1, *window))
    return F.conv2d(gains.unsqueeze(1), ones).flatten(1).amax(1) * grow


_GAINS: dict[str, Callable[[Described, Tensor, Tensor], Tensor]] = {
    "l1": _l1_gain,
    "l2": _l2_gain,
    "l0": _l0_gain,
    "patch": _patch_gain,
}


def _size(described: Described) -> float:
    return float_above(Fraction(described["size"]))


def _limits(box: Described | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """Limits of the data box broadcast to x: one for all, one per channel, or one per coordinate."""
    if box is None:
        return torch.full_like(x, -torch.inf), torch.full_like(x, torch.inf)
    low, high = (_spread([float(v) for v in box[side]], x) for side in ("lower", "upper"))
    return low, high


def _spread(values: list[float], x: Tensor) -> Tensor:
    flat, shape = torch.tensor(values, dtype=torch.float64), x.shape[1:]
    if len(values) == 1:
        return flat.view(*[1] * x.ndim).expand_as(x)
    if shape and len(values) == shape[0]:
        return flat.view(1, -1, *[1] * (x.ndim - 2)).expand_as(x)
    if len(values) == shape.numel():
        return flat.view(1, *shape).expand_as(x)
    raise InputError(f"a box with {len(values)} limits meets points of shape {tuple(shape)}.")


def _masked(described: Described, x: Tensor, allowed: Tensor, kept: Tensor) -> Tensor:
    mask = torch.tensor([[digit == "1" for digit in row] for row in described["rows"]])
    if not described["image"]:
        mask = mask.view(-1)
    return torch.where(mask.broadcast_to(x.shape), allowed, kept)


def _require_inside(described: Described, x: Tensor) -> None:
    """Where a set is made of changes to x₀, x₀ must lie in its box, or the room around it means nothing."""
    for part in described.get("sets", ()):
        _require_inside(part, x)
    if described["kind"] in (*BALLS, *CHANGES):
        low, high = _limits(described.get("box"), x)
        if not bool(((low <= x) & (x <= high)).all()):
            raise InputOutsideDomain("x0 lies outside the box of its own set.", "Give x0 in the set's units.")
