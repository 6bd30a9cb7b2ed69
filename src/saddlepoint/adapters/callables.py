"""Any Python callable, on torch tensors or NumPy arrays, as a spec.Model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.adapters.options import Domain, as_box
from saddlepoint.adapters.outputs import Outputs, Present
from saddlepoint.adapters.probe import ask, examine, gradient_obstacle, probe_inputs
from saddlepoint.core.digests import digest_json
from saddlepoint.core.errors import InputError
from saddlepoint.spec import Access, Model


@dataclass(frozen=True)
class ArrayFunction:
    """A function on NumPy arrays seen as one on tensors: values are copied out and in, no gradient passes."""

    function: Callable[[np.ndarray], Any]
    dtype: type[np.floating] = np.float32

    def __call__(self, x: Float[Tensor, "b ..."]) -> object:
        """Outputs as a CPU tensor where they are an array of numbers; anything else as it is."""
        raw = self.function(x.detach().cpu().numpy().astype(self.dtype))
        if isinstance(raw, (list, tuple)) and raw and isinstance(raw[0], (int, float)):
            raw = np.asarray(raw)
        if isinstance(raw, np.ndarray) and raw.dtype.kind in "biuf":
            return torch.from_numpy(np.array(raw)).to(x.device)
        return raw


@dataclass(frozen=True)
class Presented:
    """Raw outputs of a call, presented as logits."""

    call: Callable[[Tensor], Any]
    present: Present

    def __call__(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b k"]:
        """Scores (b, classes)."""
        z = self.present(self.call(x))
        return z if z.dtype in (torch.float32, torch.float64) else z.float()


def from_callable(
    function: Callable[[Any], Any],
    domain: Domain | None,
    *,
    shape: tuple[int, ...] | None,
    classes: int | None = None,
    outputs: str = "auto",
    backend: str = "auto",
    name: str | None = None,
) -> Model:
    """A model from `function(x (b, *shape)) -> scores (b, K), probabilities, or labels (b,)`.

    `backend` says what x is: "torch", "numpy", or "auto" (a tensor is tried first). Torch functions that
    pass gradients reach access GRADIENT, all others SCORES, label-only ones LABEL (give `classes`).
    The digest covers the name and the outputs on fixed inputs: a function has no weights to look at.
    """
    label = name or getattr(function, "__qualname__", type(function).__name__)
    box = as_box(domain, label)
    if shape is None:
        raise InputError(f"The input shape of {label} is unknown.", "Give shape=, e.g. shape=(3, 32, 32).")
    x = probe_inputs(box, tuple(shape))
    call = _call(function, backend, x, label)
    found = examine(call, x, told=outputs, classes=classes)
    fn = Presented(call, Present(found.outputs, found.classes))
    notes = list(found.notes)
    if found.outputs is Outputs.LABELS:
        access = Access.LABEL
    else:
        obstacle = gradient_obstacle(fn, x)
        access = Access.SCORES if obstacle else Access.GRADIENT
        notes.append(f"access SCORES: {obstacle}" if obstacle else "access GRADIENT: a function has no graph to bound")
    mark = output_digest(label, fn, x, found.stochastic)
    return Model(fn, box, found.classes, access, mark, tuple(shape), found.stochastic, label, None, tuple(notes))


def output_digest(name: str, fn: Callable[[Tensor], Tensor], x: Tensor, stochastic: bool) -> str:
    """Digest over the name and the outputs on fixed keyed inputs, to three digits (machines round apart).

    Outputs of a random function differ from call to call and are left out.
    """
    told = [] if stochastic else [[f"{float(v):.2e}" for v in row] for row in ask(fn, x).double()]
    return digest_json({"name": name, "outputs": told})


def _call(function: Callable[[Any], Any], backend: str, x: Tensor, name: str) -> Callable[[Tensor], Any]:
    if backend not in ("auto", "torch", "numpy"):
        raise InputError(f"backend={backend!r} is unknown.", 'Give "auto", "torch" or "numpy".')
    if backend == "numpy":
        return ArrayFunction(function)
    if backend == "torch":
        return function
    if any(_answers(function, x.clone().requires_grad_(wanted)) for wanted in (True, False)):
        return function
    return ArrayFunction(function)


def _answers(function: Callable[[Any], Any], x: Tensor) -> bool:
    """Whether the function takes tensors: it answers with one, and NumPy does not warn about being given one."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("error")
        try:
            return isinstance(function(x), Tensor)
        except Exception:  # a NumPy function given a tensor may raise anything; the real call reports
            return False
