"""Small networks as graphs, sets and brute-force minima that the tests of bound/ and check/ share."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from paths import SHARED
from saddlepoint.geometry import L0, L1, L2, Box, Linf, PerturbationSet
from saddlepoint.graph.capture import capture
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import Linear, NonlinearOp, Relu
from saddlepoint.spec import margin_matrix

UNIT = Box(0, 1)


@dataclass(frozen=True, eq=False)
class Unknown(NonlinearOp):
    """An operator that nobody has a rule for."""

    def __call__(self, *xs: Tensor) -> Tensor:
        return torch.digamma(xs[0])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def affine(weight: Tensor, bias: Tensor) -> Graph:
    """y = W x + b on vectors."""
    node = Node("y", Linear(weight, bias), ("x",), (weight.shape[0],))
    return Graph((node,), "x", "y", (weight.shape[1],))


def mlp(widths: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Graph:
    """A ReLU network with Gaussian weights of size 1.5/√n."""
    draw, nodes, previous = seeded(seed), [], "x"
    for i, (n, m) in enumerate(itertools.pairwise(widths)):
        weight = torch.randn(m, n, generator=draw, dtype=dtype) * 1.5 / n**0.5
        bias = torch.randn(m, generator=draw, dtype=dtype) * 0.3
        nodes.append(Node(f"z{i}", Linear(weight, bias), (previous,), (m,)))
        previous = f"z{i}"
        if i < len(widths) - 2:
            nodes.append(Node(f"h{i}", Relu(), (previous,), (m,)))
            previous = f"h{i}"
    return Graph(tuple(nodes), "x", previous, (widths[0],))


def exact_minimum(graph: Graph, lower: Tensor, upper: Tensor, c: Tensor) -> float:
    """min of ⟨c, f⟩ over a box for a one-hidden-layer net: an LP for each activation pattern."""
    w1, b1 = (t.numpy() for t in (graph.nodes[0].op.weight, graph.nodes[0].op.bias))
    w2, b2 = (t.numpy() for t in (graph.nodes[2].op.weight, graph.nodes[2].op.bias))
    box, best = list(zip(lower.tolist(), upper.tolist(), strict=True)), np.inf
    for pattern in itertools.product((0.0, 1.0), repeat=len(b1)):
        on = np.array(pattern)
        side = 1 - 2 * on  # active: −(W x + b) ≤ 0, inactive: W x + b ≤ 0
        cost = c.numpy() @ w2 @ (on[:, None] * w1)
        found = linprog(cost, A_ub=side[:, None] * w1, b_ub=-side * b1, bounds=box)
        if found.status == 0:
            best = min(best, found.fun + c.numpy() @ (w2 @ (on * b1) + b2))
    return best


def points(set: PerturbationSet, x: Tensor, count: int, seed: int) -> Tensor:
    """(b, count, *shape): corners, centre and interior points of S(x), all inside, by projection."""
    draw = seeded(seed)
    found = [x]
    for i in range(count - 1):
        step = torch.randn(x.shape, generator=draw, dtype=x.dtype)
        if isinstance(set, L0):
            step = torch.where(torch.rand(x.shape, generator=draw) < 0.2, step, 0.0)
        found.append(set.project(x, x + step * (0.05 if i % 2 else 10.0)))
    return torch.stack(found, 1)


SETS = {
    "linf": Linf("0.1", UNIT),
    "l2": L2("0.5", UNIT),
    "l1": L1("1.5", UNIT),
    "l0": L0(2, UNIT),
}


class Residual(nn.Module):
    """Convolutions with batch norm, a residual sum, average pooling, padding and concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(2 * 4 * 3 * 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.first(x)))
        h = torch.relu(h + self.second(h))
        h = self.pool(h)
        h = torch.cat([h, nn.functional.pad(h, (1, 0, 0, 1))[:, :, 1:, :-1]], 1)
        return self.head(h.flatten(1))


def zoo(name: str, dtype: torch.dtype = torch.float32) -> tuple[Graph, Tensor]:
    """A captured network with random weights and eight images for it."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        net = {
            "residual": Residual,
            "maxpool": lambda: nn.Sequential(
                nn.Conv2d(2, 4, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(3, 2, padding=1),
                nn.Conv2d(4, 4, 2),
                nn.LeakyReLU(0.1),
                nn.MaxPool2d(2, ceil_mode=True, stride=1),
                nn.Flatten(),
                nn.Linear(4, 3),
            ),
            "relu6": lambda: nn.Sequential(
                nn.Conv2d(2, 5, 3, stride=2, padding=1),
                nn.Hardtanh(-0.2, 0.3),
                nn.Conv2d(5, 5, 3, stride=2, padding=1, groups=5),
                nn.ReLU6(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(5, 3),
            ),
        }[name]()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2.0)
    net = net.eval()
    x = torch.rand((8, 2, 6, 6), generator=seeded(3))
    return capture(net, x).to(dtype), x.to(dtype)


def wk17(count: int) -> tuple[Graph, Tensor, Tensor, Tensor]:
    """The certified MNIST network of Wong and Kolter with the first test images, labels and margin rows."""
    folder = SHARED / "models"
    record = json.loads((folder / "mnist_wk17_certified_eps0.1.json").read_text())
    assert record["arch"]["kind"] == "torch.nn.Sequential"
    net = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1568, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
    net.load_state_dict(torch.load(folder / record["file"], weights_only=True))
    with np.load(SHARED / "mnist.npz") as data:
        x = torch.from_numpy(data["x_test"][:count].astype(np.float32) / np.float32(255)).unsqueeze(1)
        y = torch.from_numpy(data["y_test"][:count].astype(np.int64))
    return capture(net.eval(), x[:2]), x, y, margin_matrix(y, 10)
