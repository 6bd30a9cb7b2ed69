"""Rotation and translation certified over their whole box: true, nearly tight, judged again, refused when tampered."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from saddlepoint.adapters import from_torch
from saddlepoint.attack import RandomSearch
from saddlepoint.bound.complete import Complete
from saddlepoint.bound.search import Found, search
from saddlepoint.check.certificate import judge, question, subject
from saddlepoint.core.errors import NotAvailable
from saddlepoint.data import from_arrays
from saddlepoint.data import load as load_data
from saddlepoint.evaluation import evaluate
from saddlepoint.evaluation.plan import Plan
from saddlepoint.evaluation.replay import replay
from saddlepoint.geometry import Box, RotationTranslation
from saddlepoint.graph.ir import Graph
from saddlepoint.spec import Model, Verdict, margin
from saddlepoint.spec.certificate import Certificate
from saddlepoint.spec.property import Property
from saddlepoint.spec.query import Query

UNIT = Box(0, 1)
TURN = RotationTranslation("12", "1/2", UNIT)
GAP = 0.05


@cache
def small() -> tuple[Model, Tensor, Tensor]:
    """A random net of 6 × 6 pictures, five of them, and its own answers as labels."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        layers = [nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(36, 8), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Linear(8, 3)).eval().requires_grad_(False)
        for layer in (net[0], net[3], net[5]):
            layer.weight *= 2  # pyright: ignore[reportOperatorIssue]
    x = torch.rand((5, 1, 6, 6), generator=torch.Generator().manual_seed(3))
    return from_torch(net, (0, 1), shape=(1, 6, 6)), x, net(x).argmax(1)


def graph_of(model: Model) -> Graph:
    assert isinstance(model.graph, Graph)
    return model.graph


def truth(model: Model, turn: RotationTranslation, x: Tensor, y: int) -> float:
    """min of the margin on a dense grid of parameters: at least the true minimum."""
    grid = turn.params_grid(angles=31, shifts=13)
    with torch.no_grad():
        z = model(turn.render(x.expand(len(grid), *x.shape), grid))
    return float(margin(z, torch.full((len(grid),), y)).min())


def asked(i: int, turn: RotationTranslation = TURN, above: float = 0.0) -> tuple[Graph, Query]:
    """Is picture i's margin > `above` on all of the set?"""
    model, x, y = small()
    described = turn.canonical()
    query = question(described, x[i], int(y[i]), 3)
    clauses = tuple(tuple(replace(atom, b=atom.b - above) for atom in clause) for clause in query.property.clauses)
    query = Query(query.lower, query.upper, Property(clauses))
    return subject(graph_of(model), described, x[i]), query


def found(graph: Graph, query: Query, seconds: float = 120.0) -> Found:
    return search(graph, query, deadline=time.monotonic() + seconds)


@cache
def proven(i: int) -> tuple[Graph, Query, Certificate]:
    """A certificate that the margin is above the grid's minimum less a bit."""
    model, x, y = small()
    least = truth(model, TURN, x[i], int(y[i]))
    graph, query = asked(i, above=least - GAP)
    certificate = found(graph, query).certificate
    assert certificate is not None
    return graph, query, certificate


@pytest.mark.parametrize("i", range(5))
def test_what_splitting_proves_is_within_a_bit_of_the_grid(i: int) -> None:
    graph, query, certificate = proven(i)
    ruling = judge(graph, query, certificate)
    assert ruling.accepted, ruling.reason
    assert 0 < ruling.lowest <= GAP + 1e-5  # lower ≤ the grid's minimum


@pytest.mark.parametrize("i", range(2))
def test_what_the_grid_denies_is_never_proven(i: int) -> None:
    model, x, y = small()
    graph, query = asked(i, above=truth(model, TURN, x[i], int(y[i])) + 0.01)
    assert found(graph, query, seconds=3.0).certificate is None


def test_a_certificate_without_one_of_its_cells_is_refused() -> None:
    graph, query, certificate = proven(0)
    leaves = certificate.leaves
    for gone in (0, len(leaves.node) // 2, len(leaves.node) - 1):
        kept = torch.arange(len(leaves.node)) != gone
        part = replace(certificate, leaves=replace(leaves, node=leaves.node[kept], line=leaves.line[kept]))
        assert not judge(graph, query, part).accepted


def test_a_certificate_of_another_picture_is_judged_on_this_one() -> None:
    _, query, certificate = proven(0)
    model, x, _ = small()
    others = torch.rand((200, 1, 6, 6), generator=torch.Generator().manual_seed(4)).round()
    z = model(others)
    values = query.property(torch.zeros(200, 3), z)
    assert float(values.min()) < 0 < float(query.property(torch.zeros(1, 3), model(x[:1])))
    other = subject(graph_of(model), TURN.canonical(), others[int(values.argmin())])
    assert not judge(other, query, certificate).accepted


def test_a_certificate_of_a_smaller_set_is_refused_also_with_the_larger_box_written_in() -> None:
    model, x, y = small()
    wide = RotationTranslation("60", "2", UNIT)
    least, less = (truth(model, turn, x[0], int(y[0])) for turn in (TURN, wide))
    assert less < least - 0.1
    _, _, certificate = proven(0)
    graph, query = asked(0, wide, above=least - GAP)
    assert not judge(graph, query, certificate).accepted
    forged = replace(certificate, lower=query.lower, upper=query.upper)
    assert not judge(graph, query, forged).accepted


def test_limits_are_the_sets_rounded_outward() -> None:
    _, x, y = small()
    query = question(RotationTranslation("1/3", "1/10", UNIT).resized("3/7").canonical(), x[0], int(y[0]), 3)
    assert float(query.upper[0]) * 7 >= 1
    assert torch.equal(query.lower, -query.upper)
    assert float(query.upper[1]) >= 0.3 / 7


def test_pictures_that_may_be_clipped_are_refused() -> None:
    model, x, _ = small()
    with pytest.raises(NotAvailable, match="cut off"):
        subject(graph_of(model), RotationTranslation("5", "1", Box(0.5, 1)).canonical(), x[0])
    with pytest.raises(NotAvailable, match="cut off"):
        subject(graph_of(model), TURN.canonical(), 2 * x[0])


def test_flat_inputs_are_refused() -> None:
    net = nn.Sequential(nn.Linear(9, 3)).eval().requires_grad_(False)
    model = from_torch(net, (0, 1), shape=(9,))
    with pytest.raises(NotAvailable):
        subject(graph_of(model), TURN.canonical(), torch.rand(9))


def test_a_run_on_digits_leaves_little_open_and_replays() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 32), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Linear(32, 10))
    digits = load_data("digits")
    batch = digits.take(range(1000))
    step = torch.optim.Adam(net.parameters(), 3e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(400):
        i = torch.randint(1000, (128,), generator=draw)
        params = (torch.rand((128, 3), generator=draw) * 2 - 1) * torch.tensor([15.0, 0.75, 0.75])
        loss = nn.functional.cross_entropy(net(TURN.render(batch.x[i], params)), batch.y[i])
        step.zero_grad()
        loss.backward()
        step.step()
    model = from_torch(net.eval().requires_grad_(False), (0, 1), shape=(1, 8, 8))
    test = digits.take(range(1200, 1210))
    data = from_arrays(test.x.numpy(), test.y.numpy(), classes=10)
    turn = RotationTranslation("6", "1/4")
    plan = Plan("searched", lambda threat: [RandomSearch(tries=50), Complete(seconds=60.0)])
    with evaluate(model, data, turn, plan) as book:
        counts, samples = book.bracket().counts, book.bracket().samples
        assert counts[Verdict.CONTRADICTION] == counts[Verdict.ERROR] == 0
        assert counts[Verdict.CERTIFIED] >= 5
        assert counts[Verdict.OPEN] <= 2
        for i, sample in enumerate(samples):
            least = truth(model, turn.within(UNIT), test.x[i], int(test.y[i]))
            if sample.verdict is Verdict.CERTIFIED:
                assert sample.lower is not None
                assert 0 < sample.lower <= least + 1e-5
        (again,) = replay(book, lambda _: model, data)
        assert again.unchecked == again.refuted == 0
        assert book.bracket().counts[Verdict.CERTIFIED] == counts[Verdict.CERTIFIED]
