"""Affine models, float64, the box active: attacks reach the closed form  m* = c − max over S of <−w, z>."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attack_models import affine
from hypothesis import given, settings
from hypothesis import strategies as st

from saddlepoint.attack import APGD, PGD, APGDTargeted, Attack, EngineSettings, run
from saddlepoint.geometry import L1, L2, Linf, PerturbationSet

SETS: dict[str, PerturbationSet] = {"linf": Linf("1/5"), "l2": L2("7/10"), "l1": L1("9/5")}
ATTACKS: dict[str, Attack[Any]] = {
    "pgd-ce": PGD(steps=20),
    "pgd-margin": PGD(steps=10, loss="margin", random_start=False),
    "apgd-ce": APGD(steps=30, polish=True),
    "apgd-dlr": APGD(steps=30, loss="dlr", polish=True),
}
PLAIN = {"linf": 1e-6, "l2": 1e-6}  # sets where Auto-PGD's own steps arrive, without a vertex


def gap(attack: Attack[Any], threat: PerturbationSet, seed: int, classes: int) -> float:
    """Largest |found − m*| / max(|m*|, 1e-3) over the samples."""
    case = affine(seed, classes)
    found = run(case.model, attack, case.rows(threat), EngineSettings(drop=False, seed=seed))
    best = case.worst(threat.within(case.model.domain))
    assert bool((found.best_margin >= best - 1e-9).all())  # a closed form below what is found would be no bound
    return float(((found.best_margin - best).abs() / best.abs().clamp_min(1e-3)).max())


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
@pytest.mark.parametrize("threat", SETS.values(), ids=SETS.keys())
@settings(max_examples=2)
@given(seed=st.integers(0, 10_000))
def test_two_classes_reach_the_closed_form(attack: Attack[Any], threat: PerturbationSet, seed: int) -> None:
    assert gap(attack, threat, seed, classes=2) <= 1e-6


@pytest.mark.parametrize("threat", SETS.values(), ids=SETS.keys())
@settings(max_examples=2)
@given(seed=st.integers(0, 10_000), classes=st.integers(3, 6))
def test_one_target_per_class_reaches_the_closed_form(threat: PerturbationSet, seed: int, classes: int) -> None:
    """Each rival class is a linear problem of its own; the smallest of their optima is m*."""
    attack = APGDTargeted(steps=15, loss="margin", polish=True)
    assert gap(attack, threat, seed, classes) <= 1e-6


@pytest.mark.parametrize("name", PLAIN)
@settings(max_examples=2)
@given(seed=st.integers(0, 10_000))
def test_auto_pgd_arrives_without_a_vertex(name: str, seed: int) -> None:
    assert gap(APGD(steps=100), SETS[name], seed, classes=2) <= PLAIN[name]


@pytest.mark.parametrize("features", [60, 200])
def test_sparse_auto_pgd_comes_close_without_a_vertex(features: int) -> None:
    """ℓ1 steps move the k best coordinates by the same amount; the optimum fills them one after the other."""
    case, threat = affine(1, 2, features), L1("4")
    best = case.worst(threat.within(case.model.domain))
    top = (case.x @ case.weight.T + case.constant).topk(2, dim=1).values
    clean = top[:, 0] - top[:, 1]
    for large in (False, True):
        found = run(case.model, APGD(steps=60, large_radii=large), case.rows(threat), EngineSettings(drop=False))
        assert float(((found.best_margin - best) / (clean - best)).max()) <= 0.05
    exact = run(case.model, APGD(steps=60, polish=True), case.rows(threat), EngineSettings(drop=False))
    assert torch.allclose(exact.best_margin, best, rtol=1e-9)


def test_pgd_needs_its_vertex_in_l2_and_l1() -> None:
    """What `polish` is for: a fixed step comes close and no closer."""
    for name in ("l2", "l1"):
        assert gap(PGD(steps=20, polish=False), SETS[name], 3, classes=2) > 1e-4
        assert gap(PGD(steps=20), SETS[name], 3, classes=2) <= 1e-6


@settings(max_examples=2)
@given(seed=st.integers(0, 10_000))
def test_per_sample_sizes(seed: int) -> None:
    """Every row has its own ε, through batches of two and back."""
    case = affine(seed, 2)
    sizes = torch.linspace(0.0, 0.5, len(case.x), dtype=torch.float64)
    for threat in (Linf(sizes), L2(sizes), L1(sizes)):
        found = run(case.model, PGD(steps=8), case.rows(threat), EngineSettings(batch=4))
        whole = run(case.model, PGD(steps=8), case.rows(threat), EngineSettings(drop=False))
        best = case.worst(threat.within(case.model.domain))
        assert torch.allclose(whole.best_margin, best, rtol=1e-6, atol=1e-9)
        assert torch.equal(found.success, best <= 0)
