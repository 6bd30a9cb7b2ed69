"""The fold and the margin: the laws that everything else leans on."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saddlepoint.core.errors import InputError, InputOutsideDomain
from saddlepoint.geometry import Box, Linf
from saddlepoint.spec import (
    Access,
    Atom,
    Evidence,
    Method,
    Model,
    Property,
    Subject,
    Targeted,
    Threat,
    Untargeted,
    Verdict,
    fold,
    margin,
    margin_matrix,
    margin_property,
)

SUBJECT = Subject("model", "7", 3, "content")


def row(side="upper", value=1.0, method="pgd", status="checked", **more):
    return Evidence("margin", side, value, SUBJECT, "{}", Method(method), status=status, **more)


rows = st.lists(
    st.builds(
        row,
        st.sampled_from(["lower", "upper"]),
        st.sampled_from([-2.0, -0.5, 0.0, 0.5, 2.0]),
        st.sampled_from(["clean", "pgd", "crown"]),
        st.sampled_from(["checked", "claimed", "refuted"]),
    ),
    max_size=8,
)


@given(rows, rows, st.randoms())
def test_fold_is_commutative_associative_and_idempotent(a, b, shuffle):
    union = a + b
    mixed = union + a
    shuffle.shuffle(mixed)
    first, second = fold(union), fold(mixed)
    assert (first.verdict, first.lower, first.upper) == (second.verdict, second.lower, second.upper)


@given(rows)
def test_only_checked_rows_count(evidence):
    assert fold(evidence) == fold([r for r in evidence if r.status == "checked"])


@given(rows, rows)
def test_more_evidence_only_tightens(a, b):
    before, after = fold(a), fold(a + b)
    if before.lower:
        assert after.lower is not None
        assert after.lower.value >= before.lower.value
    if before.upper:
        assert after.upper is not None
        assert after.upper.value <= before.upper.value


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [
        ([], Verdict.NOT_RUN),
        ([row(value=0.3, method="clean")], Verdict.OPEN),
        ([row(value=0.0, method="clean")], Verdict.MISCLASSIFIED),  # a tie violates
        ([row(value=0.0)], Verdict.BROKEN),
        ([row("lower", 1e-9), row(value=0.3, method="clean")], Verdict.CERTIFIED),
        ([row("lower", 1e-9)], Verdict.OPEN),  # nobody saw the deployed model answer at x0
        ([row("lower", 0.0)], Verdict.OPEN),
        ([row("lower", 0.2), row(value=0.1)], Verdict.CONTRADICTION),
        ([row("lower", 0.2, status="claimed"), row(value=-0.1)], Verdict.BROKEN),
        ([row("lower", 0.2, status="refuted")], Verdict.NOT_RUN),
    ],
)
def test_verdicts(evidence, verdict):
    assert fold(evidence).verdict is verdict


def test_a_crash_is_never_robust_and_never_hides_what_is_known():
    assert fold([], failed=True).verdict is Verdict.ERROR
    assert fold([row(value=0.3)], failed=True).verdict is Verdict.ERROR
    assert fold([row(value=-0.3)], failed=True).verdict is Verdict.BROKEN
    clean = row(value=0.4, method="clean")
    assert fold([row("lower", 0.3), clean], failed=True).verdict is Verdict.CERTIFIED
    assert fold([row("lower", 0.3)], failed=True).verdict is Verdict.ERROR  # e.g. logits that overflow in float32


def test_numerical_tie_is_open_and_marked():
    lower = row("lower", 1e-8, arithmetic="outward")
    broken = row(value=-1e-8, details='{"margin_f64_upper":2e-8}')
    tie = fold([lower, broken])
    assert (tie.verdict, tie.tie) == (Verdict.OPEN, True)
    assert fold([lower, replace(broken, details='{"margin_f64_upper":-1e-9}')]).verdict is Verdict.CONTRADICTION
    near = '{"margin_f64_upper":0.3000001}'
    same_side = fold([row("lower", 0.3), row(value=0.3 - 1e-8, details=near, method="clean")])
    assert (same_side.verdict, same_side.tie) == (Verdict.CERTIFIED, True)


def test_a_tie_never_hides_a_contradiction():
    lower, tie = row("lower", 1.0), row(value=0.5, details='{"margin_f64_upper":1.1}')
    real = row(value=0.6, details='{"margin_f64_upper":0.6}', method="apgd")
    assert fold([lower, real]).verdict is fold([lower, tie, real]).verdict is Verdict.CONTRADICTION


def test_failure_probabilities_add_up():
    bracket = fold([row("lower", 0.1, failure_probability=0.001), row(value=0.5, failure_probability=0.002)])
    assert bracket.failure_probability == pytest.approx(0.003)


def test_every_row_that_could_have_decided_counts_towards_the_failure_probability():
    """The best of ten tries at level 0.01 fails with probability up to 0.1, not 0.01; a repeated row is one try."""
    tries = [row(value=0.1 * i, method=f"m{i}", failure_probability=0.01) for i in range(10)]
    assert fold(tries).failure_probability == pytest.approx(0.1)
    assert fold(tries + tries).failure_probability == pytest.approx(0.1)
    refuted = replace(tries[0], status="refuted")
    assert fold([refuted, *tries[1:]]).failure_probability == pytest.approx(0.09)


def test_nan_is_no_evidence():
    with pytest.raises(InputError, match="NaN"):
        row(value=float("nan"))


def test_key_ignores_cost_and_status_only():
    base = row()
    assert base.key == row(status="claimed").key
    assert len({base.key, row(value=2.0).key, row(method="apgd").key, row("lower").key, row(proof="x").key}) == 5


@given(st.integers(2, 6), st.integers(0, 1000))
def test_margin_is_the_minimum_of_its_rows(classes, seed):
    random.seed(seed)
    z = torch.tensor([[random.gauss(0, 3) for _ in range(classes)] for _ in range(5)])
    y = torch.tensor([random.randrange(classes) for _ in range(5)])
    pairs = torch.einsum("bmk,bk->bm", margin_matrix(y, classes), z).amin(1)
    torch.testing.assert_close(margin(z, y), pairs)
    for i in range(5):
        value = margin_property(int(y[i]), classes)(z[i : i + 1, :0], z[i : i + 1])
        torch.testing.assert_close(value[0], pairs[i])


def test_trap_05_nonfinite_logits_have_no_margin():
    z = torch.tensor([[float("nan"), 1.0], [float("inf"), 0.0], [float("-inf"), 0.0], [1.0, 0.0]])
    y = torch.zeros(4, dtype=torch.long)
    assert margin(z, y).isnan().tolist() == [True, True, True, False]


def test_targeted_goal():
    z, y = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]]), torch.tensor([0, 1])
    assert Targeted(1).margin(z, y).tolist() == [2.0, float("inf")]  # a sample of the target class is not in question
    with pytest.raises(InputError):
        Targeted(3).margin(z, y)


def test_property_is_a_conjunction_of_disjunctions():
    x, z = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, 2.0]])
    both = Property(((Atom(z=(1.0, 0.0)), Atom(z=(0.0, -1.0))), (Atom(x=(0.0, 1.0), b=2.0),)))
    assert float(both(x, z)) == 0.5  # min(max(0.5, −2), 1)
    assert both.digest != Property(((Atom(z=(1.0, 0.0)),),)).digest
    with pytest.raises(InputError):
        Property(())
    with pytest.raises(InputError, match="weights on z"):
        Property(((Atom(z=(1.0, 0.0, 0.0)),),))(x, z)


def test_threats_have_one_text():
    box = Box(0, 1)
    assert Threat(Linf("8/255")).within(box).canonical() == Threat(Linf("16/510", box)).canonical()
    texts = {Threat(Linf("0.1")), Threat(Linf("0.1"), goal=Targeted(1)), Threat(Linf("0.1"), access=Access.SCORES)}
    assert len({t.canonical() for t in texts}) == 3
    assert Untargeted().canonical() == {"kind": "untargeted"}


def test_access_is_nested():
    assert Access.LABEL in Access.SCORES
    assert Access.SCORES in Access.GRADIENT
    assert Access.GRADIENT in Access.GRAPH
    assert Access.GRADIENT not in Access.SCORES


def test_outside_the_domain_is_said_with_the_remedy():
    model = Model(lambda x: x, Box(0, 1), 2, Access.GRAPH, "d", (2,))
    model.require_inside(torch.tensor([[0.0, 1.0]]))
    with pytest.raises(InputOutsideDomain, match=r"spans \[-2.1[0-9]*, 0\].*mean="):
        model.require_inside(torch.tensor([[0.0, -2.12]]))
