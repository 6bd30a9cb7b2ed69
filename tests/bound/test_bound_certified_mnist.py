"""The published network that certifies: Wong & Kolter 2018, MNIST, ℓ∞ 0.1, provable error ≤ 5.8 %."""

from __future__ import annotations

import torch

import bounded_nets as nets
from saddlepoint.bound.crown import CROWN
from saddlepoint.check.proofs import recheck
from saddlepoint.geometry import Linf


def test_certified_fraction_of_the_first_images_claimed_and_rechecked():
    count = 64
    graph, x, y, C = nets.wk17(count)
    set = Linf("0.1", nets.UNIT)
    found = CROWN()(graph, set, x, C)
    certified = found.lower.amin(1) > 0
    assert int(certified.sum()) >= 0.93 * count
    checked = recheck(graph, set.canonical(), x, C, found.proof.tensors, "crown")
    assert torch.equal(checked.amin(1) > 0, certified)
    assert float((checked - found.lower).abs().max()) < 1e-4
    # certified samples are right, and stay so at the corner that most lowers the margin's first order
    assert bool((graph(x)[certified].argmax(1) == y[certified]).all())
    worst = set.lmo(x, -torch.func.grad(lambda v: torch.einsum("bmk,bk->bm", C, graph(v)).amin(1).sum())(x))
    margins = torch.einsum("bmk,bk->bm", C, graph(worst))
    assert bool((margins >= checked - 1e-4).all())
