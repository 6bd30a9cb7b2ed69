"""What all certified objectives share: one clean pass, the graph that bounds are taken of, and the loss of margins.

    z = f_θ(x);      graph = f_θ with batch norm frozen at the statistics of this clean batch
    l_j ≤ min over S(x) of z_y − z_j   (j ≠ y)      ⟹      max over S(x) of −log softmax(z)_y ≤ log(1 + Σ_j e^(−l_j))

The right side is the cross-entropy of the logits (0, −l) with label 0 (Wong & Kolter 2018, Theorem 2; Gowal et al.
2018, eq. 8, with the last layer merged into the differences z_y − z_j). Statistics of the clean batch make batch norm
an affine map for the bounds, and gradients flow through the statistics (Shi et al. 2021, §3.2). Bounds are those of the
network as it is evaluated: layers such as dropout act on the clean pass only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.core.errors import InputError, UnsupportedModel
from saddlepoint.graph.decompose import decompose
from saddlepoint.graph.ir import Graph
from saddlepoint.graph.live import live_graph, state_of
from saddlepoint.spec import margin_matrix

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Pass:
    """Clean logits, the graph with live weights, and the rows z_y − z_j of the batch's labels."""

    logits: Float[Tensor, "b k"]
    graph: Graph
    rows: Float[Tensor, "b m k"]


def clean_pass(net: nn.Module, x: Float[Tensor, "b *shape"], y: Int64[Tensor, " b"]) -> Pass:
    """One forward in the mode the network is in (running statistics move as usual), and the graph for bounds."""
    structure = live_graph(net, x)
    statistics: dict[str, Tensor] = {}
    with _watched(net, statistics):
        logits = net(x)
    graph = decompose(structure.bind({**state_of(net), **statistics}))
    rows = margin_matrix(y, logits.shape[1], logits.dtype).to(logits.device)
    return Pass(logits, graph, rows)


def robust_cross_entropy(lower: Float[Tensor, "b m"]) -> Float[Tensor, ""]:
    """Mean of log(1 + Σ_j e^(−l_j)) for lower bounds l of the margins z_y − z_j."""
    worst = functional.pad(-lower, (1, 0))
    return functional.cross_entropy(worst, torch.zeros(len(lower), dtype=torch.int64, device=lower.device))


def ramp(start: float, end: float, fraction: Fraction) -> float:
    """From `start` to `end` as the schedule's fraction goes from 0 to 1."""
    return start + (end - start) * float(fraction)


def check_share(name: str, value: float) -> None:
    """Raises InputError unless 0 ≤ value ≤ 1."""
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{name}={value} is no share.", f"Give {name} between 0 and 1.")


@contextmanager
def _watched(net: nn.Module, statistics: dict[str, Tensor]) -> Iterator[None]:
    """Batch statistics of every batch norm that uses them, under the names of its running ones."""
    handles = []
    for name, module in net.named_modules():
        if isinstance(module, NORMS) and module.training and module.track_running_stats:
            handles.append(module.register_forward_pre_hook(_reader(f"{name}." if name else "", statistics)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _reader(prefix: str, statistics: dict[str, Tensor]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def read(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if f"{prefix}running_mean" in statistics:
            raise UnsupportedModel(
                f"The batch norm {prefix[:-1]} is called twice in one forward.", "Give each place its own module."
            )
        values = inputs[0]
        axes = [axis for axis in range(values.dim()) if axis != 1]
        statistics[f"{prefix}running_mean"] = values.mean(axes)
        statistics[f"{prefix}running_var"] = values.var(axes, unbiased=False)

    return read
