"""BPDA: another backward for named modules, where a network has no useful gradient of its own.

    forward:  y = m(x)            backward:  ∂y/∂x := ∂g/∂x,   g ≈ m differentiable

The network's values are kept bit for bit; only what an attacker differentiates changes (`Model.slopes`), so the
subject, its digest and every verdict stay what they were. The straight-through replacement is g = identity.

Athalye, Carlini, Wagner, Obfuscated Gradients Give a False Sense of Security, ICML 2018, §4.1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from saddlepoint.adapters.outputs import Outputs
from saddlepoint.adapters.probe import gradient_obstacle, probe_inputs
from saddlepoint.adapters.snapshot import Deployed, Frozen, Live
from saddlepoint.attack.stand_in.bpda import passing
from saddlepoint.attack.stand_in.swap import Swap
from saddlepoint.core.errors import InputError, NotAvailable, UnsupportedModel
from saddlepoint.spec import Access, Model

Replacement = Literal["identity"] | Callable[..., Tensor]


def with_backward(model: Model, replacements: Mapping[str, Replacement], *, straight_through: bool = False) -> Model:
    """The same model, differentiated through replacements: {"path.of.module": "identity" or g with g(x) ≈ module(x)}.

    Paths are those of `named_modules()` of the network given to `from_torch`; "" is the whole network. "identity" is
    for modules whose output has their input's shape. A model that had lost its gradients reaches access GRADIENT again.

    Raises InputError for unknown paths and for replacements that do not fit, UnsupportedModel where the gradients are
    of no use even so, NotAvailable for a model that is no module.
    """
    if not replacements:
        raise InputError("no module was named.", "Give {path: replacement}, or use with_straight_through.")
    module = origin(model)
    copied = copy.deepcopy(module)
    for path, how in replacements.items():
        _put(copied, path, how)
    slopes: Callable[[Tensor], Tensor] = Frozen(copied)
    x = probe_inputs(model.domain, model.shape)
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        slopes(x.clone().requires_grad_())  # a replacement that does not fit is said now
        through = passing(slopes, x) if straight_through else None
    said = ", ".join(f"{path or 'the whole network'} ({_words(how)})" for path, how in replacements.items())
    said = f"another backward of {said}"
    if through is not None:
        slopes, said = through, f"{said}, straight-through {', '.join(through.replaced)}"
    return _sloped(model, slopes, said, x)


def with_straight_through(model: Model) -> Model:
    """The same model, differentiated as if rounding, signs, thresholds, argmax and detach passed a gradient, wherever
    in the forward they are called (attack/stand_in/bpda.py).

    Raises NotAvailable where nothing of the kind is called, UnsupportedModel where the gradient is dead even so.
    """
    x = probe_inputs(model.domain, model.shape)
    with torch.random.fork_rng(devices=[]):
        slopes = passing(model.slopes or model.fn, x)
    if slopes is None:
        raise NotAvailable(
            f"{model.name} calls no rounding, sign, threshold, argmax or detach.",
            "Name the module that stops the gradient: with_backward(model, {path: replacement}).",
        )
    return _sloped(model, slopes, f"straight-through {', '.join(slopes.replaced)}", x)


def origin(model: Model) -> Deployed:
    """The modules of a model from `from_torch`. Raises NotAvailable for other models."""
    fn = model.fn
    if isinstance(fn, Live) or not isinstance(fn, Frozen):
        raise NotAvailable(
            f"{model.name} is no copy of an nn.Module, so none of its modules can be given another backward.",
            "Load it with from_torch (live=False).",
        )
    if fn.origin.present.outputs is Outputs.LABELS:
        raise NotAvailable(
            f"{model.name} returns labels, which no backward of its modules makes differentiable.",
            "Give a network that returns scores.",
        )
    return fn.origin


class Straight(nn.Module):
    """The module's value with the replacement's backward."""

    def __init__(self, path: str, module: nn.Module, how: Replacement) -> None:
        super().__init__()
        self.path = path
        self.module = module
        self.how = how

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the module returns; the gradient goes through the replacement."""
        with torch.no_grad():
            value = self.module(*args, **kwargs)
        if not isinstance(value, Tensor):
            raise InputError(
                f"module {self.path!r} returns {type(value).__name__}, not one tensor.",
                "Name a module inside it, or one around it.",
            )
        if not torch.is_grad_enabled():
            return value
        smooth = args[0] if self.how == "identity" else self.how(*args, **kwargs)  # pyright: ignore[reportCallIssue]
        if not isinstance(smooth, Tensor) or smooth.shape != value.shape:
            shape = tuple(smooth.shape) if isinstance(smooth, Tensor) else type(smooth).__name__
            raise InputError(
                f"module {self.path!r} returns {tuple(value.shape)}, its replacement {_words(self.how)} {shape}.",
                "Give a differentiable function with the module's own output shape, e.g. an interpolation or a "
                "convolution trained to imitate it.",
            )
        return Swap.apply(value, smooth)  # pyright: ignore[reportReturnType]


def _put(root: Deployed, path: str, how: Replacement) -> None:
    """Wrap one module of our own copy."""
    paths = [name for name, _ in root.net.named_modules(remove_duplicate=False)]
    if path not in paths:
        raise InputError(
            f"the network has no module {path!r}.", f"It has {', '.join(p for p in paths if p) or 'none inside'}."
        )
    if how != "identity" and not callable(how):
        raise InputError(f"replacement {how!r} of {path!r} is no function.", 'Give "identity" or a callable.')
    whole = f"net.{path}" if path else "net"
    parent, _, name = whole.rpartition(".")
    holder = root.get_submodule(parent)
    setattr(holder, name, Straight(path, root.get_submodule(whole), how))


def _sloped(model: Model, slopes: Callable[[Tensor], Tensor], said: str, x: Tensor) -> Model:
    """The model with these slopes, at access GRADIENT at least."""
    obstacle = gradient_obstacle(slopes, x)
    if obstacle:
        raise UnsupportedModel(
            f"{model.name} with {said}: {obstacle}.",
            "Another module still stops the gradient; suspects(model, x) lists the candidates.",
        )
    access = model.access if Access.GRADIENT in model.access else Access.GRADIENT
    return replace(model, slopes=slopes, access=access, notes=(*model.notes, f"access {access.name}: slopes by {said}"))


def _words(how: str | Callable[..., Tensor]) -> str:
    return how if isinstance(how, str) else getattr(how, "__name__", type(how).__name__)
