"""Which backward to attack a network through, chosen by what an attacker gains.

    gain(s) = mean over samples of  m(x) − min over h of m(x + h sign s(x)),      m read from the model itself

Candidates are the network's own gradient, its operators made to pass one, the identity in the place of the suspects
whose shape allows it, and both. The steepest ℓ∞ steps of several sizes h (shares of the domain's width) are tried once
each; the candidate whose steps lower the margin most is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from saddlepoint.adapters.backward import Replacement, with_backward, with_straight_through
from saddlepoint.adapters.suspicion import Suspect, suspects
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.spec import Access, Model, margin

_SIZES = (0.02, 0.05, 0.1, 0.2)
_ROWS = 64


def remedied(model: Model, x: Tensor, y: Tensor, found: list[Suspect] | None = None) -> Model:
    """The model with the backward through which its margins fall most; the model as it is where its own is the best.

    Raises NotAvailable where nothing of the kind can be done (no module, no candidate that gives a gradient).
    """
    x, y = x[:_ROWS], y[:_ROWS]
    best, most = None, -torch.inf
    for candidate in _candidates(model, suspects(model, x) if found is None else found):
        got = gain(candidate, x, y)
        if got > most:
            best, most = candidate, got
    if best is None:
        raise NotAvailable(
            f"no backward was found through which {model.name} has a gradient.",
            "Give a differentiable imitation of the module that stops it: with_backward(model, {path: g}).",
        )
    return best


def gain(model: Model, x: Tensor, y: Tensor) -> float:
    """By how much one step along the model's slopes lowers its margins, on average; −inf where there are none."""
    slopes = model.slopes or model.fn
    point = x.detach().clone().requires_grad_()
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            (g,) = torch.autograd.grad(-_finite(margin(slopes(point), y)).sum(), point)
    except Exception:  # a backward may raise anything
        return -torch.inf
    lower, upper = model.domain.limits(x)
    width = (upper - lower).clamp(max=1e6)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        before = _finite(margin(model(x), y))
        step = width * g.nan_to_num(0.0, 0.0, 0.0).sign()
        after = [margin(model((x + h * step).clamp(lower, upper)), y).nan_to_num(torch.inf) for h in _SIZES]
        fall = before - torch.stack([*after, before]).amin(0)
    return float(fall.mean())


def _finite(values: Tensor) -> Tensor:
    return values.nan_to_num(0.0)


def _candidates(model: Model, found: list[Suspect]) -> Iterator[Model]:
    """The model itself, and every remedy that gives a gradient."""
    if Access.GRADIENT in model.access:
        yield model
    ways = [{s.path for s in found if s.same_shape and s.path}, {s.path for s in found if s.suggestion == "identity"}]
    yield from _given(lambda: with_straight_through(model))
    for paths in ways if ways[0] != ways[1] else ways[:1]:
        identity: dict[str, Replacement] = dict.fromkeys(sorted(paths), "identity")
        for through in (False, True) if paths else ():
            yield from _given(lambda i=identity, t=through: with_backward(model, i, straight_through=t))


def _given(make: Callable[[], Model]) -> Iterator[Model]:
    try:
        yield make()
    except InputError:  # does not apply here, or the gradient is dead even so
        return
