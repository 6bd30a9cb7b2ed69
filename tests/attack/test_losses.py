"""Objectives: closed forms, and what keeps them from saturating."""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.attack.losses import LOSSES, margin, pm


def logits(count: int = 40, classes: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    z = 3 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    y = torch.randint(0, classes, (count,), generator=generator)
    return z, y, (y + 1 + torch.randint(0, classes - 1, (count,), generator=generator)) % classes


def probability_margin(z: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    p = z.softmax(1)
    own = p.gather(1, y[:, None])[:, 0]
    if target is not None:
        return p.gather(1, target[:, None])[:, 0] - own
    return p.scatter(1, y[:, None], -1).amax(1) - own


def test_the_probability_margin_up_to_an_increasing_function() -> None:
    """Values are 2 artanh M; gradients point where those of M point."""
    z, y, t = logits()
    for target in (None, t):
        plain = probability_margin(z, y, target)
        assert torch.allclose(pm(z, y, target), 2 * torch.atanh(plain), rtol=1e-8, atol=1e-10)
        slopes = []
        for loss in (pm, probability_margin):
            point = z.clone().requires_grad_()
            (g,) = torch.autograd.grad(loss(point, y, target).sum(), point)
            slopes.append(g / g.norm(dim=1, keepdim=True))
        assert torch.allclose(*slopes, atol=1e-7)


def test_the_probability_margin_does_not_saturate() -> None:
    """Logits × 1000: M itself is −1 and flat, its log-odds still tell points apart."""
    z, y, t = (v[:8] for v in logits())
    y = z.argmax(1)
    t = (y + 1) % z.shape[1]
    for target in (None, t):
        loud = (1000 * z).requires_grad_()
        value = pm(loud, y, target)
        (g,) = torch.autograd.grad(value.sum(), loud)
        assert bool(value.isfinite().all())
        assert float(g.abs().amax(1).min()) > 0.5
        (flat,) = torch.autograd.grad(probability_margin(loud, y, target).sum(), loud)
        assert float(flat.abs().max()) < 1e-6  # what is avoided
        nearer = pm(loud.detach() * 0.999, y, target)
        assert bool((nearer > value).all())


def test_with_two_classes_the_probability_margin_is_the_margin() -> None:
    z, y, _ = logits(classes=2)
    assert torch.allclose(pm(z, y, None), margin(z, y, None))
    assert torch.allclose(pm(z, y, 1 - y), margin(z, y, 1 - y))


def test_every_loss_is_zero_or_above_exactly_where_the_margin_is_for_pm_and_dlr() -> None:
    z, y, t = logits()
    for name in ("pm", "dlr", "margin"):
        for target in (None, t):
            assert torch.equal(LOSSES[name](z, y, target) > 0, margin(z, y, target) > 0)
