"""Moved pictures lie within the bounds of both sides' rules: hand-made cells, borders, quarter turns, random cells."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from saddlepoint.bound.rules.render import enclose
from saddlepoint.check.proofs_render import slab
from saddlepoint.check.render import render
from saddlepoint.core.errors import InputError
from saddlepoint.graph.ops import Render

Planes = tuple[Tensor, Tensor, Tensor]  # slope, centre, half
Rule = Callable[[Render, Tensor, Tensor], tuple[Tensor, Tensor, Planes]]
ROUNDING = 2e-13  # of the float64 rendering that stands for the real one


def searched(op: Render, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Planes]:
    found = enclose(op, low, high)
    return *found.range, (found.slope, found.centre, found.half)


def checked(op: Render, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Planes]:
    found = slab(op, low, high)
    return *found.range, (found.slope, found.centre, found.half)


RULES = [pytest.param(searched, id="search"), pytest.param(checked, id="check")]
SLACK: dict[Rule, float] = {
    searched: 1e-9,
    checked: ROUNDING,
}  # the search rounds to nearest and divides by small widths


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points_of(low: Tensor, high: Tensor, count: int, seed: int) -> Tensor:
    """(count, b, 3) within the cells, a third of the coordinates at an end."""
    share = torch.rand((count, *low.shape), generator=generator(seed), dtype=torch.float64)
    ends = torch.rand(share.shape, generator=generator(seed + 1)) < 0.35
    share = torch.where(ends, share.round(), share)
    return torch.minimum(torch.maximum(low + (high - low) * share, low), high)


def excess(rule: Rule, image: Tensor, low: Tensor, high: Tensor, count: int = 60, seed: int = 0) -> float:
    """By how much a rendering leaves its interval or its slab, at most."""
    least, most, (slope, centre, half) = rule(Render(image), low, high)
    p = points_of(low, high, count, seed)
    flat = p.reshape(-1, 3)
    y = render({"kind": "spatial"}, image.expand(len(flat), *image.shape), flat).view(count, len(low), *image.shape)
    middle = (slope * p[..., None, None, None]).sum(2) + centre
    return max(float((least - y).max()), float((y - most).max()), float(((y - middle).abs() - half).max()))


def cells(count: int, wide: float, seed: int, centre: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    where, size = (torch.rand((count, 3), generator=generator(seed + i), dtype=torch.float64) for i in (5, 6))
    middle = (2 * where - 1) * torch.tensor(centre, dtype=torch.float64)
    half = size * wide * torch.tensor([20.0, 1.5, 1.5], dtype=torch.float64)
    return middle - half, middle + half


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (1, 28, 28), (2, 1, 6), (1, 1, 1)])
@pytest.mark.parametrize("wide", [0.0, 1e-8, 1e-3, 0.05, 0.3, 1.0, 3.0])
def test_random_renderings_lie_within_their_bounds(rule: Rule, shape: tuple[int, int, int], wide: float) -> None:
    seed = int(wide * 1000) + shape[1]
    image = torch.rand(shape, generator=generator(seed), dtype=torch.float64) * 2 - 0.7
    low, high = cells(8, wide, seed, (200.0, 4.0, 4.0))
    assert excess(rule, image, low, high, 60, seed) <= SLACK[rule]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("angle", [-180.0, -90.0, 0.0, 90.0, 360.0])
def test_cells_that_begin_or_end_on_grid_lines(rule: Rule, angle: float) -> None:
    image = torch.rand((1, 6, 6), generator=generator(3), dtype=torch.float64)
    lows = torch.tensor([[angle, dy, dx] for dy in (-7.0, -1.0, 0.0, 6.0) for dx in (-6.0, 0.0, 2.0)]).double()
    for width in ([0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 2.0], [3.0, 0.0, 1.0], [10.0, 1.0, 1.0]):
        wide = torch.tensor(width, dtype=torch.float64)
        assert excess(rule, image, lows, lows + wide) <= SLACK[rule]
        assert excess(rule, image, lows - wide, lows) <= SLACK[rule]


@pytest.mark.parametrize("rule", RULES)
def test_a_point_has_the_bounds_of_its_rendering(rule: Rule) -> None:
    image = torch.rand((3, 7, 6), generator=generator(4), dtype=torch.float64)
    p = torch.tensor([[0.0, 0.0, 0.0], [17.3, 0.4, -1.2], [-90.0, 1.0, 0.0]], dtype=torch.float64)
    y = render({"kind": "spatial"}, image.expand(3, 3, 7, 6), p)
    least, most, (slope, centre, half) = rule(Render(image), p, p)
    middle = (slope * p[..., None, None, None]).sum(1) + centre
    for found in (least, most, middle):
        assert float((found - y).abs().max()) < 1e-9
    assert float(half.max()) < 1e-9


@pytest.mark.parametrize("rule", RULES)
def test_planes_follow_a_picture_that_is_a_ramp(rule: Rule) -> None:
    """Where the image is linear, a shift moves a pixel linearly: the slab is flat, the interval is not."""
    image = torch.arange(9.0, dtype=torch.float64).expand(1, 9, 9)
    low, high = torch.tensor([[0.0, -0.5, -0.5]]).double(), torch.tensor([[0.0, 0.5, 0.5]]).double()
    least, most, (slope, _, half) = rule(Render(image), low, high)
    inner = (0, 0, slice(2, 7), slice(2, 7))
    assert float(half[inner].max()) < 1e-9
    assert torch.allclose(slope[0, 2][inner[1:]], torch.tensor(-1.0, dtype=torch.float64))
    assert torch.allclose((most - least)[inner], torch.tensor(1.0, dtype=torch.float64))


def test_narrower_cells_have_thinner_slabs_of_second_order() -> None:
    """Halving a cell of a smooth picture quarters its slabs, and halves its intervals."""
    grid = torch.linspace(-1, 1, 28, dtype=torch.float64)
    image = (-(grid[:, None] ** 2 + grid[None] ** 2) * 2).exp()[None]
    widths = torch.tensor([2.0, 0.2, 0.2], dtype=torch.float64)
    for rule in (searched, checked):
        gaps, ranges = [], []
        for k in range(3):
            half = (widths / 2**k)[None]
            least, most, planes = rule(Render(image), 0.3 - half, 0.3 + half)
            gaps.append(float(planes[2][..., 4:-4, 4:-4].mean()))
            ranges.append(float((most - least)[..., 4:-4, 4:-4].mean()))
        assert 0.4 < ranges[1] / ranges[0] < 0.6
        assert gaps[0] < ranges[0] / 4
        assert gaps[1] / gaps[0] < 0.5


def test_the_checker_is_as_tight_as_the_search() -> None:
    image = torch.rand((1, 28, 28), generator=generator(1), dtype=torch.float64)
    low, high = cells(40, 0.05, 1, (30.0, 1.0, 1.0))
    ours, theirs = searched(Render(image), low, high), checked(Render(image), low, high)
    assert float((ours[0] - theirs[0]).max()) < 1e-9
    assert float((theirs[2][2] - ours[2][2]).max()) < 1e-9


def test_infinite_parameters_are_refused_by_the_checker() -> None:
    low = torch.tensor([[0.0, 0.0, -torch.inf]], dtype=torch.float64)
    with pytest.raises(InputError, match="finite"):
        slab(Render(torch.ones(1, 3, 3)), low, -low)
