"""A captured graph as a module, so that it is deployed like any other network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saddlepoint.graph.ir import Graph


class GraphModule(nn.Module):
    """graph(x); its text is the graph's digest, its precision and device are those of the graph."""

    anchor: Tensor

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        # modules are asked for their precision and device by their tensors
        self.register_buffer("anchor", torch.zeros((), dtype=graph.dtype, device=graph.device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, *input_shape) -> the graph's output."""
        return self.graph(x)

    def extra_repr(self) -> str:
        """Names the graph by content."""
        return self.graph.digest
