"""Digits networks of 20 to 64 units: program = enumeration = branch and bound, to 1e-6."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from saddlepoint.bound import MILP
from saddlepoint.bound.search import search
from saddlepoint.data import load as load_data
from saddlepoint.geometry import Box, Linf
from saddlepoint.graph.capture import capture
from saddlepoint.graph.ir import Graph
from saddlepoint.spec import Atom, Property
from saddlepoint.spec.query import Query

UNIT = Box(0, 1)
TOLERANCE = 1e-6


def digits_net(widths: tuple[int, ...], seed: int = 0) -> tuple[Graph, Tensor, Tensor]:
    """A network on digits, trained for a second, in float64, with test images and the rows label − next label."""
    train, test = load_data("digits:train").take(list(range(1000))), load_data("digits:test").take(list(range(3)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = (64, *widths)
        layers = [layer for n, m in zip(sizes, widths, strict=False) for layer in (nn.Linear(n, m), nn.ReLU())]
        net = nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], 10))
        optimiser = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(60):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(train.x), train.y).backward()
            optimiser.step()
    eye = torch.eye(10, dtype=torch.float64)
    rows = eye[test.y] - eye[(test.y + 1) % 10]
    return capture(net.eval(), test.x).to(torch.float64), test.x.double(), rows


def enumerated(graph: Graph, lower: Tensor, upper: Tensor, c: Tensor) -> float:
    """min of ⟨c, f⟩ over a box for one hidden layer: a linear program for each pattern of the units that can switch."""
    first, last = (n.op for n in graph.nodes if hasattr(n.op, "weight"))
    w1, b1, w2, b2 = (t.numpy() for t in (first.weight, first.bias, last.weight, last.bias))
    low, high = lower.flatten().numpy(), upper.flatten().numpy()
    centre, radius = w1 @ (low + high) / 2 + b1, np.abs(w1) @ (high - low) / 2
    fixed = np.where(centre > 0, 1.0, 0.0)
    loose = np.flatnonzero(np.abs(centre) < radius)
    assert 1 <= len(loose) <= 9
    best = np.inf
    for pattern in itertools.product((0.0, 1.0), repeat=len(loose)):
        on = fixed.copy()
        on[loose] = pattern
        side = (1 - 2 * on)[loose]
        cost = c.numpy() @ w2 @ (on[:, None] * w1)
        found = linprog(
            cost, A_ub=side[:, None] * w1[loose], b_ub=-side * b1[loose], bounds=list(zip(low, high, strict=True))
        )
        if found.status == 0:
            best = min(best, found.fun + c.numpy() @ (w2 @ (on * b1) + b2))
    return float(best)


@pytest.mark.parametrize(("width", "size"), [(20, "0.06"), (64, "0.02")])
def test_the_program_is_the_enumeration(width, size):
    graph, x, rows = digits_net((width,))
    set = Linf(size, UNIT)
    lower, upper = set.hull(x[:1])
    exact = MILP().solve(graph, set, x[:1], rows[:1, None])
    truth = enumerated(graph, lower[0], upper[0], rows[0])
    assert float(exact.value) == pytest.approx(truth, abs=TOLERANCE)
    assert truth - TOLERANCE <= float(exact.lower) <= truth + 1e-12


@pytest.mark.parametrize(("widths", "size"), [((20,), "0.08"), ((64,), "0.03"), ((16, 16), "0.05")])
def test_branch_and_bound_decides_on_both_sides_of_the_program_s_minimum(widths, size):
    """⟨c, f⟩ > minimum − 1e-6 is proven, ⟨c, f⟩ > minimum + 1e-6 is refuted."""
    graph, x, rows = digits_net(widths)
    set = Linf(size, UNIT)
    for i in range(2):
        exact = MILP().solve(graph, set, x[i : i + 1], rows[i : i + 1, None])
        lower, upper = (t.flatten() for t in set.hull(x[i : i + 1]))
        for shift, word in ((-TOLERANCE, "holds"), (TOLERANCE, "violated")):
            # the program's two sides are 1e-6 apart at most: each is shifted away from the other
            limit = float(exact.lower) + shift if word == "holds" else float(exact.value) + shift
            query = Query(lower, upper, Property(((Atom(z=tuple(rows[i].tolist()), b=-limit),),)))

            def below(points: Tensor, query: Query = query) -> Tensor | None:
                z = graph(points.view(-1, *graph.input_shape))
                bad = (query.property(points, z) <= 0) & query.admits(points)
                return points[bad.nonzero()[0, 0]] if bool(bad.any()) else None

            found = search(graph, query, deadline=time.monotonic() + 20, refute=below)
            assert found.status == word
