"""DDN, FMN, PDPGD, σ-zero and Relay: closed forms with the box active, traps 41 and 42; the curve of one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attack_models import UNIT, Affine, affine, convnet, images, wrap
from torch import Tensor

from saddlepoint.attack import (
    DDN,
    FMN,
    PDPGD,
    PGD,
    Answers,
    Attack,
    EngineSettings,
    Relay,
    Rows,
    SigmaZero,
    curve,
    run,
    smallest,
)
from saddlepoint.attack.minimum import fmn
from saddlepoint.attack.minimum.proximal import prox
from saddlepoint.attack.minimum.smallest import decided
from saddlepoint.attack.steps import dual_norm
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.geometry import L0, L1, L2, Linf, PerturbationSet

KINDS: dict[str, Callable[[Any], PerturbationSet]] = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
CASES: list[tuple[Attack[Any], str, float]] = [
    (DDN(steps=300), "l2", 1.01),
    (FMN(steps=150), "linf", 1.01),
    (FMN(steps=150), "l2", 1.01),
    (FMN(steps=300), "l1", 1.01),
    (FMN(steps=100), "l0", 1.0),
    (PDPGD(steps=200), "linf", 1.01),
    (PDPGD(steps=200), "l2", 1.01),
    (PDPGD(steps=400), "l1", 1.05),  # its price swings; FMN and Relay arrive
    (SigmaZero(steps=100), "l0", 1.0),
    (Relay(steps=60), "linf", 1.001),
    (Relay(steps=60), "l2", 1.001),
    (Relay(steps=60), "l1", 1.001),
    (Relay(steps=120), "l0", 1.0),
]


def optimum(case: Affine, kind: Callable[[Any], PerturbationSet]) -> Tensor:
    """The size at which the exact worst margin vanishes, by bisection; rounded up to whole pixels in ℓ0."""
    low = torch.zeros(len(case.x), dtype=torch.float64)
    high = torch.full_like(low, case.x.shape[1])
    for _ in range(60):
        middle = (low + high) / 2
        falls = case.worst(kind(middle).within(UNIT)) <= 0
        low, high = torch.where(falls, low, middle), torch.where(falls, middle, high)
    return (high - 1e-9).ceil() if kind is L0 else high


@pytest.mark.parametrize(("attack", "name", "most"), CASES, ids=[f"{a.name}-{n}" for a, n, _ in CASES])
def test_two_classes_reach_the_smallest_size(attack: Attack[Any], name: str, most: float) -> None:
    for seed in (0, 1):
        case = affine(seed, 2)
        best = optimum(case, KINDS[name])
        found = run(case.model, attack, case.rows(KINDS[name](1)), EngineSettings(smallest=True))
        assert bool((found.size >= best * (1 - 1e-9)).all())  # nothing can beat the closed form
        assert bool((found.size <= best * most + 1e-12).all())


@pytest.mark.parametrize("name", ["linf", "l2", "l1"])
def test_one_target_per_class_reaches_the_smallest_size(name: str) -> None:
    """Many classes: the nearest boundary need not be the one that an untargeted descent follows."""
    case = affine(2, 5)
    best = optimum(case, KINDS[name])
    found = run(case.model, Relay(steps=40, count=4), case.rows(KINDS[name](1)), EngineSettings(smallest=True))
    assert bool((found.size <= best * 1.001 + 1e-12).all())


@pytest.mark.parametrize(
    ("attack", "swinging"),
    [(DDN(steps=30), True), (FMN(steps=30), False), (PDPGD(steps=30), True)],
    ids=["ddn", "fmn", "pdpgd"],
)
def test_trap_41_the_smallest_point_is_kept_not_the_last(attack: Attack[Any], swinging: bool) -> None:
    """The path swings around the boundary: the size reported is the smallest of all broken points that were asked.

    FMN's broken points only get smaller, since its radius never exceeds the best one.
    """
    net = convnet()
    rows, swings = images(net, 4, L2(1)), 0
    for i in range(4):
        seen: list[float] = []
        x0, y = rows.x0[i : i + 1], rows.y[i : i + 1]

        def watched(x: Tensor, x0: Tensor = x0, y: Tensor = y, seen: list[float] = seen) -> Tensor:
            z = net(x)
            if int(z.argmax(1)) != int(y):
                seen.append(float((x.detach() - x0).double().norm()))
            return z

        found = run(wrap(watched, 5), attack, Rows(x0, y, ("a",), L2(1)), EngineSettings(smallest=True))
        assert seen
        assert float(found.size) == pytest.approx(min(seen), rel=1e-6)
        swings += seen[-1] > min(seen)
    assert (swings > 0) == swinging  # where it does not swing, the last would do


@pytest.mark.parametrize("name", ["linf", "l2", "l1"])
def test_trap_42_the_first_radius_uses_the_dual_norm_of_the_gradient(name: str) -> None:
    """Far from the box's faces the first radius is the exact distance of an affine boundary, and γ more."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(12, generator=generator, dtype=torch.float64)
    x = torch.full((1, 12), 0.5, dtype=torch.float64)
    rows = Rows(x, torch.tensor([0]), ("a",), KINDS[name](1).within(UNIT))
    value = 0.05 * torch.ones(1, dtype=torch.float64)
    far = torch.full((1,), torch.inf, dtype=torch.float64)
    answers = Answers(torch.tensor([0]), margins=value, values=-value, slopes=w[None])
    radius = fmn.resized(rows, fmn.descent(rows, x, far), answers, 0.05).radius
    conjugate = {"linf": w.abs().sum(), "l2": w.norm(), "l1": w.abs().max()}[name]
    assert torch.allclose(radius, 1.05 * value / conjugate)
    assert torch.allclose(dual_norm(rows, w[None]), conjugate[None])


@pytest.mark.parametrize("name", ["linf", "l2", "l1"])
def test_proximal_points_are_minimisers(name: str) -> None:
    """λ ‖r‖ + ½ Σ D (r − v)² is no smaller at points around."""
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    metric = torch.rand(3, 8, generator=generator, dtype=torch.float64) + 0.1
    weight = torch.tensor([0.05, 0.4, 50.0], dtype=torch.float64)

    def cost(r: Tensor) -> Tensor:
        size = {"linf": r.abs().amax(1), "l2": r.norm(dim=1), "l1": r.abs().sum(1)}[name]
        return weight * size + (metric * (r - v).square()).sum(1) / 2

    best = prox(KINDS[name](1), v, metric, weight)
    assert bool((best[2] == 0).all())  # a price that nothing is worth
    for scale in (1e-4, 1e-2, 1.0):
        for _ in range(20):
            other = best + scale * torch.randn(3, 8, generator=generator, dtype=torch.float64)
            assert bool((cost(other) >= cost(best) - 1e-9).all())
    for shrunk in (torch.zeros_like(v), v, torch.where(v.abs() > 0.5, v, 0)):
        assert bool((cost(shrunk) >= cost(best) - 1e-9).all())


def test_one_run_gives_the_whole_curve() -> None:
    """On an affine model the curve of one minimum run equals the verdicts of a fixed-size attack at every size."""
    case = affine(4, 2, count=12)
    found = smallest(case.model, Relay(steps=60), case.rows(L2(1)))
    sizes = (0.0, 0.1, 0.3, 0.5, 0.9, 2.0)
    line = curve(found.size, sizes)
    assert all(a >= b for a, b in zip(line.standing, line.standing[1:], strict=False))
    for size, standing in zip(sizes, line.standing, strict=True):
        fixed = run(case.model, PGD(steps=30), case.rows(L2(size)), EngineSettings())
        assert standing == int((~fixed.success).sum())
    whole = curve(found.size)
    assert whole.standing[0] == line.standing[0]
    assert whole.standing[-1] == int(found.size.isinf().sum())
    assert whole.shares[0] == whole.standing[0] / 12
    assert torch.equal(decided(found.size, found.size).diagonal(), found.size.isfinite())


def test_the_smallest_of_several_attacks_is_kept_per_sample() -> None:
    net = convnet()
    rows, model = images(net, 6, L1(1)), wrap(net, 5)
    attacks = [FMN(steps=20), PDPGD(steps=20)]
    both = smallest(model, attacks, rows)
    alone = [run(model, a, rows, EngineSettings(smallest=True)) for a in attacks]
    assert torch.equal(both.size, torch.minimum(alone[0].size, alone[1].size))
    assert torch.equal(both.forwards, alone[0].forwards + alone[1].forwards)
    for i, by in enumerate(both.by.tolist()):
        assert torch.equal(both.point[i], alone[by].best_point[i])
    assert not bool(both.failed.any())


def test_what_does_not_fit_is_refused() -> None:
    net = convnet()
    rows, model = images(net, 2, L1(1)), wrap(net, 5)
    with pytest.raises(NotAvailable, match="L2"):
        run(model, DDN(steps=2), rows)
    with pytest.raises(NotAvailable, match="L0"):
        run(model, SigmaZero(steps=2), rows)
    for wrong in (
        lambda: DDN(gamma=1.0),
        lambda: FMN(alpha=0.0),
        lambda: PDPGD(price=0.0),
        lambda: SigmaZero(sigma=0.0),
    ):
        with pytest.raises(InputError):
            wrong()
    with pytest.raises(InputError):
        Relay(first=0.8, second=0.4)
    with pytest.raises(InputError):
        curve(torch.ones(3), (-0.1,))
    with pytest.raises(InputError):
        smallest(model, [], rows)
