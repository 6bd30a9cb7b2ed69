"""α-β-CROWN: better lower lines and split multipliers by a few steps of projected ascent (walk.py gives gradients).

    maximise over 0 ≤ choice ≤ 1, β ≥ 0:   the bound of every row on its own domain

Adam (Kingma & Ba 2015) per row; choices are rounded to 1/255 before every evaluation, so that each bound seen is one a
certificate can state; the best of each row is kept. Rows that reach `enough` stop. Cost: two passes per step and row.
(Xu et al. 2021, arXiv 2011.13824, α; Wang et al. 2021, arXiv 2103.06624, β.)
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from saddlepoint.bound.rules import Elementwise
from saddlepoint.bound.search.walk import Splits, Start, Walk, Walked

FIRST, SECOND, SMALL = 0.9, 0.95, 1e-12


@dataclass(frozen=True)
class Batch:
    """Domains: bounds of the free entries (r, F), box (1 or r, d), split signs int8 (r, F) and thresholds, or None."""

    lower: Tensor
    upper: Tensor
    box_lower: Tensor
    box_upper: Tensor
    sign: Tensor | None = None
    threshold: Tensor | None = None

    def take(self, index: Tensor) -> Batch:
        """Some domains."""

        def some(t: Tensor | None) -> Tensor | None:
            return None if t is None else t if t.shape[0] == 1 else t[index]

        parts = (some(t) for t in (self.lower, self.upper, self.box_lower, self.box_upper, self.sign, self.threshold))
        return Batch(*parts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Point:
    """Choices in [0, 1] and β ≥ 0, (r, F) each; β None: no splits."""

    choice: Tensor
    beta: Tensor | None = None

    def take(self, index: Tensor) -> Point:
        """Some rows."""
        return Point(self.choice[index], None if self.beta is None else self.beta[index])


@dataclass(frozen=True)
class Best:
    """The best bound of each row (r,), where it was found, and the walk there (of the last evaluation of the row)."""

    bound: Tensor
    point: Point
    at: Tensor
    seen: Tensor
    corner: Tensor
    a: Tensor
    c: Tensor


@dataclass(frozen=True)
class Climb:
    """steps: gradient steps after the first evaluation. last: name of the value that rows start from."""

    walk: Walk
    last: str
    steps: int = 10
    rate: float = 0.1
    decay: float = 0.97
    rate_beta: float = 0.1
    enough: float = torch.inf
    deadline: float = torch.inf

    def __call__(self, start: Start, batch: Batch, point: Point) -> Best:
        """Climb from `point`."""
        state = _State(self, start, batch, point)
        for step in range(self.steps + 1):
            more = step < self.steps and time.monotonic() < self.deadline
            state.evaluate(gradient=more)
            if not more or not state.go_on():
                break
            state.move(self.decay**step)
        return state.best()


@dataclass
class _State:
    climb: Climb
    start: Start
    batch: Batch
    point: Point
    rows: Tensor = field(init=False)

    def __post_init__(self) -> None:
        count, width = self.point.choice.shape
        like, d = self.point.choice, self.batch.box_lower.shape[1]
        self.rows = torch.arange(count)
        self.bound = like.new_full((count,), -torch.inf)
        self.kept = Point(like.clone(), None if self.point.beta is None else self.point.beta.clone())
        self.kept_at, self.kept_seen = like.new_zeros((count, width)), like.new_zeros((count, width))
        self.kept_a, self.kept_corner = like.new_zeros((count, d)), like.new_zeros((count, d))
        self.kept_c = like.new_zeros(count)
        self.moments: list[tuple[Tensor, Tensor]] | None = None
        self.step = 0

    def evaluate(self, *, gradient: bool) -> None:
        """Bound the active rows at the rounded point; note what is better; gradients if asked."""
        climb, walk, batch, point = self.climb, self.climb.walk, self.batch, self.point
        choice = (point.choice * 255).round() / 255
        lines = walk.lines(batch.lower, batch.upper, choice)
        splits = None
        if point.beta is not None and batch.sign is not None:
            splits = Splits(point.beta * batch.sign, batch.threshold)
        walked = walk.down(self.start, lines, splits)
        bound = walked.minimum(batch.box_lower, batch.box_upper)
        corner = walked.corner(batch.box_lower, batch.box_upper)
        at = _joined(walk, walked, len(bound), choice)
        seen = walk.up(walked, corner, lines, climb.last)
        self._note(bound, Point(choice, point.beta), at, seen, corner, walked)
        if gradient:
            self.gradient = self._gradient(lines, at, seen, choice)

    def _note(self, bound: Tensor, point: Point, at: Tensor, seen: Tensor, corner: Tensor, walked: Walked) -> None:
        better = (bound > self.bound[self.rows]).nonzero().flatten()  # NaN is never better
        rows = self.rows[better]
        self.bound[rows] = bound[better]
        self.kept.choice[rows] = point.choice[better]
        if self.kept.beta is not None and point.beta is not None:
            self.kept.beta[rows] = point.beta[better]
        self.kept_at[rows], self.kept_seen[rows] = at[better], seen[better]
        self.kept_corner[rows], self.kept_a[rows], self.kept_c[rows] = (
            corner[better],
            walked.a[better],
            walked.c[better],
        )

    def _gradient(self, lines: dict[str, Elementwise], at: Tensor, seen: Tensor, choice: Tensor) -> list[Tensor]:
        """Of the bound in the choices, and in β."""
        batch, positive = self.batch, at.clamp_min(0)
        parts = []
        for site in self.climb.walk.sites.sites:
            up, v = positive[:, site.columns], seen[:, site.columns]
            low, high = batch.lower[:, site.columns], batch.upper[:, site.columns]
            if site.bent is not None:  # a_L = s + (1 − s) choice where unstable
                parts.append((1 - site.bent) * up * v * ((low < 0) & (high > 0)))
            else:
                down = at[:, site.columns] - up
                parts.append(_through(site, low, high, choice[:, site.columns], (up, v, down)))
        gradients = [torch.cat(parts, 1) if parts else choice]
        if batch.sign is not None and self.point.beta is not None:
            gap = seen if batch.threshold is None else seen - batch.threshold
            gradients.append(batch.sign * gap)
        return gradients

    def go_on(self) -> bool:
        """Drop rows that are proven, once they are a fifth of those that walk."""
        done = self.bound[self.rows] > self.climb.enough
        if bool(done.all()):
            return False
        if int(done.sum()) * 5 > len(done):
            self._shrink((~done).nonzero().flatten())
        return True

    def _shrink(self, stay: Tensor) -> None:
        self.rows = self.rows[stay]
        self.batch, self.point = self.batch.take(stay), self.point.take(stay)
        self.start = Start({name: a[stay] for name, a in self.start.rows.items()}, self.start.constant[stay])
        self.gradient = [g[stay] for g in self.gradient]
        if self.moments is not None:
            self.moments = [(m[stay], v[stay]) for m, v in self.moments]

    def move(self, factor: float) -> None:
        """One step of Adam, then back into the range."""
        gradients = [torch.nan_to_num(g, nan=0.0) for g in self.gradient]
        if self.moments is None:
            self.moments = [(torch.zeros_like(g), torch.zeros_like(g)) for g in gradients]
        self.step += 1
        moves = []
        for k, g in enumerate(gradients):
            m, v = self.moments[k]
            m, v = FIRST * m + (1 - FIRST) * g, SECOND * v + (1 - SECOND) * g * g
            self.moments[k] = (m, v)
            rise = m / (1 - FIRST**self.step)
            moves.append(rise / ((v / (1 - SECOND**self.step)).sqrt() + SMALL))
        choice = (self.point.choice + self.climb.rate * factor * moves[0]).clamp(0.0, 1.0)
        beta = self.point.beta
        if beta is not None and len(moves) > 1:
            beta = (beta + self.climb.rate_beta * factor * moves[1]).clamp_min(0.0)
        self.point = Point(choice, beta)

    def best(self) -> Best:
        return Best(self.bound, self.kept, self.kept_at, self.kept_seen, self.kept_corner, self.kept_a, self.kept_c)


def _joined(walk: Walk, walked: Walked, count: int, like: Tensor) -> Tensor:
    """Coefficients on all free entries, (r, F); 0 where the walk did not come."""
    at = like.new_zeros((count, len(walk.sites.lower)))
    for site in walk.sites.sites:
        if site.node.name in walked.at:
            at[:, site.columns] = walked.at[site.node.name]
    return at


def _through(site, low: Tensor, high: Tensor, choice: Tensor, signals: tuple[Tensor, Tensor, Tensor]) -> Tensor:  # noqa: ANN001
    """∂g/∂choice of a rule that says how its lines depend on it: one small graph per site."""
    up, v, down = signals
    with torch.enable_grad():
        free = choice.detach().requires_grad_()
        lines = site.lines(low, high, free)
        total = (up * v * lines.lower_slope).sum() + (down * v * lines.upper_slope).sum()
        total = total + (down * lines.upper_constant).sum()
        if lines.lower_constant is not None:
            total = total + (up * lines.lower_constant).sum()
        if not total.requires_grad:
            return torch.zeros_like(choice)
        (gradient,) = torch.autograd.grad(total, free)
    return gradient
