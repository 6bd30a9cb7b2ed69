"""A plan with a complete search leaves nothing open on small nets, and every certificate is judged again by replay."""

from __future__ import annotations

import torch
from torch import nn

from saddlepoint.adapters import from_torch
from saddlepoint.bound.complete import Complete
from saddlepoint.data import from_arrays
from saddlepoint.evaluation import evaluate
from saddlepoint.evaluation.plan import Plan
from saddlepoint.evaluation.replay import replay
from saddlepoint.geometry import L2, Linf
from saddlepoint.spec import Targeted, Threat, Verdict, margin

SIZE = 0.15


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)]
        found = nn.Sequential(*layers).eval().requires_grad_(False)
        for layer in (layers[0], layers[2], layers[4]):
            layer.weight *= 3  # pyright: ignore[reportOperatorIssue]
        z = found(torch.rand(500, 2))
        layers[4].bias -= z.mean(0)  # pyright: ignore[reportOperatorIssue]  # so that all classes occur
        return found


def least(model: nn.Module, x: torch.Tensor, y: int) -> float:
    """min of the margin on a fine grid over the box around x, inside [0, 1]²."""
    low, high = (x - SIZE).clamp(0, 1), (x + SIZE).clamp(0, 1)
    axes = [torch.linspace(float(a), float(b), 201) for a, b in zip(low, high, strict=True)]
    points = torch.cartesian_prod(*axes)
    with torch.no_grad():
        return float(margin(model(points), torch.full((len(points),), y)).min())


def test_every_sample_is_decided_and_as_the_grid_says() -> None:
    module = net(0)
    x = torch.rand(40, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = module(x).argmax(1)
    model = from_torch(module, (0, 1), shape=(2,))
    data = from_arrays(x.numpy(), y.numpy(), classes=3)
    with evaluate(model, data, Linf(str(SIZE)), Plan("c", lambda threat: [Complete(seconds=20.0)])) as book:
        samples = book.bracket().samples
        truths = [least(module, x[i], int(y[i])) for i in range(len(x))]
        counts = book.bracket().counts
        assert counts[Verdict.OPEN] == counts[Verdict.CONTRADICTION] == 0
        assert min(counts[Verdict.CERTIFIED], counts[Verdict.BROKEN]) > 3
        for sample, truth in zip(samples, truths, strict=True):
            if abs(truth) > 1e-3:  # the grid does not see between its points
                assert (sample.verdict is Verdict.CERTIFIED) == (truth > 0)
            if sample.verdict is Verdict.CERTIFIED:
                assert 0 < sample.lower <= truth + 1e-5
        (again,) = replay(book, lambda _: model, data)
        assert again.refuted == again.unchecked == 0
        assert again.holds >= len(x)


def test_what_it_cannot_say_is_refused_with_the_reason() -> None:
    module = net(1)
    x = torch.rand(40, 2, generator=torch.Generator().manual_seed(1))
    model = from_torch(module, (0, 1), shape=(2,))
    data = from_arrays(x.numpy(), module(x).argmax(1).numpy(), classes=3)
    for threat in (L2("0.1"), Threat(Linf("0.1"), goal=Targeted(1))):
        with evaluate(model, data, threat, Plan("c", lambda threat: [Complete(seconds=1.0)])) as book:
            assert book.bracket().counts[Verdict.CERTIFIED] == 0
