"""`from_onnx`: an ONNX file through our own reader, refused where onnxruntime disagrees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saddlepoint.adapters.graph_module import GraphModule
from saddlepoint.adapters.options import Domain, as_box
from saddlepoint.adapters.snapshot import Deployed, Normalise, normaliser
from saddlepoint.adapters.torch_module import Ways, finish
from saddlepoint.geometry import Box
from saddlepoint.graph.agreement import agree_with_onnxruntime
from saddlepoint.spec import Model


def from_onnx(
    path: str | Path,
    domain: Domain | None,
    *,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    name: str | None = None,
    device: str = "cpu",
    outputs: str = "auto",
) -> Model:
    """A model from `.onnx` (or `.onnx.gz`): runs in torch, differentiable, with its graph.

    Raises ImporterDisagreement where our graph and onnxruntime differ on random or corner points of the
    domain, UnsupportedOperator, RefusedFile.
    """
    from saddlepoint.graph.onnx_reader import read_onnx  # onnx is slow to import

    path = Path(path)
    name = name or path.name
    box = as_box(domain, name)
    graph = read_onnx(path)
    normalise = normaliser(mean, std, graph.input_shape, graph.dtype)
    worst = agree_with_onnxruntime(graph, path, _normalised(box, normalise))
    graph = graph.to(device)
    module = Deployed(GraphModule(graph), normalise).to(device)
    note = f"our reading of the ONNX file and onnxruntime differ by at most {worst:.3g} on the points compared"
    return finish(module, box, graph.input_shape, name, Ways(outputs=outputs, graph=graph), [note])


def _normalised(box: Box, normalise: Normalise | None) -> Box:
    """The box the file itself sees."""
    if normalise is None:
        return box
    mean, std = normalise.mean.double().reshape(-1).tolist(), normalise.std.double().reshape(-1).tolist()
    n = max(len(mean), len(std), len(box.lower))

    def grown(values: Sequence[float]) -> list[float]:
        return list(values) * n if len(values) == 1 else list(values)

    sides = (
        [(v - m) / s for v, m, s in zip(grown(side), grown(mean), grown(std), strict=True)]
        for side in (box.lower, box.upper)
    )
    return Box(*sides)
