"""A user's module as a fixed, pure function: a frozen copy, or a live view for training loops.

    f(x) = present(net((x − mean) / std))

Nothing here changes the user's module: the copy is put in eval mode and frozen, the original keeps its
flags, gradients and device.
"""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saddlepoint.adapters.outputs import Outputs, Present
from saddlepoint.adapters.settings import described
from saddlepoint.core.digests import digest_json, digest_tensors
from saddlepoint.core.errors import InputError, UnsupportedModel


class Normalise(nn.Module):
    """(x − mean) / std per channel (axis 1); part of the model, so sizes stay in raw input units."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], axes: int, dtype: torch.dtype) -> None:
        super().__init__()
        view = (-1, *(1,) * (axes - 1))
        self.register_buffer("mean", torch.tensor(mean, dtype=dtype).reshape(view))
        self.register_buffer("std", torch.tensor(std, dtype=dtype).reshape(view))

    @property
    def lipschitz(self) -> float:
        """How much it stretches: 1 / min σ."""
        return float(1 / self.std.abs().min())

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, …) -> (b, c, …)."""
        return (x - self.mean) / self.std


def normaliser(
    mean: Sequence[float] | float | None,
    std: Sequence[float] | float | None,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
) -> Normalise | None:
    """The normalisation for inputs of this shape; None where there is nothing to do.

    Raises InputError for a missing partner, a zero std or a wrong number of channels.
    """
    if mean is None and std is None:
        return None
    means = _channels(0.0 if mean is None else mean, "mean", shape)
    stds = _channels(1.0 if std is None else std, "std", shape)
    if min(stds) <= 0:
        raise InputError(f"std={stds} holds a value that is not positive.", "Give positive numbers.")
    if all(m == 0 for m in means) and all(s == 1 for s in stds):
        return None
    return Normalise(means, stds, len(shape), dtype)


def _channels(value: Sequence[float] | float, name: str, shape: tuple[int, ...]) -> tuple[float, ...]:
    if isinstance(value, (int, float)):
        values: tuple[float, ...] = (float(value),)
    else:
        values = tuple(float(v) for v in value)
    if len(values) not in (1, shape[0]):
        raise InputError(
            f"{name} has {len(values)} entries, inputs of shape {shape} have {shape[0]} channels.",
            f"Give one number or {shape[0]}.",
        )
    return values


def frozen_copy(net: nn.Module) -> nn.Module:
    """A deep copy in eval mode whose parameters take no gradient. Raises UnsupportedModel."""
    return frozen(copied(net))


def copied(net: nn.Module) -> nn.Module:
    """A deep copy. Raises UnsupportedModel."""
    try:
        return copy.deepcopy(net)
    except Exception as error:  # a module may raise anything while it is copied
        raise UnsupportedModel(
            f"{type(net).__name__} cannot be copied ({type(error).__name__}: {error}).",
            "Give a factory package.module:factory that builds it, or live=True for a view of the module.",
        ) from error


def frozen(module: nn.Module) -> nn.Module:
    """The module itself, in eval mode and without weight gradients: for modules that are ours alone."""
    for m in module.modules():
        m.training = False  # .eval() says the same, but exported programs refuse it
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


class Deployed(nn.Module):
    """Normalisation, network and presentation of the outputs, in the network's own precision."""

    def __init__(self, net: nn.Module, normalise: Normalise | None, outputs: Outputs = Outputs.LOGITS) -> None:
        super().__init__()
        self.normalise = normalise
        self.net = net
        self.present = Present(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(b, *shape) in raw units and the network's precision -> (b, classes)."""
        return self.present(self.net(x if self.normalise is None else self.normalise(x)))


class Frozen:
    """fn of a model whose weights never change; inputs are cast to the network's precision.

    `origin` is the network as it was given, where `module` is a captured graph of it.
    """

    def __init__(self, module: Deployed, origin: Deployed | None = None) -> None:
        self.module = module
        self.origin = origin or module
        self.dtype = floating_type(module.net)

    def __call__(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b k"]:
        """Scores (b, classes)."""
        z = self.module(x.to(self.dtype))
        return z if z.dtype in (torch.float32, torch.float64) else z.float()

    def raw(self, x: Float[Tensor, "b ..."]) -> Any:
        """What the network itself returns, before it is presented as logits."""
        x = x.to(self.dtype)
        return self.module.net(x if self.module.normalise is None else self.module.normalise(x))


def lay_out(fn: Frozen, x: Tensor) -> bool:
    """Store a copy's convolution weights channels last where the network allows it: the same sums, in less time.

    `make bench-engine` shows what it saves. A network that reshapes its
    activations with `view` cannot be run so and keeps its layout. True if the layout was changed.
    """
    module = fn.module
    if not any(parameter.ndim == 4 for parameter in module.parameters()):
        return False
    with torch.no_grad():
        before = fn(x)
    module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    try:
        points = x.detach().clone().requires_grad_()
        after = fn(points)
        if after.requires_grad:  # the way back reshapes too
            torch.autograd.grad(after.sum(), points, allow_unused=True)
        same = bool((after.detach() - before).abs().max() <= 1e-5 * (1 + before.abs().max()))
    except RuntimeError:  # "view size is not compatible with input tensor's size and stride"
        same = False
    if not same:
        module.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    return same


class Live(Frozen):
    """fn of a module under training: eval mode and frozen parameters during the call, restored after it."""

    def __call__(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b k"]:
        """Scores (b, classes) of the weights as they are now."""
        with borrowed(self.module):
            return super().__call__(x)

    def raw(self, x: Float[Tensor, "b ..."]) -> Any:
        """What the network itself returns."""
        with borrowed(self.module):
            return super().raw(x)


@contextmanager
def borrowed(module: nn.Module) -> Iterator[None]:
    """Eval mode and no weight gradients inside; every module's and parameter's flag restored after."""
    modes = [(m, m.training) for m in module.modules()]
    wanted = [(p, p.requires_grad) for p in module.parameters()]
    try:
        for m, _ in modes:
            m.training = False
        for p, _ in wanted:
            p.requires_grad_(False)  # no weight gradients are computed, and none can be polluted
        yield
    finally:
        for m, mode in modes:
            m.training = mode
        for p, want in wanted:
            p.requires_grad_(want)


def floating_type(net: nn.Module) -> torch.dtype:
    """Precision of the first floating parameter or buffer; float32 where there is none."""
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.float32


def module_digest(module: Deployed, shape: tuple[int, ...]) -> str:
    """Digest over weights, architecture text, normalisation and presentation.

    The text is `repr` plus the syntax trees of the user's own classes, so that a changed `forward`
    changes the digest and a changed comment does not. Settings are told by content, private ones too.
    """
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    return digest_json(
        {
            "weights": digest_tensors(tensors),
            "text": repr(module.net),
            "code": _user_code(module.net),
            "attributes": _attributes(module.net),
            "normalised": module.normalise is not None,
            "outputs": module.present.outputs.value,
            "shape": list(shape),
        }
    )


def _attributes(net: nn.Module) -> dict[str, Any]:
    """Settings that are neither weights nor in the text: every attribute of an instance that is not nn.Module's own.

    Modules kept outside the registry (in a plain list, say) compute too, so their weights and settings count.
    """
    paths = {id(m): path for path, m in net.named_modules()}

    def special(value: Any) -> Any | None:
        if not isinstance(value, nn.Module):
            return None
        if id(value) in paths:  # described under its own path
            return ["module", paths[id(value)]]
        paths.update((id(m), f"outside {len(paths)}.{path}") for path, m in value.named_modules())
        tensors = dict(value.named_parameters()) | dict(value.named_buffers())
        held = [_own(path, m, special) for path, m in value.named_modules()]
        return ["module", repr(value), digest_tensors(tensors), _user_code(value), held]

    found: dict[str, Any] = {}
    for path, m in net.named_modules():
        found |= _own(path, m, special)
    return found


def _own(path: str, m: nn.Module, special: Callable[[Any], Any | None]) -> dict[str, Any]:
    """The described attributes of one module, in the order of their names."""
    # a compiled call computes what the module computes
    base = vars(nn.Module()).keys() | {"_compiled_call_impl"}
    return {f"{path}.{key}": described(vars(m)[key], special) for key in sorted(vars(m).keys() - base)}


def _user_code(net: nn.Module) -> list[str]:
    kinds = {type(m) for m in net.modules()}
    found = []
    for kind in sorted(kinds, key=lambda k: f"{k.__module__}.{k.__qualname__}"):
        name = f"{kind.__module__}.{kind.__qualname__}"
        if kind.__module__.split(".")[0] in ("torch", "saddlepoint"):
            found.append(kind.__qualname__)
            continue
        try:
            found.append(name + ast.dump(ast.parse(textwrap.dedent(inspect.getsource(kind)))))
        except (OSError, TypeError, SyntaxError):  # no source at hand (typed at a prompt, compiled)
            found.append(name)
    return found
