"""BPDA: values stay, another backward goes through; what stops a gradient is found by what it does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from random_nets import SHAPE, Noise, behind, samples, trained
from saddlepoint.adapters import from_callable, from_torch, remedied, suspects, with_backward, with_straight_through
from saddlepoint.adapters.remedies import gain
from saddlepoint.attack import PGD, Rows
from saddlepoint.attack.engine import run
from saddlepoint.core.errors import InputError, NotAvailable, UnsupportedModel
from saddlepoint.geometry import Linf
from saddlepoint.spec import Access


class Zeros(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return torch.zeros_like(slope)


class Raises(Zeros):
    @staticmethod
    def backward(ctx, slope):
        raise RuntimeError("no way back")


class NaNs(Zeros):
    @staticmethod
    def backward(ctx, slope):
        return slope * torch.nan


def module(function, name="M"):
    return type(name, (nn.Module,), {"forward": lambda self, x: function(x)})()


def cosines(n=8):
    k = torch.arange(float(n))
    basis = torch.cos(torch.pi * (k[None] + 0.5) * k[:, None] / n) * (2 / n) ** 0.5
    basis[0] /= 2**0.5
    return basis


def jpeg(x):
    basis = cosines()
    return basis.T @ (torch.round(basis @ x @ basis.T / 0.3) * 0.3) @ basis


def winners(x):
    least = x.flatten(1).topk(12, 1).values[:, -1]
    return x * (x >= least[:, None, None, None]).to(x.dtype)


def detached(x):
    return x.detach() * 1.0


BROKEN = {
    "rounding": lambda x: torch.round(3 * x) / 3,
    "8 bits": lambda x: ((x * 255).to(torch.uint8) // 32 * 32).float() / 255,
    "thermometer": lambda x: (x[..., None] > (torch.arange(4) + 0.5) / 4).float().mean(-1),
    "jpeg": jpeg,
    "winners": winners,
    "zeros": Zeros.apply,
    "raises": Raises.apply,
    "nan": NaNs.apply,
    "detached": detached,
    "nearest level": lambda x: torch.linspace(0, 1, 5)[(x[..., None] - torch.linspace(0, 1, 5)).abs().argmin(-1)],
}
HONEST = {
    "identity": nn.Identity,
    "times 100": lambda: module(lambda x: 100 * x),
    "dropout": nn.Dropout,
    "noise": lambda: Noise(0.3),
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "clip": lambda: nn.Hardtanh(0.2, 0.6),
    "softmax": lambda: nn.Softmax(-1),
    "layer norm": lambda: nn.LayerNorm(8),
    "maximum over ties": lambda: nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.ReLU6()),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_stops_the_gradient_is_found_by_what_it_does(kind):
    model = behind(nn.Sequential(module(BROKEN[kind], "Plain")))
    found = suspects(model, samples(32)[0])
    assert [s.path for s in found] == ["0.0"]
    assert found[0].same_shape
    assert found[0].suggestion == ("identity" if kind in ("zeros", "raises", "nan") else "straight-through")
    assert found[0].zero == (0.0 if kind == "winners" else 1.0)


@pytest.mark.parametrize("kind", HONEST)
def test_no_honest_module_is_suspected(kind):
    assert suspects(behind(HONEST[kind]()), samples(32)[0]) == []


def test_rounding_in_a_composite_is_its_own_and_not_its_layers():
    class Coarse(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return torch.round(4 * self.layer(x)) / 4

    assert [s.path for s in suspects(behind(Coarse()), samples(32)[0])] == ["0"]


@pytest.mark.parametrize("kind", BROKEN)
def test_the_values_are_kept_bit_for_bit_and_the_gradient_is_the_replacements(kind):
    model = behind(module(BROKEN[kind]))
    sloped = with_backward(model, {"0": "identity"})
    x = samples(16)[0].requires_grad_()
    z = sloped.slopes(x)
    assert torch.equal(z, sloped.fn(x.detach()))
    assert torch.equal(z, model.fn(x.detach()))
    (g,) = torch.autograd.grad(z[:, 0].sum(), x)
    seen = module(BROKEN[kind])(x.detach()).detach().requires_grad_()
    (want,) = torch.autograd.grad(trained()(seen)[:, 0].sum(), seen)
    torch.testing.assert_close(g, want)
    assert sloped.digest == model.digest
    assert Access.GRADIENT in sloped.access


def test_a_replacement_is_any_function_with_the_modules_shape():
    """f(x) = w · 0.5 x behind a rounded module: the gradient is that of the function given."""
    sloped = with_backward(behind(module(BROKEN["rounding"])), {"0": lambda x: 0.5 * x})
    straight = with_backward(behind(module(BROKEN["rounding"])), {"0": "identity"})
    x = samples(4)[0].requires_grad_()
    (half,) = torch.autograd.grad(sloped.slopes(x).square().sum(), x)
    (full,) = torch.autograd.grad(straight.slopes(x).square().sum(), x)
    torch.testing.assert_close(half, full / 2)


def test_pgd_is_blind_to_rounding_and_sees_through_it_with_another_backward():
    model = behind(module(BROKEN["rounding"]))
    assert model.access is Access.SCORES  # no gradient, said so
    x, y, ids = samples(100)
    rows, attack = Rows(x, y, ids, Linf("0.25")), PGD(steps=20)
    naive = run(replace(model, access=Access.GRADIENT), attack, rows).success.float().mean()
    assert 1 - naive >= 0.5
    for sloped in (with_backward(model, {"0": "identity"}), with_straight_through(model), remedied(model, x, y)):
        assert 1 - run(sloped, attack, rows).success.float().mean() <= 0.1


def test_the_remedy_is_what_lowers_margins_and_a_sound_model_is_left_alone():
    x, y, _ = samples(64)
    sound = behind(nn.Identity())
    assert remedied(sound, x, y) is sound
    blind = behind(module(winners))
    assert gain(remedied(blind, x, y), x, y) >= gain(blind, x, y)
    both = behind(nn.Sequential(module(Zeros.apply), module(BROKEN["8 bits"])))
    assert gain(remedied(both, x, y), x, y) > 1


def test_errors_say_what_and_the_remedy():
    model = behind(module(BROKEN["rounding"]))
    with pytest.raises(InputError, match=r"no module 'conv'.*It has 0, 1"):
        with_backward(model, {"conv": "identity"})
    wide = nn.Sequential(module(lambda x: (x.repeat(1, 2, 1, 1) > 0.5).float()), nn.Flatten(), nn.Linear(128, 3))
    with pytest.raises(InputError, match=r"\(12, 2, 8, 8\).*identity \(12, 1, 8, 8\).*own output shape"):
        with_backward(from_torch(wide.eval(), (0, 1), shape=SHAPE), {"0": "identity"})
    twice = behind(nn.Sequential(module(Zeros.apply), module(Zeros.apply)))
    with pytest.raises(UnsupportedModel, match="Another module still stops the gradient"):
        with_backward(twice, {"0.0": "identity"})
    with pytest.raises(NotAvailable, match="calls no rounding"):
        with_straight_through(behind(nn.Identity()))
    plain = from_callable(lambda x: x.flatten(1)[:, :3], (0, 1), shape=SHAPE)
    with pytest.raises(NotAvailable, match=r"no copy of an nn\.Module"):
        with_backward(plain, {"": "identity"})


def test_a_captured_network_with_a_softmax_is_still_known_by_its_modules():
    net = nn.Sequential(*trained(), nn.Softmax(1)).eval()
    model = from_torch(net, (0, 1), shape=SHAPE)
    assert model.access is Access.GRAPH
    assert with_backward(model, {"1": trained()[1]}).access is Access.GRAPH


def test_the_users_network_is_left_alone():
    net = nn.Sequential(module(BROKEN["rounding"]), *trained())
    names = [name for name, _ in net.named_modules()]
    model = from_torch(net.eval(), (0, 1), shape=SHAPE)
    with_backward(model, {"0": "identity"})
    suspects(model, samples(8)[0])
    assert [name for name, _ in net.named_modules()] == names
    assert all(not m._forward_hooks for m in net.modules())
    assert [name for name, _ in model.fn.module.net.named_modules()] == names
