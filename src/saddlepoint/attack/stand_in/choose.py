"""Which stand-in to differentiate: each is timed on the first batch, and the fastest that agrees is kept.

    exact   the folded graph in the model's own precision, channels first or last: values and gradients
    rough   the same in bfloat16, where the processor multiplies it: gradients only

A stand-in agrees if its gradients of the margin point where the model's do (cosine, median over the rows) and, for
`exact`, if its margins are the model's up to rounding. `slack` is what nine in ten differences of margins stay below:
a point whose margin lies below it *may* break the model, so the engine looks at it with the model itself (and at the
last point of every search in any case). No verdict is ever read from a stand-in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from saddlepoint.attack.losses import margin
from saddlepoint.attack.protocol import Ask
from saddlepoint.attack.stand_in.first_layer import with_first_layer
from saddlepoint.attack.stand_in.fold import fold
from saddlepoint.graph.ir import Graph
from saddlepoint.spec.access import Access
from saddlepoint.spec.model import Model

_EXACT_COSINE, _ROUGH_COSINE = 0.9999, 0.95
_ROUNDING = 1e-4  # of the largest logit: float32 sums in another order
_PAYS = 0.95  # of the model's own time
_LARGER = (1, 2, 4)  # times the model's rows per call: half the bytes leave room in the cache
_REPEATS = 2


@dataclass(frozen=True)
class StandIn:
    """A function in the model's place, the rows it takes in one call, and how far its margins may be off."""

    name: str
    fn: Callable[[Tensor], Tensor]
    rows: int
    slack: float
    seconds: float

    def __call__(self, x: Tensor) -> Tensor:
        return self.fn(x)


@dataclass(frozen=True)
class Faster:
    """What was found: a stand-in for values and gradients, one for gradients alone; None where the model is as fast."""

    exact: StandIn | None = None
    rough: StandIn | None = None
    seconds: float = 0.0

    def to_answer(self, ask: Ask) -> StandIn | None:
        """Who answers an ask: values that the next step reads may not be rough; labels come from the model."""
        if ask.want < Access.SCORES:
            return None
        return self.rough if self.rough and not ask.values else self.exact

    @property
    def notes(self) -> list[str]:
        """What stands in, in words."""
        found = [s for s in (self.exact, self.rough) if s is not None]
        return [f"gradients from {s.name}, {s.rows} rows a call" for s in found]


_CHOSEN: WeakKeyDictionary[Graph, dict[tuple[object, ...], Faster]] = WeakKeyDictionary()


def chosen(model: Model) -> bool:
    """Whether the measuring was done already."""
    return isinstance(model.graph, Graph) and model.graph in _CHOSEN


def choose(model: Model, x: Tensor, y: Tensor, rows: int) -> Faster:
    """The stand-ins for a model on inputs like x, `rows` of which the model itself takes in a call; found once."""
    graph = model.graph
    if not isinstance(graph, Graph) or model.slopes is not None or graph.dtype != torch.float32 or len(x) < rows:
        return Faster()
    where = (x.device, x.dtype, rows, torch.get_num_threads())
    known = _CHOSEN.setdefault(graph, {})  # what was found out about a graph stays true of it
    if where not in known:
        known[where] = _measure(model, graph, x.detach(), y, rows)
    return known[where]


def _measure(model: Model, graph: Graph, x: Tensor, y: Tensor, rows: int) -> Faster:
    began = time.perf_counter()
    folded = fold(graph)
    truth, slopes = _margins(model, x[:rows], y[:rows])
    plain = _pace(model, x, y, rows)
    single = with_first_layer(folded)
    candidates = [
        ("exact", "the folded graph", _laid_out(single, torch.float32, last=False)),
        ("exact", "the folded graph, channels last", _laid_out(single, torch.float32)),
    ]
    if _multiplies_bfloat16(x.device):
        candidates.append(("rough", "the folded graph in bfloat16", _laid_out(folded, torch.bfloat16)))
    found: dict[str, StandIn] = {}
    limit = plain * _PAYS
    for kind, name, fn in candidates:
        values, found_slopes = _margins(fn, x[:rows], y[:rows])
        error = (values - truth).abs()
        off = float(error.max())
        cosine = torch.cosine_similarity(found_slopes.flatten(1), slopes.flatten(1)).median()
        if not off < float("inf") or cosine < (_EXACT_COSINE if kind == "exact" else _ROUGH_COSINE):
            continue
        if kind == "exact" and off > _ROUNDING * (1 + float(truth.abs().max())):
            continue
        pace, at = min((_pace(fn, x, y, count), count) for count in sorted({min(rows * m, len(x)) for m in _LARGER}))
        if pace < limit:
            found[kind] = StandIn(name, fn, at, float(error.quantile(0.9)), pace)
            limit = pace
    return Faster(found.get("exact"), found.get("rough"), time.perf_counter() - began)


def _laid_out(graph: Graph, dtype: torch.dtype, last: bool = True) -> Callable[[Tensor], Tensor]:
    """The graph in a floating type, images and convolution weights channels last or first."""

    def ordered(t: Tensor) -> Tensor:
        if not last or t.dim() != 4:
            return t
        # with one channel `contiguous` sees nothing to do, and the layers behind would run channels first
        return torch.empty_like(t, memory_format=torch.channels_last).copy_(t)

    graph = graph.to(dtype)
    nodes = [replace(n, op=replace(n.op, **{k: ordered(t) for k, t in n.op.tensors().items()})) for n in graph.nodes]  # pyright: ignore[reportArgumentType]
    laid = replace(graph, nodes=tuple(nodes))

    def fn(x: Tensor) -> Tensor:
        x = x.to(dtype)
        return laid(x.contiguous(memory_format=torch.channels_last) if last and x.dim() == 4 else x).float()

    return fn


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether it is worth timing: emulated bfloat16 can be many times slower than float32."""
    if device.type == "cpu":
        asked = getattr(torch.cpu, "get_capabilities", None)  # newer than the oldest torch that is supported
        return asked is None or any(asked().get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def _margins(fn: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """−margin and its gradient in x."""
    points = x.clone().requires_grad_()
    with torch.enable_grad():
        value = margin(fn(points).to(x.dtype), y, None)
        (slope,) = torch.autograd.grad(value.sum(), points)
    return value.detach(), slope


def _pace(fn: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, rows: int) -> float:
    """Seconds for a row's forward and backward, `rows` in a call; the best of a few after one to warm up."""
    times = []
    for _ in range(1 + _REPEATS):
        began = time.perf_counter()
        _margins(fn, x[:rows], y[:rows])
        times.append((time.perf_counter() - began) / rows)
    return min(times[1:])
