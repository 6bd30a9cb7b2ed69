"""Certified radii: closed forms of affine models, proofs that the checker accepts, and no radius beyond the truth."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bounded_nets as nets
from saddlepoint.bound import CROWN, LP, Interval
from saddlepoint.bound.radius import Settings, certified_radius
from saddlepoint.check.proofs import recheck
from saddlepoint.core.errors import InputError, NotAvailable
from saddlepoint.geometry import L1, L2, Box, Linf

SEEDS = st.integers(0, 2**20)


@pytest.mark.parametrize(("set", "dual"), [(Linf("1"), 1.0), (L2("1"), 2.0), (L1("1"), torch.inf)])
def test_an_affine_model_has_the_radius_margin_over_dual_norm(set, dual):
    draw = nets.seeded(3)
    weight, bias = (torch.randn(*s, generator=draw, dtype=torch.float64) for s in ((2, 5), (2,)))
    x = torch.randn(6, 5, generator=draw, dtype=torch.float64)
    graph = nets.affine(weight, bias)
    sign = torch.sign(graph(x)[:, 0] - graph(x)[:, 1])
    C = sign[:, None, None] * torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
    truth = (C[:, 0] * graph(x)).sum(1) / torch.linalg.vector_norm(weight[0] - weight[1], dual)
    found = certified_radius(CROWN(), graph, set, x, C, Settings(0.1, 100.0, tolerance=1e-4))
    assert bool(found.proven.all())
    assert bool((found.size <= truth + 1e-12).all())
    assert torch.allclose(found.size, truth, rtol=2e-4)
    assert bool((found.failed >= truth - 1e-12).all())
    assert found.calls < 20


@settings(max_examples=3, deadline=None)
@given(seed=SEEDS, kind=st.sampled_from(["linf", "l2"]))
def test_a_proof_at_the_radius_passes_the_checker_and_no_point_inside_breaks_it(seed, kind):
    graph = nets.mlp((4, 8, 6, 3), seed)
    x = torch.rand(3, 4, generator=nets.seeded(seed + 1), dtype=torch.float64)
    set, y = nets.SETS[kind], graph(x).argmax(1)
    C = torch.stack(
        [
            torch.eye(3, dtype=torch.float64)[t] - torch.eye(3, dtype=torch.float64)[[j for j in range(3) if j != t]]
            for t in y.tolist()
        ]
    )
    found = certified_radius(CROWN(), graph, set, x, C, Settings(0.05, 1.0))
    assert found.bounds is not None
    assert bool((found.bounds.lower > 0).all())
    for row, i in enumerate(found.proven.nonzero().flatten().tolist()):
        mine = set.resized(Fraction(float(found.size[i])))
        proof = found.bounds.proof.rows(torch.tensor([row])).tensors
        shown = recheck(graph, mine.canonical(), x[i : i + 1], C[i : i + 1], proof, "crown")
        assert float(shown.amin()) > -1e-9
        z = graph(nets.points(mine, x[i : i + 1], 80, seed)[0])
        assert bool((torch.einsum("mk,pk->pm", C[i], z) > 0).all())


def test_tighter_methods_certify_no_less_and_every_sample_gets_its_own_size():
    graph = nets.mlp((4, 8, 6, 2), 5)
    x = torch.rand(4, 4, generator=nets.seeded(1), dtype=torch.float64)
    sign = torch.sign(graph(x)[:, 0] - graph(x)[:, 1])
    C = sign[:, None, None] * torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
    rough, fine, best = (
        certified_radius(method, graph, Linf("1"), x, C, Settings(0.05, 1.0)).size
        for method in (Interval(), CROWN(), LP())
    )
    assert bool((rough <= fine * 1.02).all())
    assert bool((fine <= best * 1.02).all())
    assert len(best.unique()) == 4
    alone = certified_radius(CROWN(), graph, Linf("1"), x[2:3], C[2:3], Settings(0.05, 1.0)).size
    assert torch.allclose(alone, fine[2:3])


def test_what_is_wrong_at_the_centre_has_no_radius_and_what_never_fails_has_the_largest():
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    graph = nets.affine(weight, torch.zeros(2, dtype=torch.float64))
    x = torch.tensor([[-0.5, 0.0], [0.5, 0.0]], dtype=torch.float64)
    C = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64).expand(2, -1, -1)
    found = certified_radius(CROWN(), graph, Linf("1"), x, C, Settings(0.01, 0.25))
    assert found.proven.tolist() == [False, True]
    assert found.size.tolist() == [0.0, 0.25]
    assert found.failed[1] == torch.inf
    assert found.bounds is not None
    assert len(found.bounds.lower) == 1


def test_a_method_that_answers_nan_proves_nothing():
    weight = torch.full((2, 2), torch.nan, dtype=torch.float64)
    graph = nets.affine(weight, torch.zeros(2, dtype=torch.float64))
    found = certified_radius(
        CROWN(), graph, Linf("1"), torch.zeros(1, 2, dtype=torch.float64),
        torch.tensor([[[1.0, -1.0]]], dtype=torch.float64), Settings(0.1, 1.0, least=1e-3),
    )  # fmt: skip
    assert not bool(found.proven.any())
    assert found.bounds is None


def test_sets_without_a_size_and_settings_without_sense_are_refused():
    graph, x = nets.mlp((2, 3, 2), 0), torch.zeros(1, 2, dtype=torch.float64)
    C = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
    C = C * torch.sign(graph(x)[0, 0] - graph(x)[0, 1])
    with pytest.raises(NotAvailable):
        certified_radius(CROWN(), graph, Box(-1, 1), x, C, Settings(0.1, 1.0))
    for wrong in ((0.0, 1.0), (2.0, 1.0), (0.1, float("inf"))):
        with pytest.raises(InputError):
            Settings(*wrong)
    with pytest.raises(InputError):
        Settings(0.1, 1.0, tolerance=0.0)
