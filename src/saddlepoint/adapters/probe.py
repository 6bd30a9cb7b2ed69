"""Finding out what a model is, by asking it: outputs, classes, randomness, gradients.

A model that answers twice alike may still be random: a resize by chance to the same size. So where a call moves any
global generator (torch, Python, NumPy), the question is asked again until two answers differ, up to `_PATIENT` times.

All inputs are keyed draws inside the domain, so the answers do not depend on any global seed; global
generators are put back as they were.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saddlepoint.adapters.draw import generators_kept
from saddlepoint.adapters.outputs import Outputs, check_outputs, find_out
from saddlepoint.core.errors import InputError, NonFinite, SaddlepointError, UnsupportedModel
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.geometry import Box

Call = Callable[[Tensor], object]

_ROWS = 12
_NOISE = 1e-5  # relative: below it, differences between two calls are rounding of parallel sums
_AGAIN = 2  # further calls for a model that touches no generator: a private one may be inside, or a service behind
_PATIENT = 64  # for one that does: what happens in one call of ten is missed once in a thousand times


def probe_inputs(domain: Box, shape: tuple[int, ...], rows: int | None = None) -> Tensor:
    """(rows, *shape) float32 points of the domain: both extreme corners, then uniform draws."""
    rows = rows or (_ROWS if is_small(shape) else 5)
    lower, upper = domain.limits(torch.zeros(1, *shape))
    # an unlimited side is looked at one unit deep
    lower, upper = (
        torch.where(lower.isinf(), torch.where(upper.isinf(), -1.0, upper - 1), lower),
        torch.where(upper.isinf(), torch.where(lower.isinf(), 1.0, lower + 1), upper),
    )
    keys = row_keys(0, [str(i) for i in range(rows - 2)], "probe")
    inner = lower + (upper - lower) * Draws(keys).uniform(shape)
    points = torch.cat([lower.expand(1, *shape), upper.expand(1, *shape), inner])
    return torch.maximum(torch.minimum(points, upper), lower)  # rounding of lower + width·u stays inside


def is_small(shape: tuple[int, ...]) -> bool:
    """Whether a few dozen calls cost next to nothing (up to 64 x 64 colour images)."""
    return math.prod(shape) <= 3 * 64 * 64


def ask(call: Call, x: Tensor) -> Tensor:
    """One checked call: a tensor of outputs, or UnsupportedModel."""
    with torch.no_grad():
        try:
            raw = call(x)
        except SaddlepointError:
            raise
        except Exception as error:  # a user's code may raise anything
            raise UnsupportedModel(
                f"The model fails on inputs of shape {tuple(x.shape)}: {type(error).__name__}: {error}",
                "Check shape= (without the batch axis) and that it takes a batch.",
            ) from error
    return check_outputs(raw, len(x))


def require_finite(raw: Tensor) -> None:
    """NaN or Inf on ordinary inputs is no answer. Raises NonFinite."""
    if raw.is_floating_point() and not bool(torch.isfinite(raw).all()):
        count = int((~torch.isfinite(raw)).sum())
        raise NonFinite(
            f"{count} of {raw.numel()} outputs on inputs inside the domain are NaN or infinite.",
            "Check the weights for NaN, the normalisation (a std of 0?) and the domain.",
        )


@dataclass(frozen=True)
class Findings:
    """What asking showed."""

    outputs: Outputs
    classes: int
    stochastic: bool
    notes: tuple[str, ...]


def examine(call: Call, x: Tensor, *, told: str = "auto", classes: int | None = None) -> Findings:
    """Kind of outputs, number of classes, randomness, dependence on the batch.

    Raises UnsupportedModel for anything that is no classifier, NonFinite for NaN on ordinary inputs.
    """
    if told not in ("auto", "logits", "probabilities"):
        raise InputError(f"outputs={told!r} is unknown.", 'Give "auto", "logits" or "probabilities".')
    with generators_kept(x):  # around all calls: two of them must not draw the same numbers
        return _examine(call, x, told, classes)


def _examine(call: Call, x: Tensor, told: str, classes: int | None) -> Findings:
    before = _generators(x)
    first = ask(call, x)
    require_finite(first)
    draws = _generators(x) != before
    noise = _NOISE * max(1.0, float(first.double().abs().max()))
    spread = _spread(call, x, first, noise, _PATIENT if draws else _AGAIN)
    stochastic = spread > noise
    outputs = find_out(first, _far(call, x) if told == "auto" and _one_column(first) else None, told)
    found = _classes(first, outputs, classes)
    notes = _output_notes(outputs)
    if stochastic:
        notes.append(
            f"stochastic: two calls on one input differ by up to {spread:.3g}; a single draw bounds nothing, "
            "attacks must average over draws and no certificate applies"
        )
    else:
        if draws:
            notes.append(f"draws random numbers, but {_PATIENT + 1} calls gave one answer: taken as deterministic")
        notes += _batch_note(call, x, first)
    return Findings(outputs, found, stochastic, tuple(notes))


def _generators(x: Tensor) -> tuple[object, ...]:
    """Where the global generators stand, as one comparable value."""
    numpy = np.random.get_state(legacy=False)  # a user's module may read it
    twister = numpy["state"]
    device = torch.cuda.get_rng_state(x.device).numpy().tobytes() if x.is_cuda else b""
    own = torch.get_rng_state().numpy().tobytes()
    return own, device, random.getstate(), twister["key"].tobytes(), twister["pos"], numpy["has_gauss"]


def _spread(call: Call, x: Tensor, first: Tensor, noise: float, calls: int) -> float:
    """The largest difference from the first answer, asking until it is more than noise."""
    spread = 0.0
    for _ in range(calls):
        spread = max(spread, float((ask(call, x).double() - first.double()).abs().max()))
        if spread > noise:
            break
    return spread


def _far(call: Call, x: Tensor) -> Tensor | None:
    try:
        return ask(call, torch.cat([x * 1e3, x * -1e3]))
    except InputError:  # a model may refuse inputs outside its domain; then the inside must do
        return None


def _one_column(raw: Tensor) -> bool:
    # several columns that sum to 1 on random inputs need no second look
    return raw.dim() == 1 or raw.shape[1] == 1


def _classes(raw: Tensor, outputs: Outputs, told: int | None) -> int:
    if outputs is Outputs.LABELS:
        if told is None:
            raise InputError(
                "The model returns labels only, which do not show how many classes there are.",
                "Give classes= (the number of classes).",
            )
        return told
    found = 2 if outputs in (Outputs.ONE_LOGIT, Outputs.ONE_PROBABILITY) else int(raw.shape[1])
    if told is not None and told != found:
        raise UnsupportedModel(
            f"The model gives scores of {found} classes, {told} were expected.",
            "Give the network that belongs to the data, or leave classes= away.",
        )
    return found


def _output_notes(outputs: Outputs) -> list[str]:
    return {
        Outputs.LOGITS: [],
        Outputs.ONE_LOGIT: ["one logit z: presented as two columns (-z/2, z/2)"],
        Outputs.PROBABILITIES: ["outputs are probabilities: presented as log p"],
        Outputs.ONE_PROBABILITY: ["one probability p: presented as (log(1-p), log p)"],
        Outputs.LABELS: ["outputs are labels: presented as one-hot scores"],
    }[outputs]


def _batch_note(call: Call, x: Tensor, whole: Tensor) -> list[str]:
    alone = torch.cat([ask(call, x[i : i + 1]) for i in (2, 3)])
    spread = float((alone.double() - whole[2:4].double()).abs().max())
    if spread <= 1e-3 * max(1.0, float(whole.double().abs().max())):
        return []
    return [f"outputs depend on the rest of the batch, by up to {spread:.3g}: one sample alone may get another verdict"]


def gradient_obstacle(fn: Callable[[Tensor], Tensor], x: Tensor) -> str:
    """Why input gradients are of no use; empty where they are usable."""
    point = x.clone().requires_grad_(True)
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        try:
            z = fn(point)
            if not z.requires_grad:
                return "no gradient: the outputs do not depend differentiably on the input"
            weights = torch.arange(1, z.shape[1] + 1, dtype=z.dtype, device=z.device)
            (g,) = torch.autograd.grad((z * weights.cos()).sum(), point, allow_unused=True)
        except Exception as error:  # hand-written backward passes may raise anything
            return f"no gradient: {type(error).__name__}: {error}"
    if g is None:
        return "no gradient: the outputs do not depend differentiably on the input"
    if not bool(torch.isfinite(g).any()):
        return "no gradient: every entry is NaN or infinite"
    if not bool(g.nan_to_num().any()):
        return f"no gradient: exactly zero on all {len(x)} inputs tried (rounding or saturation inside?)"
    return ""
