"""A captured graph whose weights are the module's own, at every moment: bounds of it are differentiable by them.

    structure from torch.export, once;   tensors from named_parameters() and named_buffers(), at every call

An operator's tensor is tied to the entry of the captured state whose memory it shares. A tensor that is computed from
weights (weight norm and other parametrisations) has no such entry: such modules are refused, not frozen silently.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from saddlepoint.core.errors import UnsupportedModel
from saddlepoint.graph.capture import capture_with_state
from saddlepoint.graph.ir import Graph


@dataclass(frozen=True, eq=False)
class LiveGraph:
    """The structure, and per node the state's names of its operator's tensors: {node: {field: name}}."""

    graph: Graph
    ties: Mapping[str, Mapping[str, str]]

    def bind(self, state: Mapping[str, Tensor]) -> Graph:
        """The graph with these tensors in the place of the captured ones."""
        nodes = []
        for node in self.graph.nodes:
            tied = self.ties.get(node.name)
            if tied:
                held = node.op.tensors()
                fresh = {field: state[name].reshape(held[field].shape) for field, name in tied.items()}
                node = replace(node, op=dataclasses.replace(node.op, **fresh))  # type: ignore[type-var]
            nodes.append(node)
        return replace(self.graph, nodes=tuple(nodes))


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, not detached."""
    return {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}


def capture_live(module: nn.Module, example: Tensor) -> LiveGraph:
    """The module's graph for inputs like `example`, tied to its state. Raises as `capture`, and UnsupportedModel."""
    graph, state = capture_with_state(module, example)
    places = {(t.data_ptr(), t.numel()): name for name, t in state.items() if t.numel()}
    ties: dict[str, dict[str, str]] = {}
    untied: list[str] = []
    for node in graph.nodes:
        for field, tensor in node.op.tensors().items():
            name = places.get((tensor.data_ptr(), tensor.numel()))
            if name is not None and tensor.is_contiguous():
                ties.setdefault(node.name, {})[field] = name
            elif tensor.is_floating_point():
                untied.append(f"{node.name}.{field}")
    used = {name for tied in ties.values() for name in tied.values()}
    unused = [name for name, p in module.named_parameters() if p.requires_grad and name not in used]
    if untied and unused:
        raise UnsupportedModel(
            f"{untied[0]} of the graph is computed from weights ({unused[0]} reaches no operator as it is).",
            "Bounds of it would not be differentiable. Train without parametrisations, or remove them first.",
        )
    return LiveGraph(graph, ties)


_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], LiveGraph]] = WeakKeyDictionary()


def live_graph(module: nn.Module, example: Tensor) -> LiveGraph:
    """`capture_live`, remembered for as long as the module lives and keeps its modules and the shapes of its state."""
    structure = tuple((name, type(m)) for name, m in module.named_modules())
    shapes = tuple((name, tuple(t.shape), t.dtype) for name, t in state_of(module).items())
    key = (tuple(example.shape[1:]), example.dtype, structure, shapes)
    known = _KNOWN.setdefault(module, {})
    if key not in known:
        known.clear()
        with torch.no_grad():
            known[key] = capture_live(module, example)
    return known[key]
