"""Defences that hide gradients and defend nothing, and compositions of them under names that say nothing.

    rounding      quantisation to a few levels, or a thermometer code read back                  zero gradient
    spectrum      8 × 8 DCT coefficients rounded to multiples of a table, as JPEG does             zero gradient
    resizing      every call shrinks and shifts each image at random and stores 8 bits             random, zero gradient
    loud          logits × 100 or more: the float32 cross-entropy saturates                        a loss without slope
    winners       the largest k activations pass, computed where no gradient is recorded           zero gradient

A generated composition takes two or three of them in a random order, at random places, with random parameters, as
classes and attributes with random names. Nothing about them can be recognised but what they do.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.data import load as load_data
from saddlepoint.geometry import Linf
from saddlepoint.training import Adversarial, Standard, Trainer, fresh, train

EPSILON = "0.25"  # the undefended network keeps no sample


def rounding(levels: int) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.round(x * levels) / levels


def thermometer(levels: int) -> Callable[[Tensor], Tensor]:
    thresholds = (torch.arange(levels) + 0.5) / levels
    return lambda x: (x[..., None] > thresholds).float().mean(-1)


def spectrum(quality: float) -> Callable[[Tensor], Tensor]:
    k = torch.arange(8.0)
    basis = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / 16) / 2
    basis[0] /= math.sqrt(2)
    table = quality * (1 + (k[:, None] + k[None]) / 4)

    def compress(x: Tensor) -> Tensor:
        code = torch.round(basis @ x @ basis.T / table)
        return (basis.T @ (code * table) @ basis).clamp(0, 1)

    return compress


def resizing(smallest: float, bits: int = 8) -> Callable[[Tensor], Tensor]:
    """Each image is drawn smaller by a random factor at a random place on black, in 2^bits grey levels."""

    def resize(x: Tensor) -> Tensor:
        scale = smallest + (1 - smallest) * torch.rand(len(x))
        shift = (torch.rand(len(x), 2) * 2 - 1) * (1 - scale[:, None])
        turn = torch.zeros(len(x), 2, 3)
        turn[:, 0, 0] = turn[:, 1, 1] = 1 / scale
        turn[:, :, 2] = shift / scale[:, None]
        grid = functional.affine_grid(turn, list(x.shape), align_corners=False)
        seen = functional.grid_sample(x, grid, align_corners=False)
        return torch.round(seen * (2**bits - 1)) / (2**bits - 1)

    return resize


def loud(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda z: z * factor


def winners(share: float) -> Callable[[Tensor], Tensor]:
    def compete(h: Tensor) -> Tensor:
        with torch.no_grad():
            flat = h.flatten(1)
            least = flat.topk(max(1, round(share * flat.shape[1])), 1).values[:, -1:]
            return (flat * (flat >= least)).reshape(h.shape)

    return compete


def module_of(function: Callable[[Tensor], Tensor], name: str) -> nn.Module:
    """The function as a module of a class of its own."""
    return type(name, (nn.Module,), {"forward": lambda self, x: function(x)})()


@cache
def network() -> nn.Sequential:
    """A small convolutional net on digits, trained on shrunk and shifted images too, so that no defence costs much."""
    net = nn.Sequential(nn.Identity(), *_layers())
    net[0] = module_of(resizing(0.75), "Augment")
    trained = train(fresh(net, 0), load_data("digits:train"), Standard(), Trainer(epochs=12)).net
    return trained[1:].eval()


@cache
def robust_network() -> nn.Sequential:
    """The same, adversarially trained at 0.15."""
    trainer = Trainer(epochs=8, warm_up=3)
    net = train(
        fresh(nn.Sequential(*_layers()), 0), load_data("digits:train"), Adversarial(Linf("0.15"), steps=4), trainer
    ).net
    return net.eval()


def _layers() -> list[nn.Module]:
    first, second = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 24, 3, stride=2, padding=1)
    return [first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(384, 48), nn.ReLU(), nn.Linear(48, 10)]


SINGLE: dict[str, Callable[[], nn.Module]] = {
    "rounding": lambda: defended([("input", rounding(3))]),
    "thermometer": lambda: defended([("input", thermometer(4))]),
    "spectrum": lambda: defended([("input", spectrum(0.25))]),
    "resizing": lambda: defended([("input", resizing(0.75))]),
    "loud": lambda: defended([("output", loud(100.0))]),
    "winners": lambda: defended([("hidden", winners(0.2))]),
}


def defended(parts: list[tuple[str, Callable[[Tensor], Tensor]]], names: random.Random | None = None) -> nn.Module:
    """The network with functions put at its input (in order), behind a ReLU, or at its output."""
    names = names or random.Random(0)
    layers = list(network())
    at = [i + 1 for i, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
    before, after = [], []
    inner: dict[int, list[nn.Module]] = {}
    for place, function in parts:
        part = module_of(function, _word(names))
        if place == "hidden":
            inner.setdefault(names.choice(at), []).append(part)
        else:
            (before if place == "input" else after).append(part)
    body = [m for i, layer in enumerate(layers) for m in (*inner.get(i, []), layer)]
    return _hidden([*before, *body, *after], names).eval()


def composed(seed: int) -> nn.Module:
    """Two or three defences, drawn from a seed."""
    draw = random.Random(f"composition-{seed}")
    kinds = [
        ("input", lambda: (rounding if draw.random() < 0.5 else thermometer)(draw.choice((2, 3, 4, 6)))),
        ("input", lambda: spectrum(draw.uniform(0.1, 0.3))),
        ("input", lambda: resizing(draw.uniform(0.75, 0.9), draw.choice((5, 8)))),
        ("output", lambda: loud(10 ** draw.uniform(1.5, 4))),
        ("hidden", lambda: winners(draw.uniform(0.15, 0.35))),
    ]
    chosen = draw.sample(kinds, draw.choice((2, 3)))
    return defended([(place, make()) for place, make in chosen], draw)


def _word(draw: random.Random) -> str:
    return "".join(draw.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(draw.randint(5, 9)))


def _hidden(layers: list[nn.Module], draw: random.Random) -> nn.Module:
    """The layers one after another, in nested blocks with random names."""

    def block(parts: list[nn.Module]) -> nn.Module:
        names = [_word(draw) + str(i) for i in range(len(parts))]

        def forward(self: nn.Module, x: Tensor) -> Tensor:
            for name in names:
                x = getattr(self, name)(x)
            return x

        made = type(_word(draw), (nn.Module,), {"forward": forward})()
        for name, part in zip(names, parts, strict=True):
            setattr(made, name, part)
        return made

    while len(layers) > 4:
        at, size = draw.randrange(len(layers) - 2), draw.randint(2, 3)
        layers = [*layers[:at], block(layers[at : at + size]), *layers[at + size :]]
    return block(layers)


def naive_pgd(net: nn.Module, x: Tensor, y: Tensor, epsilon: float, steps: int = 20) -> Tensor:
    """(n,) who still stands after textbook PGD on the cross-entropy: the last iterate, one look."""
    z = x.clone()
    for _ in range(steps):
        z.requires_grad_()
        loss = functional.cross_entropy(net(z), y, reduction="sum")
        (g,) = torch.autograd.grad(loss, z, allow_unused=True) if loss.requires_grad else (None,)
        z = z.detach() if g is None else z.detach() + 2.5 * epsilon / steps * g.sign()
        z = (x + (z - x).clamp(-epsilon, epsilon)).clamp(0, 1)
    with torch.no_grad():
        return net(z).argmax(1) == y
