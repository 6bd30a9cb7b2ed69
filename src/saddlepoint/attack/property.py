"""Ascent on the violation of a property over a box.

    min over x in box, clauses c   max over atoms a of c   a(x, f(x))        a violation once this is ≤ 0

Every row descends for one clause: sign steps scaled by the width of each coordinate, with the momentum and the step
halving of Auto-PGD (Croce & Hein 2020, Algorithm 1; fixed/apgd.py). The first step has the full width, so it visits the
corner that the gradient at the start points to. All clauses and restarts go in one batch. Even restarts follow the
largest atom of their clause, odd ones the sum of its positive atoms, which moves on atoms that wait behind the largest.

The batch is in the network's precision and keeps to its numbers inside the box. A coordinate whose limits leave no such
number between them is fixed at its lower limit, as a float64, and the network sees that limit rounded.
Cost of a round: steps + 1 forwards, steps backwards of clauses · restarts rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.core.errors import InputError
from saddlepoint.graph.ir import Graph
from saddlepoint.spec.property import Property
from saddlepoint.spec.query import Query

Accept = Callable[[Tensor], Tensor | None]  # candidates (n, d) float64, the most violated first -> one that counts

_STALLS = 0.75  # a row that improves in fewer of a window's steps halves its step size
_MOMENTUM = 0.75


@dataclass(frozen=True)
class PropertyAttack:
    """Rounds of `steps` steps; `rows` rows at most in one batch, of which every clause gets its share.

    `least` steps are taken whatever the deadline of a round: most violations that exist are met at the first corner.
    """

    steps: int = 30
    rows: int = 64
    windows: int = 5
    least: int = 2
    offered: int = 4  # candidates a step hands to the check

    def __post_init__(self) -> None:
        if min(self.steps, self.rows, self.windows, self.least, self.offered) < 1:
            raise InputError(f"{self} has a number below 1.", "All of them count from 1.")


@dataclass(frozen=True, eq=False)
class Atoms:
    """The atoms of a property as rows, and which clause each belongs to (owner, members bool (c, a))."""

    z: Tensor
    x: Tensor | None
    b: Tensor
    strict: Tensor
    members: Tensor

    def values(self, x: Float[Tensor, "n d"], z: Float[Tensor, "n k"]) -> Float[Tensor, "n a"]:
        """Every atom at every row."""
        found = z @ self.z.T + self.b
        return found if self.x is None else found + x @ self.x.T

    def of_clauses(self, values: Float[Tensor, "n a"]) -> Float[Tensor, "n c"]:
        """max over the atoms of every clause."""
        return values.unsqueeze(1).masked_fill(~self.members, -torch.inf).amax(2)

    def broken(self, values: Float[Tensor, "n a"]) -> Tensor:
        """Per row, whether all atoms of some clause are violated."""
        violated = torch.where(self.strict, values < 0, values <= 0)
        return (violated.unsqueeze(1) | ~self.members).all(2).any(1)


@dataclass(frozen=True, eq=False)
class Region:
    """The box in the network's precision; `fixed` coordinates have no number of it between their limits."""

    lower: Tensor
    upper: Tensor
    fixed: Tensor
    at: Tensor  # float64, used where fixed

    @property
    def centre(self) -> Tensor:
        """The middle of the box."""
        return self.lower + 0.5 * (self.upper - self.lower)

    def kept(self, x: Tensor) -> Tensor:
        """Points moved into the box, in the network's precision."""
        return torch.minimum(torch.maximum(x.to(self.lower), self.lower), self.upper)

    def wide(self, x: Tensor) -> Tensor:
        """Points as float64 in the box."""
        return torch.where(self.fixed, self.at, x.detach().to(torch.float64))


@dataclass(frozen=True, eq=False)
class _Path:
    x: Tensor
    before: Tensor
    slope: Tensor
    best: Tensor
    best_slope: Tensor
    best_value: Tensor
    eta: Tensor
    rises: Tensor
    last: Tensor


def atoms_of(property: Property, like: Tensor, inputs: int, outputs: int) -> Atoms:
    """The property's atoms as tensors of `like`'s type."""
    every = [(c, atom) for c, clause in enumerate(property.clauses) for atom in clause]
    owner = torch.tensor([c for c, _ in every])

    def matrix(rows: list[tuple[float, ...]], width: int) -> Tensor:
        return torch.tensor([row or (0.0,) * width for row in rows], dtype=torch.float64).to(like)

    return Atoms(
        matrix([atom.z for _, atom in every], outputs),
        matrix([atom.x for _, atom in every], inputs) if any(atom.x for _, atom in every) else None,
        torch.tensor([atom.b for _, atom in every], dtype=torch.float64).to(like),
        torch.tensor([atom.strict for _, atom in every]),
        owner == torch.arange(len(property.clauses))[:, None],
    )


def region_of(query: Query, dtype: torch.dtype) -> Region:
    """The witness box in `dtype`, rounded inwards."""
    low, high = query.witness_box
    lower, upper = low.to(dtype), high.to(dtype)
    # a limit that rounding has moved outwards goes back in by one number
    lower = torch.where(lower.double() < low, torch.nextafter(lower, torch.full_like(lower, math.inf)), lower)
    upper = torch.where(upper.double() > high, torch.nextafter(upper, torch.full_like(upper, -math.inf)), upper)
    fixed = ~(lower <= upper)
    pinned = low.to(dtype)
    return Region(torch.where(fixed, pinned, lower), torch.where(fixed, pinned, upper), fixed, low)


def attack_property(
    graph: Graph,
    query: Query,
    accept: Accept,
    config: PropertyAttack,
    *,
    deadline: float,
    seed: int = 0,
    start: Float[Tensor, "n d"] | None = None,
) -> Tensor | None:
    """One round of the attack; a point that `accept` took, or None.

    `deadline` is a time.monotonic(). The rows start at `start` (float64, moved into the box) as far as it reaches.
    """
    region = region_of(query, graph.dtype)
    outputs = math.prod(graph.output_shape)
    atoms = atoms_of(query.property, region.lower, len(query.lower), outputs)
    draw = torch.Generator().manual_seed(seed)
    clauses = atoms.members.shape[0]
    restarts = max(1, config.rows // clauses)
    owner = torch.arange(clauses).repeat(restarts)[: config.rows]
    if clauses > config.rows:
        owner = torch.randperm(clauses, generator=draw)[: config.rows]
    path = _start(region, len(owner), draw, start if start is not None else region.centre[None] if seed == 0 else None)
    hinge = (torch.arange(len(owner)) // clauses) % 2 == 1
    window = max(2, config.steps // config.windows)
    for step in range(config.steps + 1):
        x = path.x.detach().requires_grad_(step < config.steps)
        z = graph(x.view(-1, *graph.input_shape)).flatten(1)
        values = atoms.values(x, z)
        found = _offer(region, atoms, x, values.detach(), accept, config.offered)
        late = step >= config.least and time.monotonic() >= deadline
        if found is not None or step == config.steps or late:
            return found
        (slope,) = torch.autograd.grad(_loss(atoms, values, owner, hinge).sum(), x)
        path = _note(path, atoms.of_clauses(values.detach()).gather(1, owner[:, None])[:, 0], slope)
        if step and step % window == 0:
            path = _halve(path, window)
        path = _move(path, region, first=step == 0)
    return None


def _start(region: Region, rows: int, draw: torch.Generator, given: Tensor | None) -> _Path:
    """Alternately points and corners of the box, the given points first."""
    width = region.upper - region.lower
    mix = torch.rand((rows, len(width)), generator=draw, dtype=width.dtype)
    mix[1::2] = mix[1::2].round()
    x = region.lower + mix * width
    if given is not None:
        x = torch.cat([given.to(x)[:rows], x[len(given) :]])
    x, worst, flat = region.kept(x), x.new_full((rows,), math.inf), torch.zeros_like(x)
    return _Path(x, x, flat, x, flat, worst, x.new_ones((rows, 1)), torch.zeros(rows), worst)


def _loss(atoms: Atoms, values: Tensor, owner: Tensor, hinge: Tensor) -> Tensor:
    """What every row descends on, for its own clause."""
    own = atoms.members[owner]
    largest = values.masked_fill(~own, -math.inf).amax(1)
    positive = (values.clamp_min(0) * own).sum(1)
    return torch.where(hinge & (positive > 0), positive, largest)


def _offer(region: Region, atoms: Atoms, x: Tensor, values: Tensor, accept: Accept, most: int) -> Tensor | None:
    """Hand the rows that seem to violate the property to the check, the most violated first."""
    broken = atoms.broken(values).nonzero()[:, 0]
    if len(broken) == 0:
        return None
    value = atoms.of_clauses(values[broken]).amin(1)
    return accept(region.wide(x[broken[value.argsort()[:most]]]))


def _note(path: _Path, value: Tensor, slope: Tensor) -> _Path:
    """Keep the best point with its slope; NaN is never better."""
    better = value < path.best_value
    return replace(
        path,
        slope=slope,
        best_slope=torch.where(better[:, None], slope, path.best_slope),
        best=torch.where(better[:, None], path.x, path.best),
        best_value=torch.where(better, value, path.best_value),
        rises=path.rises + (value < path.last),
        last=value,
    )


def _halve(path: _Path, window: int) -> _Path:
    """Rows that stall halve their step and go back to their best point."""
    stalls = path.rises < _STALLS * window
    return replace(
        path,
        eta=torch.where(stalls[:, None], path.eta / 2, path.eta),
        x=torch.where(stalls[:, None], path.best, path.x),
        before=torch.where(stalls[:, None], path.best, path.before),
        slope=torch.where(stalls[:, None], path.best_slope, path.slope),
        rises=torch.zeros_like(path.rises),
    )


def _move(path: _Path, region: Region, *, first: bool) -> _Path:
    """A sign step with momentum, kept in the box. Where the slope is NaN the point stays."""
    width = region.upper - region.lower
    z = region.kept(path.x - path.eta * width * path.slope.sign().nan_to_num(0.0))
    if not first:
        z = region.kept(path.x + _MOMENTUM * (z - path.x) + (1 - _MOMENTUM) * (path.x - path.before))
    return replace(path, x=z, before=path.x)
