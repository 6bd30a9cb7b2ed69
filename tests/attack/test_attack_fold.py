"""A folded graph computes what the graph computes, and leaves the graph alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saddlepoint.attack.stand_in.fold import fold
from saddlepoint.graph.capture import capture
from saddlepoint.graph.ops import AddConstant, BatchNorm, DivConstant, MaxPool2d, MulConstant, Relu


class Normalised(nn.Module):
    """(x − μ) / σ in front of a network."""

    def __init__(self, net, channels):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.linspace(0.3, 0.6, channels).view(1, channels, 1, 1))
        self.register_buffer("std", torch.linspace(0.2, 0.5, channels).view(1, channels, 1, 1))

    def forward(self, x):
        return self.net((x - self.mean) / self.std)


def network(padding, size=9):
    """Normalisation, batch norm after a conv and after a linear layer, relu then pool; an odd height."""
    torch.manual_seed(0)  # forked by the fixture below
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=padding),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * ((size + 2 * padding - 2) // 2) ** 2, 7),
        nn.BatchNorm1d(7),
        nn.ReLU(),
        nn.Linear(7, 4),
    )
    for module in net:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.get_buffer("running_mean"))
            nn.init.uniform_(module.get_buffer("running_var"), 0.3, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return Normalised(net, 3).eval().double()


@pytest.fixture(autouse=True)
def _forked():
    with torch.random.fork_rng():
        yield


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_a_folded_graph_is_the_same_function(padding):
    x = torch.rand(5, 3, 9, 9, dtype=torch.float64)
    x[0], x[1] = 0, 1
    graph = capture(network(padding), x[:2])
    before = graph.digest
    folded = fold(graph)
    assert graph.digest == before
    found = []
    for function in (graph, folded):
        point = x.clone().requires_grad_()
        z = function(point)
        found.append((z.detach(), torch.autograd.grad((z * torch.arange(1.0, 5.0)).sum(), point)[0]))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-9, atol=1e-9)
    # The constant images tie in every window of the pool, where rounding decides which element has the gradient.
    torch.testing.assert_close(found[1][1][2:], found[0][1][2:], rtol=1e-9, atol=1e-9)
    kinds = [type(node.op) for node in folded.nodes]
    assert not {BatchNorm, MulConstant, DivConstant} & set(kinds)
    assert kinds.index(MaxPool2d) < kinds.index(Relu)
    assert (AddConstant in kinds) == (padding > 0)  # a shift must not move the zeros of the padding


def test_what_two_nodes_read_is_not_folded_away():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)

        def forward(self, x):
            y = self.conv(x)
            return (torch.relu(self.norm(y)) + y).flatten(1)

    net = Twice().eval()
    nn.init.constant_(net.norm.get_buffer("running_mean"), 0.7)
    x = torch.rand(4, 1, 6, 6)
    torch.testing.assert_close(fold(capture(net, x[:2]))(x), net(x))
