"""A model behind a rendering: the graph of (angle, dy, dx) ↦ f(picture moved by them), three inputs in all."""

from __future__ import annotations

from itertools import count

from torch import Tensor

from saddlepoint.core.errors import NotAvailable
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops_render import Render


def rendered(graph: Graph, image: Tensor) -> Graph:
    """`graph` behind a `Render` of `image` (C, H, W): a graph of three inputs. Its nodes keep their order.

    Raises NotAvailable for a graph that does not read one image of that shape.
    """
    if graph.input_shape != tuple(image.shape) or image.ndim != 3:
        raise NotAvailable(
            f"a model of inputs {graph.input_shape} has no picture of shape {tuple(image.shape)} to turn.",
            "Rotations and shifts need models that read one image (C, H, W).",
        )
    names = {graph.input} | {node.name for node in graph.nodes}
    params = next(name for i in count() if (name := f"parameters{i or ''}") not in names)
    first = Node(graph.input, Render(image.detach().to(graph.dtype)), (params,), graph.input_shape)
    return Graph((first, *graph.nodes), params, graph.output, (3,))
