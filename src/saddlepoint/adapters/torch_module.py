"""`from_torch`: an `nn.Module` becomes a spec.Model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saddlepoint.adapters.graph_module import GraphModule
from saddlepoint.adapters.options import Domain, as_box
from saddlepoint.adapters.outputs import Outputs, Present
from saddlepoint.adapters.probe import examine, gradient_obstacle, is_small, probe_inputs
from saddlepoint.adapters.snapshot import (
    Deployed,
    Frozen,
    Live,
    borrowed,
    floating_type,
    frozen_copy,
    lay_out,
    module_digest,
    normaliser,
)
from saddlepoint.adapters.tails import without_tail
from saddlepoint.core.digests import digest
from saddlepoint.core.errors import InputError
from saddlepoint.geometry import Box
from saddlepoint.graph.agreement import agree
from saddlepoint.graph.capture import capture
from saddlepoint.graph.ir import Graph
from saddlepoint.spec import Access, Model

_USUAL = ((1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 224, 224))


@dataclass(frozen=True)
class Ways:
    """How to take a module in, beside its domain; the fields of `from_torch` and what only files know."""

    mean: Sequence[float] | float | None = None
    std: Sequence[float] | float | None = None
    shape: tuple[int, ...] | Tensor | None = None
    name: str | None = None
    live: bool = False
    outputs: str = "auto"
    """"auto" (found out), "logits" or "probabilities"."""
    classes: int | None = None
    """Expected number of classes; needed where the model gives labels only."""
    graph: Graph | None = None
    """The network's graph where a reader made it already (without normalisation and presentation)."""


def from_torch(
    net: nn.Module,
    domain: Domain | None,
    *,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    shape: tuple[int, ...] | Tensor | None = None,
    name: str | None = None,
    live: bool = False,
) -> Model:
    """A model from a module; `domain=(0, 1)` in raw input units, `mean`/`std` become part of the model.

    The module is copied, put in eval mode and frozen: later changes of `net` change nothing here, and
    `net` itself is left as it was. `live=True` takes a view instead (for training loops: weights as they
    are at each call, flags restored after it). `shape` is one input's shape, or an example batch.
    Found out and stated in `notes`: kind of outputs, classes, level of access, randomness.

    Raises UnsupportedModel (no classifier, cannot be copied or run), NonFinite, InputError.
    """
    return adapt(net, domain, Ways(mean, std, shape, name, live))


def adapt(net: nn.Module, domain: Domain | None, ways: Ways) -> Model:
    """`from_torch` with everything that can be said beforehand, e.g. `classes` of a model that gives labels."""
    name = ways.name or type(net).__name__
    box = as_box(domain, name)
    size = _input_shape(net, box, ways.shape)
    notes: list[str] = [] if ways.shape is not None else [f"input shape {size} found by trying"]
    if any(m.training for m in net.modules()):
        notes.append("the module was in train mode; it is evaluated in eval mode (the module itself is left as it was)")
    inner = net if ways.live else frozen_copy(net)
    normalise = normaliser(ways.mean, ways.std, size, floating_type(net))
    module = Deployed(inner, None if normalise is None else normalise.to(device_of(net)))
    with borrowed(module):
        return finish(module, box, size, name, ways, notes)


def finish(
    module: Deployed, box: Box, size: tuple[int, ...], name: str, ways: Ways, notes: Sequence[str] = ()
) -> Model:
    """A model from a frozen (or borrowed) module: asks it everything and says what was found."""
    fn = Live(module) if ways.live else Frozen(module)
    x = probe_inputs(box, size).to(device_of(module.net))
    found = examine(fn.raw, x, told=ways.outputs, classes=ways.classes)
    module.present = Present(found.outputs, found.classes).to(x.device)
    mark = module_digest(module, size)
    said = [*notes, *found.notes]
    if ways.live:
        said.append("a live view: weights may change; the digest says what they were when the view was taken")
        mark = digest(f"live:{mark}")
    found_graph, access, reason = _access(fn, x, box, ways, found.stochastic)
    said += [reason] if reason else []
    graph = None
    if found_graph is not None:
        fn, graph = found_graph
    if not ways.live:
        lay_out(fn, x)
    return Model(fn, box, found.classes, access, mark, size, found.stochastic, name, graph, tuple(said))


def _access(
    fn: Frozen, x: Tensor, box: Box, ways: Ways, stochastic: bool
) -> tuple[tuple[Frozen, Graph] | None, Access, str]:
    """The function with its graph where there is one, the level of access, and what to say about it."""
    if fn.module.present.outputs is Outputs.LABELS:
        return None, Access.LABEL, ""
    held: tuple[Frozen, Graph] | None = None
    if stochastic or ways.live:
        why = "a random model has no one graph" if stochastic else "the graph of changing weights proves nothing"
        reason = f"access GRADIENT, no certificates: {why}"
    else:
        try:
            held, reason = _with_graph(fn, x, box, ways.graph)
        except InputError as error:  # the reason is kept with the model
            reason = f"access GRADIENT, no certificates: {type(error).__name__}: {error}"
    obstacle = gradient_obstacle(held[0] if held else fn, x)
    if obstacle:
        return None, Access.SCORES, f"access SCORES: {obstacle}"
    return held, Access.GRADIENT if held is None else Access.GRAPH, reason


def _with_graph(fn: Frozen, x: Tensor, box: Box, known: Graph | None) -> tuple[tuple[Frozen, Graph], str]:
    """The function and a graph that agrees with it. A final softmax or sigmoid is left out of both."""
    module, example = fn.module, x[:2].to(fn.dtype)
    net = module.net if known is None else GraphModule(known)
    if known is not None and module.normalise is None:
        inner = known
    else:
        inner = capture(Deployed(net, module.normalise), example)
    agree(inner, fn.raw, box, _points(x))
    cut = without_tail(inner, module.present.outputs)
    if cut is not None:
        inner, left = cut
        fn = Frozen(Deployed(GraphModule(inner), None, left), module)
    graph = inner
    if fn.module.present.outputs is not Outputs.LOGITS:
        graph = capture(Deployed(GraphModule(inner), None, fn.module.present.outputs), example)
        agree(graph, fn, box, _points(x))
    note = "" if cut is None else "the final softmax or sigmoid is left out: it moves no margin"
    return (fn, graph), note


def _points(x: Tensor) -> int:
    return 16 if is_small(tuple(x.shape[1:])) else 2


def device_of(net: nn.Module) -> torch.device:
    """Where the module's tensors lie."""
    for tensor in (*net.parameters(), *net.buffers()):
        return tensor.device
    return torch.device("cpu")


def _input_shape(net: nn.Module, box: Box, shape: tuple[int, ...] | Tensor | None) -> tuple[int, ...]:
    if isinstance(shape, Tensor):
        return tuple(shape.shape[1:])
    if shape is not None:
        return tuple(shape)
    first = next((m for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d))), None)
    tries: list[tuple[int, ...]] = list(_USUAL)
    if isinstance(first, nn.Linear):
        tries = [s for s in tries if torch.Size(s).numel() == first.in_features] + [(first.in_features,)]
    with borrowed(net):
        works = [s for s in tries if _runs(net, box, s)]
    if isinstance(first, nn.Linear) and works:
        return works[0]  # the image shape where there is a Flatten in front, else the features
    if len(works) != 1:
        raise InputError(
            f"The input shape of {type(net).__name__} is unknown"
            + (f": it takes {', '.join(map(str, works))}." if works else "."),
            "Give shape=, one input's shape without the batch axis, e.g. shape=(3, 32, 32).",
        )
    return works[0]


def takes(net: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether the module runs on inputs of this shape."""
    with borrowed(net):
        return _runs(net, Box(0, 1), shape)


def _runs(net: nn.Module, box: Box, shape: tuple[int, ...]) -> bool:
    try:
        with torch.no_grad():
            net(probe_inputs(box, shape, 3).to(device_of(net), floating_type(net)))
    except Exception:  # a wrong shape fails in as many ways as there are modules
        return False
    return True
