"""alpha-CROWN: sound, tighter than CROWN, and certificates where it proves."""

import pytest
import torch
from test_search import box_query, lowest, mlp
from torch import nn

from saddlepoint.bound import CROWN, AlphaCROWN
from saddlepoint.check.certificate import judge
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.geometry import L2, Linf
from saddlepoint.graph.capture import capture
from saddlepoint.graph.ir import Graph
from saddlepoint.spec.property import Atom, Property


def images(seed: int, pool: bool) -> Graph:
    """A small convolutional network on (2, 6, 6), with max pooling if asked."""
    size = 16 if pool else 36
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, 1) if pool else nn.Identity(),
        nn.Flatten(),
        nn.Linear(size, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )
    draw = torch.Generator().manual_seed(seed)
    for weight in net.parameters():
        weight.data = torch.randn(weight.shape, generator=draw) / 3
    return capture(net, torch.zeros((2, 2, 6, 6)))


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_it_lies_between_crown_and_the_values_at_points(seed: int, pool: bool) -> None:
    graph, ball = images(seed, pool), Linf("1/5")
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn((3, 2, 6, 6), generator=draw)
    better = AlphaCROWN(steps=30, inner=20)(graph, ball, x).lower
    plain = CROWN(stop_above=None)(graph, ball, x).lower
    points = x[:, None] + 0.2 * (2 * torch.rand((3, 3000, 2, 6, 6), generator=draw).round() - 1)
    values = graph(points.flatten(0, 1)).view(3, 3000, 3)
    assert bool((better <= values.amin(1) + 1e-5).all())
    assert bool((better >= plain - 1e-5).all())
    assert float((better - plain).mean()) > 1e-3


def test_without_steps_it_is_crown_with_the_ramp() -> None:
    graph, ball = mlp(1, (5, 9, 7, 3)), Linf("1/3")
    x = torch.zeros((1, 5))
    found = AlphaCROWN(steps=0, inner=0)(graph, ball, x).lower
    plain = CROWN(stop_above=None)(graph, ball, x).lower
    torch.testing.assert_close(found, plain, rtol=0.3, atol=0.3)  # the same but for neurons with u ≈ −l
    assert bool((AlphaCROWN()(graph, ball, x).lower >= found).all())


def test_what_it_proves_has_a_certificate_and_what_it_does_not_stays_open() -> None:
    graph = mlp(3, (4, 12, 12, 1))
    low = lowest(graph, box_query(4, Property(((Atom(z=(1.0,)),),)), 0.3))
    bound = float(AlphaCROWN()(graph, Linf("3/10"), torch.zeros((1, 4))).lower)
    assert bound < low - 1e-3  # between the two lies what only a search decides

    def asked(b: float):
        query = box_query(4, Property(((Atom(z=(1.0,), b=b),),)), 0.3)
        return query, AlphaCROWN().search(graph, query, torch.inf, lambda points: None)

    query, found = asked(0.05 - bound)
    assert found.status == "holds"
    assert found.certificate is not None
    assert judge(graph, query, found.certificate, deadline=torch.inf).accepted
    _, found = asked(-(bound + low) / 2)
    assert found.status == "open"
    assert found.certificate is None


def test_sets_that_are_no_boxes_and_negative_steps_are_refused() -> None:
    graph = mlp(1, (5, 9, 3))
    with pytest.raises(NotAvailable, match="L2 is not a box"):
        AlphaCROWN()(graph, L2(1), torch.zeros((1, 5)))
    with pytest.raises(InputError, match="steps=-1"):
        AlphaCROWN(steps=-1)
