"""The graph's rendering reads pixels as the set's own does, and stands in front of a model."""

from __future__ import annotations

import pytest
import torch

from saddlepoint.core.errors import NotAvailable
from saddlepoint.geometry.warp import warp
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import Relu, Render
from saddlepoint.graph.rendering import rendered


def parameters(count: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    p = (2 * torch.rand((count, 3), generator=draw, dtype=torch.float64) - 1) * torch.tensor([200.0, 9.0, 9.0])
    return torch.cat([p, p.round(), torch.tensor([[0.0, 0.0, 0.0], [0.0, -7.0, 3.0], [0.0, 50.0, 0.0]]).double()])


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (1, 1, 1)])
def test_it_agrees_with_the_warp_of_the_set(shape: tuple[int, int, int]) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = parameters(100)
    assert torch.allclose(Render(image)(p), warp(image.expand(len(p), *shape), p), rtol=0, atol=1e-12)


def test_a_rendered_graph_is_the_graph_of_the_rendering() -> None:
    inner = Graph((Node("parameters", Relu(), ("x",), (1, 4, 4)),), "x", "parameters", (1, 4, 4))
    image = torch.rand((1, 4, 4), generator=torch.Generator().manual_seed(1)) - 0.5
    outer, p = rendered(inner, image), parameters(10).float()
    assert outer.input_shape == (3,)
    assert torch.allclose(outer(p), inner(warp(image.expand(len(p), 1, 4, 4), p)), atol=1e-5)
    assert outer.digest != rendered(inner, image + 1).digest
    assert outer.to(torch.float64)(p.double()).dtype == torch.float64


def test_what_is_no_image_is_refused() -> None:
    inner = Graph((Node("y", Relu(), ("x",), (9,)),), "x", "y", (9,))
    for image in (torch.zeros(9), torch.zeros(1, 3, 3)):
        with pytest.raises(NotAvailable):
            rendered(inner, image)
