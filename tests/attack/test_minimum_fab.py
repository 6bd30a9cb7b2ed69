"""FAB-T: closed forms on affine models, the way to a hyperplane, and its named traps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attack_models import affine, convnet, images, wrap
from hypothesis import given, settings
from hypothesis import strategies as st
from minimum_oracles import ratio
from torch import Tensor

from saddlepoint.attack import FAB, EngineSettings, Rows, run
from saddlepoint.attack.minimum.hyperplane import way_to
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.geometry import L0, L1, L2, Box, Linf, PerturbationSet
from saddlepoint.spec.goal import Targeted

NORMS: dict[str, PerturbationSet] = {"linf": Linf(1), "l2": L2(1), "l1": L1(1)}


@pytest.mark.parametrize("threat", NORMS.values(), ids=NORMS.keys())
@settings(max_examples=2)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 5))
def test_affine_models_reach_the_closed_form_with_the_box_active(
    threat: PerturbationSet, seed: int, classes: int
) -> None:
    assert ratio(FAB(steps=20), affine(seed, classes), threat)[0] <= 1.001


@pytest.mark.parametrize("threat", NORMS.values(), ids=NORMS.keys())
@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), wide=st.booleans())
def test_trap_29_the_projection_onto_the_hyperplane_respects_the_box(
    threat: PerturbationSet, seed: int, wide: bool
) -> None:
    """Against geometry's own proof-grade projection, for points on the box's faces and planes in and out of reach."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(6, 40, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)
    w = torch.randn(6, 40, generator=generator, dtype=torch.float64) * (torch.rand(6, 40, generator=generator) > 0.2)
    gap = torch.randn(6, generator=generator, dtype=torch.float64) * (8 if wide else 1)
    ball = threat.resized(1000).within(Box(0, 1))
    (d,) = way_to(Rows(x, torch.zeros(6, dtype=torch.int64), tuple("abcdef"), ball), (x,), w, (gap,))
    assert bool(((x + d >= -1e-12) & (x + d <= 1 + 1e-12)).all())
    wanted = ball.project_hyperplane(x, x, w, (x * w).sum(1) + gap)
    there = wanted.exists
    assert torch.allclose((w * d).sum(1)[there], gap[there], atol=1e-9)
    lengths = [{"linf": v.abs().amax(1), "l2": v.norm(dim=1), "l1": v.abs().sum(1)} for v in (d, wanted.points - x)]
    assert torch.allclose(lengths[0][threat.kind][there], lengths[1][threat.kind][there], rtol=1e-7)
    corner = torch.where(w * gap[:, None] > 0, 1 - x, -x) * (w != 0)  # out of reach: the corner nearest to the plane
    assert torch.allclose(d[~there], corner[~there])


def test_two_points_go_to_one_plane_each_by_its_own_gap() -> None:
    """Batched together, they are what they are alone, bitwise."""
    generator = torch.Generator().manual_seed(0)
    x, z, w = torch.rand(3, 5, 64, generator=generator)
    w = w - 0.5
    gap = torch.rand(5, generator=generator) - 0.5
    for threat in NORMS.values():
        rows = Rows(x, torch.zeros(5, dtype=torch.int64), tuple("abcde"), threat.within(Box(0, 1)))
        both = way_to(rows, (x, z), w, (gap, -gap))
        alone = way_to(rows, (x,), w, (gap,))[0], way_to(rows, (z,), w, (-gap,))[0]
        assert torch.equal(both[0], alone[0])
        assert torch.equal(both[1], alone[1])


def test_a_dead_gradient_moves_nothing_and_tiny_ones_move_as_large_ones() -> None:
    x = torch.full((3, 4), 0.5)
    w = torch.tensor([[1.0, 2, 3, 4]]) * torch.tensor([[1.0], [1e-30], [0.0]])
    gap = torch.tensor([0.5, 0.5e-30, 0.5])
    for threat in NORMS.values():
        rows = Rows(x, torch.zeros(3, dtype=torch.int64), ("a", "b", "c"), threat.within(Box(0, 1)))
        (d,) = way_to(rows, (x,), w, (gap,))
        assert torch.allclose(d[0], d[1], rtol=1e-5)
        assert torch.equal(d[2], torch.zeros(4))


def test_trap_28_one_gradient_a_step_and_trap_26_at_most_k_minus_1_targets() -> None:
    attack = FAB(steps=7, search=2)
    found = run(wrap(convnet(), 5), attack, images(convnet(), 6, L2("0.3")), EngineSettings(smallest=True))
    assert attack.targets(torch.zeros(2, 5), torch.tensor([0, 4])).shape == (2, 4)
    assert found.backwards.tolist() == [4 * 7] * 6
    assert int(found.forwards.max()) <= 1 + 4 * attack.forwards


def test_targets_are_the_likeliest_wrong_classes() -> None:
    clean = torch.tensor([[0.0, 3.0, 1.0, 2.0], [4.0, 3.0, 1.0, torch.nan]])
    assert FAB(count=2).targets(clean, torch.tensor([1, 1])).tolist() == [[3, 2], [0, 2]]


def test_trap_30_the_first_start_is_x0_and_the_next_is_half_the_best_size_away() -> None:
    net = convnet()
    for threat in NORMS.values():
        rows = images(net, 1, threat)
        seen: list[Tensor] = []

        def watched(x: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(x.detach().clone())
            return net(x)

        attack = FAB(steps=6, starts=2, count=1, search=0)
        run(wrap(watched, 5), attack, replace(rows, clean=net(rows.x0).detach()), EngineSettings(smallest=True))
        path = torch.cat(seen)[:, None]  # x_0 … x_6 of both starts
        assert len(path) == attack.forwards
        assert torch.equal(path[0], rows.x0)
        broken = torch.stack([net(p).argmax(1) != rows.y for p in path[:7]])[:, 0]
        size = torch.stack([threat.gauge(rows.x0, p)[0] for p in path])
        radius = min(float(size[:7][broken].min()), 1.0) / 2
        inside = threat.within(Box(0, 1)).contains(rows.x0, path[7], slack=1e-4)
        assert bool(inside)
        assert 0 < float(size[7]) <= radius * (1 + 1e-5)  # the box may cut it


def test_a_user_s_own_target_is_the_only_one() -> None:
    """trap 30: "targeted" in FAB-T is not the user's target; a targeted goal is."""
    net = convnet()
    rows = replace(images(net, 8, L2(1)), goal=Targeted(2))
    found = run(wrap(net, 5), FAB(steps=20), rows, EngineSettings(smallest=True))
    away = rows.y != 2
    assert bool(found.success[away].all())
    assert bool((net(found.best_point[away])[:, 2] >= net(found.best_point[away]).amax(1) - 1e-5).all())


@pytest.mark.parametrize("threat", NORMS.values(), ids=NORMS.keys())
def test_more_steps_and_starts_are_never_worse(threat: PerturbationSet) -> None:
    """The same path, longer: the record is the smallest of it, not its end (traps 3 and 41)."""
    rows = images(convnet(), 8, threat)
    sizes = [
        run(wrap(convnet(), 5), FAB(steps=n, starts=s, search=0), rows, EngineSettings(smallest=True)).size
        for n, s in ((5, 1), (20, 1), (20, 2))
    ]
    assert bool((sizes[1] <= sizes[0]).all())
    assert bool((sizes[2] <= sizes[1]).all())
    assert bool(sizes[1].isfinite().all())


def test_a_fixed_size_stops_at_the_first_point_inside() -> None:
    rows = images(convnet(), 10, L2("0.3"))
    found = run(wrap(convnet(), 5), FAB(steps=30), rows)
    smallest = run(wrap(convnet(), 5), FAB(steps=30), rows, EngineSettings(smallest=True))
    assert torch.equal(found.success, smallest.size <= 0.3)
    assert int(found.forwards[found.success].max()) < int(smallest.forwards.min())


def test_sizes_per_sample_and_infinite_boxes() -> None:
    case = affine(3, 3)
    threat = L2(torch.linspace(0.01, 2, len(case.x), dtype=torch.float64))
    assert ratio(FAB(steps=20), case, threat)[0] <= 1.001


def test_refusals() -> None:
    with pytest.raises(NotAvailable, match="L0"):
        run(wrap(convnet(), 5), FAB(), images(convnet(), 2, L0(3)))
    with pytest.raises(InputError, match="beta"):
        FAB(beta=1.5)
    with pytest.raises(InputError, match="steps"):
        FAB(steps=0)
