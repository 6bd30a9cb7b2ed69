"""Is the graph the model? Compared with the runtime the user deploys, on random and corner points; refused if not.

An importer's error would hide in every later step, because bound/ and check/ read the same graph
(reference/verification: soundness traps 8, 11). So `CERTIFIED` needs this test.

Tolerance: |Δ| ≤ 1e-4 · max(1, max |z|). Two correct float32 evaluations of one network differ only in the order of
their sums: about √n · 6e-8 per layer relative to the sizes inside it, 1e-6 to 1e-5 on the networks measured. A wrong
padding, axis, epsilon or weight shows at 1e-2 and above.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saddlepoint.core.errors import ImporterDisagreement, NonFinite
from saddlepoint.geometry.box import Box
from saddlepoint.graph.ir import Graph
from saddlepoint.graph.ops_base import Shape

TOLERANCE = 1e-4
POINTS = 16
SEED = 20_250_601


def domain_points(domain: Box, shape: Shape, points: int = POINTS) -> Tensor:
    """All-lower, all-upper, the middle, `points` random corners and `points` random points of the domain, float32.

    An infinite limit counts as ±3 (standardised features).
    """
    like = torch.zeros((1, *shape), dtype=torch.float32)
    limits = domain.limits(like)
    lower = limits.lower.clamp(min=-3.0).expand_as(like)
    upper = limits.upper.clamp(max=3.0).expand_as(like)
    draw = torch.Generator().manual_seed(SEED)
    mix = torch.rand((2 * points, *shape), generator=draw)
    mix[:points] = mix[:points].round()
    mix = torch.cat([torch.zeros_like(like), torch.ones_like(like), torch.full_like(like, 0.5), mix])
    return torch.lerp(lower, upper, mix)


def agree(graph: Graph, fn: Callable[[Tensor], Tensor], domain: Box, points: int = POINTS) -> float:
    """max |graph(x) − fn(x)| over test points, for a torch callable. Raises ImporterDisagreement."""
    x = domain_points(domain, graph.input_shape, points).to(graph.dtype).to(graph.device)
    with torch.no_grad():
        return compare(graph(x), fn(x), "the model itself")


def agree_with_onnxruntime(graph: Graph, path: str | Path, domain: Box, points: int = POINTS) -> float:
    """max |graph(x) − onnxruntime(x)| over test points. Raises ImporterDisagreement."""
    run = Runtime(path)
    x = domain_points(domain, graph.input_shape, points).to(graph.dtype)
    with torch.no_grad():
        return compare(graph.to("cpu")(x), run(x), "onnxruntime")


def box_points(lower: Tensor, upper: Tensor, shape: Shape, points: int = POINTS) -> Tensor:
    """The points of `domain_points` for a property's box; lower, upper (d,) in any floating type, result float64."""
    draw = torch.Generator().manual_seed(SEED)
    low, high = (t.detach().cpu().to(torch.float64).reshape(1, *shape) for t in (lower, upper))
    mix = torch.rand((2 * points, *shape), generator=draw, dtype=torch.float64)
    mix[:points] = mix[:points].round()
    mix = torch.cat([torch.zeros_like(low), torch.ones_like(low), torch.full_like(low, 0.5), mix])
    return torch.minimum(torch.maximum(low + mix * (high - low), low), high)


def agree_on_box(
    graph: Graph, run: Callable[[Tensor], Tensor], lower: Tensor, upper: Tensor, points: int = POINTS
) -> float:
    """max |graph(x) − onnxruntime(x)| over corners and random points of a property's box. Raises ImporterDisagreement.

    A verdict about a box needs the agreement there, not on [0, 1].
    """
    x = box_points(lower, upper, graph.input_shape, points).to(graph.dtype)
    with torch.no_grad():
        return compare(graph.to("cpu")(x), run(x), "onnxruntime")


def compare(ours: Tensor, theirs: Tensor, reference: str) -> float:
    """max |Δ| of two outputs on the same points. Raises ImporterDisagreement beyond the tolerance."""
    if ours.shape != theirs.shape:
        raise ImporterDisagreement(
            f"the captured graph gives shape {tuple(ours.shape)}, {reference} {tuple(theirs.shape)}.", REMEDY
        )
    a, b = ours.detach().cpu().to(torch.float64), theirs.detach().cpu().to(torch.float64)
    if not bool(torch.isfinite(b).all()):
        raise NonFinite(f"{reference} gives NaN or infinity on points of the domain.", "Check domain and weights.")
    delta = (a - b).abs().amax().item() if a.numel() else 0.0
    scale = max(1.0, b.abs().amax().item() if b.numel() else 0.0)
    if not delta <= TOLERANCE * scale:  # NaN is refused too
        raise ImporterDisagreement(
            f"the captured graph and {reference} differ by {delta:.3g} where outputs reach {scale:.3g} "
            f"(allowed: {TOLERANCE:g} of that).",
            REMEDY,
        )
    return delta


REMEDY = "Report the model: no certificate can rest on this graph. Attacks on the original stay valid."


class Runtime:
    """An ONNX file in onnxruntime: one CPU thread; batches where the file allows them, else one sample a call."""

    def __init__(self, path: str | Path) -> None:
        import onnxruntime  # only who compares pays for the package

        path = Path(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only: warnings about unused initialisers go to stderr
        model = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else str(path)
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        fed = self.session.get_inputs()
        constants = {i.name for i in self.session.get_overridable_initializers()}
        self.input = next(i for i in fed if i.name not in constants)
        size = self.input.shape[0]
        self.batch = size if isinstance(size, int) and size > 0 else None

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs (N, …) for x (N, …)."""
        dtype: Any = np.float64 if self.input.type == "tensor(double)" else np.float32
        points = x.detach().cpu().numpy().astype(dtype)
        if self.batch is None:
            return self._run(points)
        found = []
        for i in range(0, len(points), self.batch):
            part = points[i : i + self.batch]
            fill = np.repeat(part[-1:], self.batch - len(part), axis=0)  # the file takes this batch and no other
            found.append(self._run(np.concatenate([part, fill]))[: len(part)])
        return torch.cat(found)

    def _run(self, points: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(self.session.run(None, {self.input.name: points})[0]))
