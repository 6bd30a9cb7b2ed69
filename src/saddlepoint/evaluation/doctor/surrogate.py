"""A copy of the model made from its scores alone, to be attacked in its place.

    min over θ of  mean over q of ‖g_θ(q) − z̃(q)‖²,   q = random points of S at twice the size, z̃ = f's scores

z̃ are the scores, centred and divided by their deviation. The copy is local: it has to agree with f near the samples,
where the attack moves, and nowhere else. Papernot et al. 2017, "Practical Black-Box Attacks against Machine Learning".
Cost: QUERIES forwards of the model for each sample; of a random model single draws, which the fit averages.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor
from torch.nn import functional

from saddlepoint.core.errors import NotAvailable
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.evaluation.doctor.case import Case
from saddlepoint.spec import Access, Model

QUERIES = 64  # for each sample
_WIDTH, _STEPS, _BATCH, _RATE = 128, 300, 256, 2e-3


def copy_of(case: Case) -> Model:
    """The copy as a model of its own, of the same domain and classes."""
    points, scores = _asked(case)
    net = _fitted(points.flatten(1), scores, case.effort.seed)
    model = case.model

    def fn(x: Tensor) -> Tensor:
        return net(x.flatten(1).to(points.dtype))

    return Model(
        fn, model.domain, model.classes, Access.GRADIENT, f"copy of {model.digest}", model.shape, name="a copy"
    )


@torch.no_grad()
def _asked(case: Case) -> tuple[Tensor, Tensor]:
    """Queries around the samples, and the model's scores there, standardised."""
    rows = case.rows
    wide = rows.set
    with suppress(NotAvailable):
        wide = rows.set.resized(rows.set.size * 2).within(case.model.domain)
    sampling = case.model.sampling
    points, scores = [], []
    for i in range(QUERIES):
        at = wide.render(rows.x0, wide.sample(rows.x0, case.draws(f"query-{i}"))) if i else rows.x0
        points.append(at)
        scores.append(case.model(at) if sampling is None else sampling.draw(at, i))
    z = torch.cat(scores)
    z = z - z.mean(1, keepdim=True)
    return torch.cat(points), z / z.std().clamp_min(torch.finfo(z.dtype).tiny)


def _fitted(x: Tensor, z: Tensor, seed: int) -> Callable[[Tensor], Tensor]:
    """A two-layer network fitted by Adam; weights and batches are drawn from the seed."""

    def drawn(name: str, *shape: int) -> Tensor:
        weight = Draws(row_keys(seed, [name], "doctor-copy")).normal(shape, dtype=x.dtype)[0]
        return (weight * (2 / shape[-1]) ** 0.5).to(x.device).requires_grad_()

    weights = [
        drawn("first", _WIDTH, x.shape[1]),
        torch.zeros(_WIDTH, dtype=x.dtype, device=x.device, requires_grad=True),
        drawn("second", z.shape[1], _WIDTH),
        torch.zeros(z.shape[1], dtype=x.dtype, device=x.device, requires_grad=True),
    ]
    middle = x.mean(0)

    def net(v: Tensor) -> Tensor:
        hidden = torch.relu(functional.linear(v - middle, weights[0], weights[1]))
        return functional.linear(hidden, weights[2], weights[3])

    optimiser = torch.optim.Adam(weights, lr=_RATE)
    order = Draws(row_keys(seed, ["order"], "doctor-copy")).integers((_STEPS, _BATCH), len(x))[0].to(x.device)
    for chosen in order:
        with torch.enable_grad():
            loss = functional.mse_loss(net(x[chosen]), z[chosen])
            gradients = torch.autograd.grad(loss, weights)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        optimiser.step()
    for weight in weights:
        weight.requires_grad_(False)
    return net
