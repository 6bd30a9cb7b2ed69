"""The checker's own enclosures of nonlinear operators, in float64 with every inequality rounded outward.

    a_L x + b_L ≤ σ(x) ≤ a_U x + b_U   for all real x in [l, u]

Slopes are plain floats and the lines are *defined* by them; only the constants have to be on the safe side.
A `choice` in [0, 1] from a proof moves the lower slope within its sound range; whatever it says is clipped,
so a tampered proof can weaken a bound but never break it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.check.proofs_curves import image_of, lines_of, undecided_of
from saddlepoint.check.proofs_functions import FUNCTIONS, TINY, U, smooth_of
from saddlepoint.check.proofs_products import Planes, image_of_product, planes, undecided_factors
from saddlepoint.check.proofs_render import slab
from saddlepoint.core.errors import UnsupportedOperator
from saddlepoint.graph.ops import (
    Clip,
    Elementwise,
    LeakyRelu,
    MatrixProduct,
    MaxPool2d,
    NonlinearOp,
    Op,
    Product,
    Relu,
    Render,
)

STEPS = ("Sign", "Floor", "Ceil", "Round")
SHIFTS = {"Floor": (-1.0, 0.0), "Ceil": (0.0, 1.0), "Round": (-0.5, 0.5)}


@dataclass(frozen=True)
class Lines:
    """a_L, b_L, a_U, b_U, each (b, *shape) float64."""

    lower_slope: Tensor
    lower_constant: Tensor
    upper_slope: Tensor
    upper_constant: Tensor


@dataclass(frozen=True)
class Winners:
    """Max pooling: per window the flat place of one member, whether it is the maximum, max u, and max |x|."""

    place: Tensor
    wins: Tensor
    ceiling: Tensor
    reach: Tensor


def supported(op: Op, name: str) -> NonlinearOp:
    """`op` itself. Raises UnsupportedOperator for anything the checker has no enclosure for."""
    slope = op.slope if isinstance(op, LeakyRelu) else 0.0
    if isinstance(op, (Relu, LeakyRelu, Clip, MaxPool2d, Product, MatrixProduct, Render)) and 0.0 <= slope <= 1.0:
        return op
    if isinstance(op, NonlinearOp) and (smooth_of(op) is not None or _is_step(op)):
        return op
    raise UnsupportedOperator(
        f"the checker has no enclosure for {op.kind} (node {name!r}).",
        "It knows Relu, LeakyRelu with a slope from 0 to 1, Clip, MaxPool2d, products, Render, "
        f"{', '.join([*FUNCTIONS, *STEPS])}.",
    )


def _is_step(op: Op) -> bool:
    return isinstance(op, Elementwise) and op.function in STEPS


def image(op: NonlinearOp, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of the output. Those that have no case here are monotone, and only the leaky slope rounds."""
    if isinstance(op, (Product, MatrixProduct)):
        return image_of_product(op, lower, upper)
    if isinstance(op, Render):
        return slab(op, lower, upper).range
    known = smooth_of(op)
    if known is not None:
        return image_of(known, lower, upper)
    low, high = op(lower), op(upper)
    if isinstance(op, LeakyRelu):
        low = torch.where(low < 0, low * (1 + U) - TINY, low)
        high = torch.where(high < 0, high * (1 - U) + TINY, high)
    return low, high


def undecided(op: NonlinearOp, lower: Tensor, upper: Tensor) -> Tensor:
    """Inputs whose tighter bounds would tighten the enclosure, bool (b, *shape)."""
    if isinstance(op, Clip):
        return ((lower < op.lower) & (upper > op.lower)) | ((lower < op.upper) & (upper > op.upper))
    if isinstance(op, MaxPool2d):
        return _rivals(op, lower, upper)
    if isinstance(op, (Product, MatrixProduct)):
        return undecided_factors(op, lower, upper)
    if isinstance(op, Render):
        return torch.zeros_like(lower, dtype=torch.bool)
    known = smooth_of(op)
    if known is not None:
        return undecided_of(known, lower, upper)
    if _is_step(op):
        return op(lower) < op(upper)
    return (lower < 0) & (upper > 0)


def lines(op: NonlinearOp, lower: Tensor, upper: Tensor, choice: Tensor) -> Lines | Planes:
    """The enclosure of any operator but MaxPool2d with a proof's choice (any numbers of the right shape)."""
    free = torch.nan_to_num(choice.double(), nan=0.0).clamp(0.0, 1.0)
    if isinstance(op, Clip):
        return _clip(op, lower, upper, free)
    if isinstance(op, (Product, MatrixProduct)):
        return planes(op, lower, upper, free)
    known = smooth_of(op)
    if known is not None:
        return Lines(*lines_of(known, lower, upper, free))
    if isinstance(op, Elementwise):
        return _steps(op, lower, upper)
    s = op.slope if isinstance(op, LeakyRelu) else 0.0
    stable = torch.where(lower >= 0, 1.0, s).double()
    unstable = (lower < 0) & (upper > 0)
    zero = torch.zeros_like(lower)
    # any slope in [s, 1] is below max(x, s x)
    below = (s + (1 - s) * free).clamp(s, 1.0)
    chord = ((upper - s * lower) / (upper - lower)).clamp(s, 1.0)
    # convex, so above σ on [l, u] iff above it at both ends: t ≥ (s − c) l and t ≥ (1 − c) u
    offset = torch.maximum((s - chord) * lower, (1 - chord) * upper) * (1 + 4 * U) + TINY
    broken = torch.isnan(lower) | torch.isnan(upper)
    offset = torch.where(broken, torch.nan, offset)
    return Lines(
        torch.where(unstable, below, stable),
        zero,
        torch.where(unstable, chord, stable),
        torch.where(unstable | broken, offset, zero),
    )


def _steps(op: Elementwise, lower: Tensor, upper: Tensor) -> Lines:
    """f(l) ≤ f ≤ f(u); where that is wider than 1, x − 1 ≤ ⌊x⌋ ≤ x and its like."""
    low, high = op(lower), op(upper)
    below, above = SHIFTS.get(op.function, (0.0, 0.0))
    sloped = (high - low > 1) & (op.function in SHIFTS)
    slope = sloped.double()
    return Lines(slope, torch.where(sloped, below, low), slope, torch.where(sloped, above, high))


def _clip(op: Clip, lower: Tensor, upper: Tensor, free: Tensor) -> Lines:
    """With p = max(l, lo), q = min(u, hi): p + a (x − p) ≤ σ for 0 ≤ a ≤ (q − p)/(u − p), and by symmetry above."""
    p, q = lower.clamp_min(op.lower), upper.clamp_max(op.upper)
    inside = (lower >= op.lower) & (upper <= op.upper)
    below, above = upper <= op.lower, lower >= op.upper
    bent = ~(inside | below | above)
    shrink = 1 - 8 * U  # the quotient of two rounded differences stays below the real one
    lower_slope = ((q - p) / (upper - p) * shrink).clamp(0.0, 1.0) * free * shrink
    steep = torch.where(q - lower > upper - q, (q - p) / (q - lower), 0.0)
    upper_slope = (steep * shrink).clamp(0.0, 1.0)
    flat = torch.where(below, op.lower, torch.where(above, op.upper, 0.0)).double()
    straight = inside.double()
    lower_constant = (p - lower_slope * p) - (4 * U * p.abs() + TINY)
    upper_constant = (q - upper_slope * q) + (4 * U * q.abs() + TINY)
    return Lines(
        torch.where(bent, lower_slope, straight),
        torch.where(bent, lower_constant, flat),
        torch.where(bent, upper_slope, straight),
        torch.where(bent, upper_constant, flat),
    )


def winners(op: MaxPool2d, lower: Tensor, upper: Tensor) -> Winners:
    """max ≥ any member, so any place is sound; ≤ that member only where its l is at least every other u."""
    floor, place = F.max_pool2d(lower, op.kernel, op.stride, op.padding, op.dilation, op.ceil_mode, return_indices=True)
    numbers = torch.arange(lower.shape[2] * lower.shape[3]).view(1, 1, *lower.shape[2:])
    numbers, tops = _padded(numbers, op, floor, -1.0), _padded(upper, op, floor, -torch.inf)
    wins = torch.ones_like(floor, dtype=torch.bool)
    for member in _members(op, floor):
        wins &= (numbers[member] == place) | (tops[member] <= floor)  # NaN compares false: no win
    return Winners(place, wins, op(upper), op(torch.maximum(lower.abs(), upper.abs())))


def _rivals(op: MaxPool2d, lower: Tensor, upper: Tensor) -> Tensor:
    """Members of undecided windows that can exceed the window's floor."""
    floor, wins = op(lower), winners(op, lower, upper).wins
    tops = _padded(upper, op, floor, -torch.inf)
    matters = torch.zeros_like(tops, dtype=torch.bool)
    for member in _members(op, floor):
        matters[member] |= ~wins & (tops[member] > floor)
    (top, left), (h, w) = op.padding, upper.shape[2:]
    matters = F.pad(matters, (0, max(left + w - matters.shape[3], 0), 0, max(top + h - matters.shape[2], 0)))
    return matters[:, :, top : top + h, left : left + w]


def _padded(t: Tensor, op: MaxPool2d, out: Tensor, fill: float) -> Tensor:
    """t with padding on all sides, as far as the last window reaches."""
    pads = []
    for axis in (1, 0):  # torch's order: last axis first
        reach = (out.shape[2 + axis] - 1) * op.stride[axis] + op.dilation[axis] * (op.kernel[axis] - 1) + 1
        pads += [op.padding[axis], max(reach - t.shape[2 + axis] - op.padding[axis], 0)]
    return F.pad(t, pads, value=fill)


def _members(op: MaxPool2d, out: Tensor) -> list[tuple[slice, ...]]:
    """For each place in the kernel, the slice of the padded image that holds it for every window."""
    spans = [
        [slice(i * d, i * d + (n - 1) * s + 1, s) for i in range(k)]
        for n, s, d, k in zip(out.shape[2:], op.stride, op.dilation, op.kernel, strict=True)
    ]
    return [(slice(None), slice(None), rows, columns) for rows in spans[0] for columns in spans[1]]
