"""Square Attack: random search whose steps are square windows, for models that give scores only.

    x_new = P_S(x_best + δ),    δ ≠ 0 on one window (two for ℓ2, ℓ1);    keep it  ⇔  m(x_new) < m(x_best)

A window covers the share p of the image: side round(√(p·h·w)), p = p_init, halved after 10, 50, 200, 500, 1000, 2000,
4000, 6000 and 8000 steps (with `rescale`, of 10,000, whatever the number of queries). Every sample has windows, signs
and an incumbent of its own; positions are uniform over *all* that fit, the last row and column included.

    ℓ∞, boxes   each channel of the window goes to its upper or its lower limit; start: vertical stripes. A draw that
                changes nothing is drawn again among the sign patterns that are left
    ℓ2, ℓ1      a peak η in window 1 is added to what stands there, window 2 is emptied, and its mass (and the mass that
                the box cost so far, shared by the channels) goes into window 1; start: a 5 × 5 grid of peaks.
                For ℓ1, ‖·‖₁ takes the place of ‖·‖₂ (budgets add up instead of their squares)
    vectors     a window is a run of features, each with its own sign

Andriushchenko, Croce, Flammarion & Hein 2020, Algorithms 1–3 and §3; ℓ1: Croce & Hein 2021, §4. The values are those
of AutoAttack (5,000 queries, p_init 0.8 for every norm, schedule not rescaled). The loss is the margin under the
threat's goal. Windows are gathered and scattered, so a step costs a few passes over the batch; random numbers for
many steps are drawn at once. Cost of an item: `queries` forwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from saddlepoint.attack.protocol import Answers, Ask, Attack
from saddlepoint.attack.rows import Rows
from saddlepoint.attack.steps import radius
from saddlepoint.core.arithmetic import per_row
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.geometry import L1, L2
from saddlepoint.spec.access import Access

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_BITS = 31  # random bits in a word
_PLACES = 6  # words of a step before its signs: two rows, two columns, the peak's orientation, the second draw
_AHEAD, _WORDS = 64, 2048  # steps drawn at once, and the most words of a row


@dataclass(frozen=True)
class State:
    """Per row: the incumbent, the candidate last asked, the incumbent's margin, ε less rounding, random words."""

    rows: Rows
    x: Tensor
    tried: Tensor
    margin: Tensor
    budget: Tensor
    words: Tensor
    asked: int


@dataclass(frozen=True)
class Square(Attack[State]):
    """`p_init` is the first window's share of the image; `rescale` stretches the schedule to `queries`."""

    name: ClassVar[str] = "square"
    needs: ClassVar[Access] = Access.SCORES
    queries: int = 5000
    p_init: float = 0.8
    rescale: bool = False
    restarts: int = 1

    def __post_init__(self) -> None:
        if self.queries < 1 or self.restarts < 1:
            raise InputError(f"{self.queries} queries and {self.restarts} restarts must be at least 1.")
        if not 0 < self.p_init <= 1:
            raise InputError(f"p_init {self.p_init} is no share of an image.", "Choose it in (0, 1].")

    @property
    def forwards(self) -> int:
        return self.queries

    @property
    def backwards(self) -> int:
        return 0

    def init(self, rows: Rows) -> tuple[State, Ask]:
        grid = Grid.of(rows.x0)
        budget = _budget(rows)
        bits = _bits(rows.random.integers((-(-grid.starts // _BITS),), 2**_BITS), grid.starts)
        x = (_stripes(rows, grid, bits) if rows.limits is not None else _tiles(rows, grid, bits, budget)).contiguous()
        margin = torch.full_like(budget, torch.inf)
        return State(rows, x, x, margin, budget, _words(rows, grid, 1), 0), Ask(x, Access.SCORES)

    def step(self, state: State, answers: Answers) -> tuple[State, Ask | None]:
        rows, asked = state.rows, state.asked + 1
        if asked >= self.queries:
            return state, None
        better = answers.margin < state.margin  # NaN is never better
        x = torch.where(per_row(better, state.x), state.tried, state.x)
        margin = torch.where(better, answers.margin.to(state.margin.dtype), state.margin)
        grid = Grid.of(x)
        chunk, number = divmod(asked - 1, state.words.shape[1])
        words = _words(rows, grid, 1 + chunk) if number == 0 and chunk else state.words
        boxed = rows.limits is not None
        height, width = grid.sides(self.share(asked), odd=not boxed)
        move = _flip if boxed else _shift
        tried = move(rows, x, words[:, number], Window(grid, height, width), state.budget)
        state = replace(state, x=x, tried=tried, margin=margin, words=words, asked=asked)
        return state, Ask(tried, Access.SCORES)

    def share(self, step: int) -> float:
        """p at a step (the start is step 0).

        >>> [Square().share(i) for i in (10, 11, 51, 8001)]
        [0.8, 0.4, 0.2, 0.0015625]
        """
        at = step * 10_000 // self.queries if self.rescale else step
        return self.p_init / 2 ** sum(at > h for h in _HALVINGS)


@dataclass(frozen=True)
class Grid:
    """How inputs are laid out: (…, h, w) has the channels in front, a vector is one row of features."""

    channels: int
    height: int
    width: int
    vector: bool

    @staticmethod
    def of(x: Tensor) -> Grid:
        shape = x.shape[1:]
        if len(shape) < 2:
            return Grid(1, 1, shape.numel(), True)
        return Grid(shape[:-2].numel(), shape[-2], shape[-1], False)

    @property
    def words(self) -> int:
        """Random words of a step."""
        return _PLACES + -(-(self.width if self.vector else self.channels) // _BITS)

    @property
    def starts(self) -> int:
        """Random signs of a start: enough for the stripes, and for the tiles."""
        return self.channels * max(self.width, 25)

    def sides(self, p: float, odd: bool) -> tuple[int, int]:
        """(height, width) of a window with the share p: a square where one fits, else as much of its area as fits."""
        area = p * self.height * self.width
        side = max(1, round(math.sqrt(area)))
        if odd and not self.vector:
            side = max(3, side | 1)
        if side <= min(self.height, self.width):
            return side, side
        if self.height <= self.width:
            return self.height, min(self.width, max(1, round(area / self.height)))
        return min(self.height, max(1, round(area / self.width))), self.width


@dataclass(frozen=True)
class Window:
    """A size of window on a grid; its position is a row's own."""

    grid: Grid
    height: int
    width: int

    def at(self, row: Int64[Tensor, " b"], column: Int64[Tensor, " b"]) -> Int64[Tensor, "b c n"]:
        """Flat indexes of the window's pixels in every channel, at the position that two random words choose."""
        grid = self.grid
        top = (row * (grid.height - self.height + 1)) >> _BITS  # 0 … h − height, each as likely
        left = (column * (grid.width - self.width + 1)) >> _BITS
        inner = torch.arange(self.height, device=row.device)[:, None] * grid.width
        inner = (inner + torch.arange(self.width, device=row.device)).flatten()
        index = (top * grid.width + left)[:, None] + inner
        return index[:, None].expand(-1, grid.channels, -1)

    def signs(self, words: Int64[Tensor, "b k"]) -> Bool[Tensor, "b c n"]:
        """A fair bit per channel, (b, c, 1); for vectors one per feature, (b, 1, n)."""
        if self.grid.vector:
            return _bits(words, self.width)[:, None]
        return _bits(words, self.grid.channels)[:, :, None]


def _bits(words: Int64[Tensor, "b k"], count: int) -> Bool[Tensor, "b n"]:
    """The first `count` bits of the words."""
    shifts = torch.arange(_BITS, device=words.device)
    return ((words[:, :, None] >> shifts) & 1).flatten(1)[:, :count].to(torch.bool)


def _words(rows: Rows, grid: Grid, stream: int) -> Int64[Tensor, "b steps k"]:
    """Random words of the next steps; a stream of its own for each such chunk."""
    ahead = max(1, min(_AHEAD, _WORDS // grid.words))
    return rows.random.integers((ahead, grid.words), 2**_BITS, stream)


# -- boxes ---------------------------------------------------------------------------------------------------
def _stripes(rows: Rows, grid: Grid, bits: Tensor) -> Tensor:
    """Every column of every channel at its upper or its lower limit."""
    lower, upper = rows.limits or (rows.x0, rows.x0)
    high = bits[:, : grid.channels * grid.width].reshape(len(rows), grid.channels, 1, grid.width)
    shape = (len(rows), grid.channels, grid.height, grid.width)
    return torch.where(high, upper.reshape(shape), lower.reshape(shape)).reshape(rows.x0.shape)


def _flip(rows: Rows, x: Tensor, words: Tensor, window: Window, _: Tensor) -> Tensor:
    """The window at its limits, signs by channel."""
    grid = window.grid
    planes = (len(x), grid.channels, -1)
    lower, upper = rows.limits or (x, x)
    at = window.at(words[:, 0], words[:, 1])
    flat = x.reshape(planes)
    old, low, high = (t.reshape(planes).gather(2, at) for t in (flat, lower, upper))
    up = window.signs(words[:, _PLACES:])
    # of the 2^k patterns (k = 30 at most) one may stand there already: xor with 1 … 2^k − 1 draws among the others
    same = (torch.where(up, high, low) == old).flatten(1).all(1)
    count = min(up.flatten(1).shape[1], _BITS - 1)
    other = 1 + ((words[:, 5] * (2**count - 1)) >> _BITS)
    turned = _bits((other * same)[:, None], count)
    up = up.flatten(1)
    up = torch.cat([up[:, :count] ^ turned, up[:, count:]], 1).reshape(len(x), *((1, -1) if grid.vector else (-1, 1)))
    return flat.scatter(2, at, torch.where(up, high, low)).reshape(x.shape)


# -- ℓ2 and ℓ1 -----------------------------------------------------------------------------------------------
def _power(rows: Rows) -> int:
    return 1 if isinstance(rows.set, L1) else 2


def _budget(rows: Rows) -> Float[Tensor, " b"]:
    """ε less what rounding x0 + ν to x0's dtype can add to the norm; clipping to the box only takes away."""
    size = radius(rows, rows.x0) * torch.ones_like(per_row(rows.y, rows.x0), dtype=rows.x0.dtype)
    size = size.flatten()
    if rows.limits is not None:
        return size
    if not isinstance(rows.set, (L1, L2)):
        raise NotAvailable(
            f"{type(rows.set).__name__} has no windows of its own.",
            "Square works on boxes, Linf, L2 and L1; RandomSearch on every set.",
        )
    unit = torch.finfo(size.dtype).eps
    reach = rows.x0.flatten(1).abs().amax(1) + size
    rounding = unit * reach * rows.x0[0].numel() ** (1 / _power(rows))
    return torch.maximum(size * (1 - 64 * unit) - rounding, size / 2)


@lru_cache(maxsize=64)
def _peaks(height: int, width: int) -> Float[Tensor, "2 n"]:
    """η, split in two halves of opposite signs along the width, and along the height; ‖η‖∞ ≤ π²/6, not normalised."""
    left, top = width // 2, height // 2
    across = torch.cat([_peak(height, left), -_peak(height, width - left)], 1)
    down = torch.cat([_peak(top, width), -_peak(height - top, width)], 0)
    return torch.stack([across.flatten(), down.flatten()])


def _peak(height: int, width: int) -> Float[Tensor, "h w"]:
    """η_rs = Σ_{k=0}^{M} (n + 1 − k)⁻², M = n − max(|r − ⌊h/2⌋ − 1|, |s − ⌊w/2⌋ − 1|), r and s from 1 (eq. 3)."""
    n = max(height, width) // 2
    rise = torch.cumsum((n + 1 - torch.arange(n + 1, dtype=torch.float64)) ** -2.0, 0)
    r = (torch.arange(height) - height // 2).abs()[:, None]
    s = (torch.arange(width) - width // 2).abs()
    return rise[n - torch.maximum(r, s)]


def _tiles(rows: Rows, grid: Grid, bits: Tensor, budget: Tensor) -> Tensor:
    """Up to 5 × 5 tiles, each a peak with a sign of its own per channel, scaled to the whole budget."""
    down, over = min(5, grid.height), min(5, grid.width)
    height, width = grid.height // down, grid.width // over
    tile = _peaks(height, width)[0].reshape(height, width).to(rows.x0)
    signs = bits[:, : grid.channels * down * over].reshape(-1, grid.channels, down, 1, over, 1)
    tiled = torch.where(signs, tile[:, None, :], -tile[:, None, :])
    tiled = tiled.reshape(len(rows), grid.channels, down * height, over * width)
    top, left = (grid.height - down * height) // 2, (grid.width - over * width) // 2
    move = tiled.new_zeros(len(rows), grid.channels, grid.height, grid.width)
    move[:, :, top : top + down * height, left : left + over * width] = tiled
    norm = torch.linalg.vector_norm(move.flatten(1), _power(rows), dim=1)
    return _placed(rows, move * per_row(budget / norm, move))


def _shift(rows: Rows, x: Tensor, words: Tensor, window: Window, budget: Tensor) -> Tensor:
    """Algorithm 3: mass goes from window 2, and from what is unused, into window 1."""
    p, grid = _power(rows), window.grid
    one, two = window.at(words[:, 0], words[:, 1]), window.at(words[:, 2], words[:, 3])
    move = (x - rows.x0).reshape(len(x), grid.channels, -1)
    tiny = torch.finfo(x.dtype).tiny

    def mass(v: Tensor) -> Tensor:  # ‖v‖₂² or ‖v‖₁ of the last axis
        return torch.linalg.vector_norm(v, p, dim=-1, keepdim=True) ** p

    unused = (budget[:, None] ** p - mass(move.flatten(1))).clamp_min(0)[:, :, None]
    here = move.gather(2, one)
    move.scatter_(2, one, 0)  # so that the overlap of the windows is not counted twice
    total = mass(here) + mass(move.gather(2, two)) + unused / grid.channels
    move.scatter_(2, two, 0)
    peaks = _peaks(window.height, window.width).to(x)
    peaks = peaks / torch.linalg.vector_norm(peaks, p, dim=1, keepdim=True)
    peak = peaks[(words[:, 4] & 1)][:, None]
    up = window.signs(words[:, _PLACES:])
    # on a vector the peak's own two signs mean nothing
    peak = torch.where(up, peak.abs() if grid.vector else peak, -(peak.abs() if grid.vector else peak))
    new = peak + here / torch.linalg.vector_norm(here, p, dim=-1, keepdim=True).clamp_min(tiny)
    new = new * (total ** (1 / p) / torch.linalg.vector_norm(new, p, dim=-1, keepdim=True).clamp_min(tiny))
    return _placed(rows, move.scatter_(2, one, new).reshape(x.shape))


def _placed(rows: Rows, move: Tensor) -> Tensor:
    """x0 + ν, cut to the data box: no coordinate moves further than ν says."""
    x = rows.x0 + move.reshape(rows.x0.shape)
    box = rows.set.box if isinstance(rows.set, (L1, L2)) else None
    return x if box is None else torch.clamp(x, *box.limits(x))
