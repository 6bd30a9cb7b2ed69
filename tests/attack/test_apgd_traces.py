"""Auto-PGD, step by step: a plain loop over one sample, written from the papers, asks for the same points.

Croce & Hein 2020, Algorithm 1 (ℓ∞, ℓ2); Croce & Hein 2021, Algorithm 1 and the larger radii (ℓ1). The loops use Python
numbers, NumPy-like indexing and projections of their own (bisection for ℓ1), and share only the random start.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from attack_models import UNIT, wrap
from torch import Tensor, nn

from saddlepoint.attack import APGD, APGDTargeted, Attack, EngineSettings, Rows, run
from saddlepoint.attack.fixed.apgd_l1 import balls
from saddlepoint.core.errors import NotAvailable
from saddlepoint.geometry import L1, L2, Linf, PerturbationSet

FEATURES, CLASSES = 30, 5


def network() -> nn.Module:
    """A small curved network in float64: steps overshoot, so every branch of the schedules is taken."""
    generator = torch.Generator().manual_seed(5)
    net = nn.Sequential(nn.Linear(FEATURES, 40), nn.Tanh(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, CLASSES))
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) * (1.2 / math.sqrt(p.shape[-1]) if p.ndim > 1 else 0.1)
    return net.double().eval().requires_grad_(False)


NET = network()


def samples(count: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(6)
    x = (torch.rand(count, FEATURES, generator=generator, dtype=torch.float64) * 1.4 - 0.2).clamp(0, 1)
    return x, NET(x).argmax(1)


def asked(attack: Attack, threat: PerturbationSet, i: int) -> list[Tensor]:
    """All points at which the engine calls the model for sample i, the clean one left out."""
    points = []

    def watched(x: Tensor) -> Tensor:
        points.append(x.detach().clone())
        return NET(x)

    x, y = samples()
    rows = Rows(x[i : i + 1], y[i : i + 1], (str(i),), threat)
    run(wrap(watched, CLASSES, (FEATURES,)), attack, rows, EngineSettings(drop=False, hasten=False))
    return [p[0] for p in points[1:]]


def dlr(z: Tensor, y: int) -> Tensor:
    order = z.argsort(descending=True)
    rival = order[0] if int(order[0]) != y else order[1]
    return -(z[y] - z[rival]) / (z[order[0]] - z[order[2]] + 1e-12)


def odds(z: Tensor, y: int) -> Tensor:
    """log((1 − p) / p), increasing in the cross-entropy −log p."""
    p = torch.exp(-nn.functional.cross_entropy(z[None], torch.tensor([y])))
    return torch.log((1 - p) / p)


LOSSES = {"ce": odds, "dlr": dlr}


@dataclass
class Problem:
    """One sample: f and its gradient, the projection and the normalised step."""

    x0: Tensor
    y: int
    eps: float
    loss: str

    def value(self, x: Tensor) -> tuple[float, Tensor]:
        point = x.clone().requires_grad_()
        with torch.enable_grad():
            f = LOSSES[self.loss](NET(point[None])[0], self.y)
            (g,) = torch.autograd.grad(f, point)
        return float(f.detach()), g


def linf_project(problem: Problem, u: Tensor) -> Tensor:
    near = torch.minimum(torch.maximum(u, problem.x0 - problem.eps), problem.x0 + problem.eps)
    return near.clamp(0, 1)


def l2_project(problem: Problem, u: Tensor) -> Tensor:
    """Nearest point of ball ∩ box: z = clip(x0 + s (u − x0)) with the largest s ≤ 1 that fits, by bisection."""
    low, high = 0.0, 1.0

    def at(s: float) -> Tensor:
        return (problem.x0 + s * (u - problem.x0)).clamp(0, 1)

    if float((at(1.0) - problem.x0).norm()) <= problem.eps:
        return at(1.0)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float((at(middle) - problem.x0).norm()) <= problem.eps else (low, middle)
    return at(low)


def l1_project(problem: Problem, u: Tensor, eps: float) -> Tensor:
    """|z − x0| = clip(|u − x0| − μ, 0, room), μ by bisection."""
    move = u - problem.x0
    room = torch.where(move > 0, 1 - problem.x0, problem.x0)

    def at(mu: float) -> Tensor:
        return torch.minimum((move.abs() - mu).clamp(min=0), room)

    low, high = 0.0, float(move.abs().max())
    if float(at(0.0).sum()) > eps:
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if float(at(middle).sum()) > eps else (low, middle)
        low = high
    return problem.x0 + move.sign() * at(low)


def dense_loop(
    problem: Problem, start: Tensor, steps: int, project: Callable[[Problem, Tensor], Tensor], norm: str
) -> tuple[list[Tensor], list[int]]:
    """Algorithm 1 of 2020: the iterates, and the steps at which η was halved."""

    def ahead(x: Tensor, g: Tensor, eta: float) -> Tensor:
        return x + eta * (g.sign() if norm == "linf" else g / g.norm())

    p = [0.0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    ends = [math.ceil(round(q * steps, 9)) for q in p if round(q * steps, 9) <= steps]
    eta, path, halvings = 2 * problem.eps, [start], []
    f0, g = problem.value(start)
    x, before, best, f_best, g_best = start, start, start, f0, g
    values, best_at, eta_at = [f0], {0: f0}, {0: eta}
    x = project(problem, ahead(start, g, eta))
    path.append(x)
    for k in range(1, steps):
        f, g = problem.value(x)
        values.append(f)
        if f > f_best:
            best, f_best, g_best = x, f, g
        if k in ends:
            j = ends.index(k)
            last = ends[j - 1]
            rises = sum(values[i + 1] > values[i] for i in range(last, k))
            one = rises < 0.75 * (k - last) or math.isclose(rises, 0.75 * (k - last))
            two = eta_at[last] == eta and best_at[last] == f_best
            eta_at[k], best_at[k] = eta, f_best
            if one or two:
                eta, x, g = eta / 2, best, g_best
                halvings.append(k)
        z = project(problem, ahead(x, g, eta))
        new = project(problem, x + 0.75 * (z - x) + 0.25 * (x - before))
        before, x = x, new
        path.append(x)
    return path, halvings


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize(
    ("threat", "norm", "project"),
    [(Linf("1/10"), "linf", linf_project), (L2("2/5"), "l2", l2_project)],
    ids=["linf", "l2"],
)
def test_the_iterates_are_those_of_algorithm_1(
    loss: str, threat: PerturbationSet, norm: str, project: Callable[[Problem, Tensor], Tensor]
) -> None:
    x, y = samples()
    halved = set()
    for i in range(3):
        points = asked(APGD(steps=50, loss=loss), threat, i)
        problem = Problem(x[i], int(y[i]), float(threat.size), loss)
        path, halvings = dense_loop(problem, points[0], 50, project, norm)
        halved |= set(halvings)
        assert len(points) == 51
        for step, (got, want) in enumerate(zip(points, path, strict=True)):
            assert torch.allclose(got, want, atol=1e-6), (i, step, float((got - want).abs().max()))
    assert halved <= {11, 21, 29, 35, 40, 44, 47, 50}
    assert len(halved) >= 4  # the schedule was at work


def sparse_loop(problem: Problem, start: Tensor, plan: list[tuple[int, int]]) -> tuple[list[Tensor], set[str]]:
    """Algorithm 1 of 2021 in balls of several radii: the points, and which branches were taken.

    It ends at the first point that rounding alone puts above or below the best one: a walk that came back to where it
    was. Which of the two is "best", and so the count of features moved, is then no property of the algorithm.
    """
    d = len(start)
    path, k, support, branches = [], math.ceil(0.2 * d), d, set()
    x = best = start
    for ball, (radius, steps) in enumerate(plan):
        eps, window = radius * problem.eps, max(int(0.04 * steps), 1)
        if ball:
            x = l1_project(problem, best, eps)
            support = int((x != problem.x0).sum())
            k = max(1, math.ceil(support / 1.5))
        eta = eps
        f_best, best, g_best = -math.inf, x, x
        for i in range(steps + 1):
            path.append(x)
            f, g = problem.value(x)
            if abs(f - f_best) < 1e-12:
                return path, branches
            if f > f_best:
                f_best, best, g_best = f, x, g
            if i == steps:
                break
            if i and i % window == 0:
                count = int((best != problem.x0).sum())
                k = max(1, math.ceil(count / 1.5))
                if count < 0.95 * support:
                    eta, x, g = eps, best, g_best
                    branches.add("sparser")
                else:
                    branches.add("floor" if eta / 1.5 < eps / 10 else "smaller")
                    eta = max(eta / 1.5, eps / 10)
                support = count
            free = torch.where(g > 0, 1 - x, x) > 0.01 * eta / k
            chosen = g.abs().argsort(descending=True)[:k]
            if not bool(free[chosen].any()):
                branches.add("walls")
                chosen = (g.abs() * free).argsort(descending=True)[:k]
                chosen = chosen[free[chosen]]
            u = x.clone()
            u[chosen] += eta * g[chosen].sign() / len(chosen)
            x = l1_project(problem, u, eps)
    return path, branches


@pytest.mark.parametrize("large", [False, True], ids=["one-ball", "three-balls"])
def test_the_sparse_iterates_are_those_of_mind_the_box(large: bool) -> None:
    x, y = samples()
    plan = [(3, 18), (2, 18), (1, 24)] if large else [(1, 60)]
    seen: set[str] = set()
    compared = 0
    for i in range(4):
        points = asked(APGD(steps=60, large_radii=large), L1("3/2"), i)
        problem = Problem(x[i], int(y[i]), 1.5, "ce")
        path, branches = sparse_loop(problem, points[0], plan)
        seen |= branches
        assert len(points) == 60 + len(plan) == APGD(steps=60, large_radii=large).forwards
        for step, (got, want) in enumerate(zip(points, path, strict=False)):
            assert torch.allclose(got, want, atol=1e-6), (i, step, float((got - want).abs().max()))
        compared += len(path)
    assert compared >= 100  # of 240 and 252
    assert {"sparser", "smaller"} <= seen


def test_radii_share_the_steps() -> None:
    assert balls(100, large=False) == ((1, 100),)
    assert balls(100, large=True) == ((3, 30), (2, 30), (1, 40))
    assert balls(7, large=True) == ((3, 2), (2, 2), (1, 3))
    assert balls(1, large=True) == ((1, 1),)
    with pytest.raises(NotAvailable, match="ℓ1"):
        asked(APGD(steps=5, large_radii=True), Linf("1/10"), 0)


def test_larger_balls_only_lead_the_way() -> None:
    """What lies outside the set is never counted as found, and the targeted attack uses the schedule too."""
    x, y = samples()
    rows = Rows(x, y, tuple("abcd"), L1("3/2"))
    model = wrap(NET, CLASSES, (FEATURES,))
    for attack in (APGD(steps=20, large_radii=True), APGDTargeted(steps=20, large_radii=True)):
        found = run(model, attack, rows, EngineSettings(drop=False))
        assert bool(rows.set.within(UNIT).contains(rows.x0, found.best_point).all())
    targeted = run(model, replace(attack, steps=10, count=2), rows, EngineSettings(drop=False))
    assert targeted.forwards.tolist() == [1 + 2 * 13] * 4
