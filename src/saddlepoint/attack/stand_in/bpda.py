"""BPDA for operators: rounding, signs, thresholds and index look-ups pass a gradient wherever they are called.

    round, floor, …, x // c      backward of x, x / c                       (straight-through)
    sign, a > b, …               backward of tanh, σ((a − b)/τ)             τ = the row's mean |a − b|
    a == b                       backward of max(0, 1 − |a − b|)
    argmax, argmin               backward of softmax(± x/τ) over the index; one_hot and table[index] read it
    float → int or bool          the integer remembers what it came from, arithmetic on it is done with that too, and
                                 table[integer] is read linearly between entries
    detach, no_grad              nothing is cut

Values stay those of the operators, bit for bit; only the way back changes. Nothing is rewritten: the mode watches the
calls of one forward, so it finds an operator in a module, in a function or in a captured graph alike.
What runs inside a compiled or hand-written autograd function is out of its sight; there modules are replaced instead
(adapters/backward.py).

Bengio, Léonard, Courville, Estimating or Propagating Gradients Through Stochastic Neurons, 2013 (straight-through);
Athalye, Carlini, Wagner, ICML 2018, §4.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from saddlepoint.attack.stand_in.swap import Swap
from saddlepoint.graph.ir import Graph

Smooth = Callable[..., Tensor]


def _width(gap: Tensor) -> Tensor:
    """τ per row: the mean size of what is compared, so that the slope reaches all of it."""
    size = gap.detach().abs()
    size = size.mean(tuple(range(1, size.dim())), keepdim=True) if size.dim() > 1 else size.mean()
    return size.clamp_min(1e-6)


def _above(a: Any, b: Any) -> Tensor:
    gap = a - b
    return torch.sigmoid(gap / _width(gap))


def _same(a: Any, b: Any) -> Tensor:
    return torch.relu(1 - (a - b).abs())


def _sign(a: Tensor) -> Tensor:
    return torch.tanh(a / _width(a))


def _divided(a: Any, b: Any, *, rounding_mode: str | None = None) -> Tensor:
    return a / b


_ROUND: Smooth = lambda a, *rest, **more: a  # noqa: E731  # decimals= and the like do not matter to a slope
RULES: dict[str, Smooth] = {
    **dict.fromkeys(("round", "floor", "ceil", "trunc", "fix"), _ROUND),
    **dict.fromkeys(("floor_divide", "floordiv"), _divided),
    "rfloordiv": lambda a, b: b / a,
    **dict.fromkeys(("sign", "sgn"), _sign),
    "heaviside": lambda a, values: torch.sigmoid(a / _width(a)),
    **dict.fromkeys(("gt", "ge", "greater", "greater_equal"), _above),
    **dict.fromkeys(("lt", "le", "less", "less_equal"), lambda a, b: _above(b, a)),
    "eq": _same,
    "ne": lambda a, b: 1 - _same(a, b),
    **dict.fromkeys(("and", "logical_and", "bitwise_and"), lambda a, b: a * b),
    **dict.fromkeys(("or", "logical_or", "bitwise_or"), lambda a, b: a + b - a * b),
    **dict.fromkeys(("invert", "logical_not", "bitwise_not"), lambda a: 1 - a),
    "where": lambda c, a, b: c * a + (1 - c) * b,
    "masked_fill": lambda x, mask, value: x * (1 - mask) + mask * value,
}
_TO_INTEGER = {"int", "long", "byte", "short", "char", "bool", "to", "type"}
_LEFT = {"size", "get", "item", "tolist", "len", "dim", "numel", "stride"}  # questions, not computations
_LOGIC = {"and", "logical_and", "bitwise_and", "or", "logical_or", "bitwise_or", "where", "masked_fill", "invert"}


class Passing(TorchFunctionMode):
    """While active, the operators above pass a gradient. `replaced` counts them by name."""

    def __init__(self) -> None:
        super().__init__()
        self.replaced: Counter[str] = Counter()
        self._links: dict[int, tuple[Tensor, Tensor]] = {}  # an integer or boolean tensor, and what it stands for
        self._soft: dict[int, tuple[Tensor, Tensor]] = {}  # an index, and the weights of all entries it chose among

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operator's value; where it would stop the gradient, with another way back."""
        kwargs = kwargs or {}
        full = getattr(func, "__name__", "")
        if full == "_set_grad_enabled" and not args[0]:
            self.replaced["no_grad"] += torch.is_grad_enabled()
            return None
        if (full == "detach" or func == _DATA) and _passes(args[0]):
            self.replaced["detach"] += 1
            return args[0].view_as(args[0])
        name, in_place = full.strip("_"), full.endswith("_") and not full.startswith("__")
        if name in _LEFT or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        chosen = self._chosen(name, args, kwargs)
        if chosen is None:
            return self._softened(func, name, in_place, args, kwargs)
        with torch.no_grad():
            value = func(*args, **kwargs)
        return self._answer(name, value, chosen)

    def _softened(self, func: Any, name: str, in_place: bool, args: Any, kwargs: Any) -> Any:
        """Operators by their rule, conversions to integers, and whatever is computed from these."""
        swapped = tree_map(self._meant, list(args))
        linked = any(a is not b for a, b in zip(tree_leaves(list(args)), tree_leaves(swapped), strict=True))
        rule = RULES.get(name) or (_divided if name in ("div", "divide") and kwargs.get("rounding_mode") else None)
        moves = any(_passes(v) for v in tree_leaves(swapped))
        ruled = rule is not None and moves and (linked or name not in _LOGIC)
        if not (ruled or (moves and (linked or name in _TO_INTEGER))):
            return func(*args, **kwargs)
        old = args[0].clone() if in_place else None
        with torch.no_grad():
            value = func(*([args[0].detach().clone(), *args[1:]] if in_place else args), **kwargs)
        if not isinstance(value, Tensor):
            return value
        if name in _TO_INTEGER and not linked:
            if value.is_floating_point():
                return func(*args, **kwargs)
            smooth = swapped[0]
        else:
            source = [old, *swapped[1:]] if in_place else swapped
            smooth = _smooth(rule if ruled else func, _floats(source) if name in _LOGIC else source, kwargs)
        if smooth is None or smooth.shape != value.shape:
            return func(*args, **kwargs)
        answer = self._answer(name, value, smooth)
        return args[0].copy_(answer) if in_place and answer.is_floating_point() else answer

    def _chosen(self, name: str, args: Any, kwargs: Any) -> Tensor | None:
        """What argmax chooses among and what is read by an index; None for other operators."""
        if name in ("argmax", "argmin") and _passes(args[0]):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if dim is None:
                return None
            x = args[0].movedim(dim, -1) * (1 if name == "argmax" else -1)
            weights = torch.softmax(x / _width(x - x.mean(-1, keepdim=True)), -1)
            with torch.no_grad():
                self._weights = weights  # kept for the index that is about to be named
            return (weights * torch.arange(weights.shape[-1], device=x.device)).sum(-1)
        index = args[1] if name == "getitem" and len(args) > 1 else args[0] if args else None
        weights, place = _known(self._soft, index), _known(self._links, index)
        if name == "one_hot" and weights is not None:
            classes = args[1] if len(args) > 1 else kwargs.get("num_classes", -1)
            return weights if classes in (-1, weights.shape[-1]) else None
        table = args[0] if name == "getitem" else args[1] if name == "embedding" and len(args) > 1 else None
        if not isinstance(table, Tensor) or not table.is_floating_point():
            return None
        if weights is not None and len(table) == weights.shape[-1]:
            mean = weights.to(table.dtype) @ table.reshape(len(table), -1)
            return mean.reshape(*weights.shape[:-1], *table.shape[1:])
        return None if place is None else _between(table, place)

    def _answer(self, name: str, value: Tensor, smooth: Tensor) -> Tensor:
        self.replaced[name] += 1
        if value.is_floating_point():
            return Swap.apply(value, smooth)  # pyright: ignore[reportReturnType]
        self._links[id(value)] = (value, smooth)
        if name in ("argmax", "argmin"):
            self._soft[id(value)] = (value, self._weights)
        return value

    def _meant(self, value: Any) -> Any:
        """What a tensor stands for: an integer that came from a differentiable one, that one."""
        known = _known(self._links, value)
        return value if known is None else known


_DATA = Tensor.data.__get__  # pyright: ignore[reportAttributeAccessIssue]


def _passes(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _known(notes: dict[int, tuple[Tensor, Tensor]], value: Any) -> Tensor | None:
    noted = notes.get(id(value))
    return noted[1] if noted is not None and noted[0] is value else None


def _between(table: Tensor, place: Tensor) -> Tensor:
    """The table read at a fractional place: linear between neighbouring entries."""
    place = place.clamp(0, len(table) - 1)
    low = place.detach().floor().long().clamp(max=max(len(table) - 2, 0))
    share = (place - low).reshape(*place.shape, *[1] * (table.dim() - 1))
    return table[low] * (1 - share) + table[(low + 1).clamp(max=len(table) - 1)] * share


def _floats(values: list[Any]) -> list[Any]:
    return [v.float() if isinstance(v, Tensor) and v.dtype == torch.bool else v for v in values]


def _smooth(function: Any, args: list[Any], kwargs: Any) -> Tensor | None:
    """The operator on what its arguments stand for; None where it has no meaning on these."""
    try:
        found = function(*args, **kwargs)
    except (RuntimeError, TypeError, IndexError):  # e.g. an index that became a float
        return None
    usable = isinstance(found, Tensor) and found.is_floating_point() and found.requires_grad
    return found if usable and bool(found.isfinite().all()) else None


@dataclass(frozen=True)
class StraightThrough:
    """A function in which operators pass a gradient; its values are the function's own."""

    call: Callable[[Tensor], Tensor]
    replaced: tuple[str, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Scores (b, classes)."""
        with Passing():
            return self.call(x)


def passing(call: Callable[[Tensor], Tensor], x: Tensor) -> StraightThrough | None:
    """The function with another way back, and the operators replaced on its way over x; None where there were none."""
    with torch.enable_grad(), Passing() as mode:
        call(x.detach().clone().requires_grad_())
    names = tuple(f"{name} × {count}" for name, count in sorted(mode.replaced.items()) if count)
    return StraightThrough(call, names) if names else None


def straight_through(graph: Graph) -> StraightThrough | None:
    """The same for a captured graph; None where it holds no operator that stops the gradient."""
    return passing(graph, torch.rand(2, *graph.input_shape, dtype=graph.dtype, device=graph.device))
