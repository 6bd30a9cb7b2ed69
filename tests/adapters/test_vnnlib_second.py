"""VNN-LIB 2.0 through the `vnnlib` package: the same meaning as the 1.0 text beside it, and what is refused."""

import sys

import pytest

from saddlepoint.adapters.vnnlib import parse
from saddlepoint.core.errors import InputError, MissingExtra

HEAD = "(vnnlib-version <2.0>)\n(declare-network f (declare-input A float32 [1,2]) (declare-output B float32 [2]))\n"
BOX = "(assert (and (>= A[0,0] 0.1) (<= A[0,0] 1.0)))\n(assert (and (>= A[0,1] -1.5) (<= A[0,1] 1.0)))\n"
ONE = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)"
SAME = "(assert (and (>= X_0 0.1) (<= X_0 1.0)))(assert (and (>= X_1 -1.5) (<= X_1 1.0)))"


def test_without_the_package_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "vnnlib", None)
    with pytest.raises(MissingExtra, match=r"saddlepoint\[vnnlib\]"):
        parse("; a comment\n\n " + HEAD + BOX)


def test_a_version_below_other_commands_is_no_second_version():
    with pytest.raises(InputError, match="line 1: the command 'vnnlib-version' is not supported"):
        parse(ONE + HEAD)


@pytest.fixture
def package():
    return pytest.importorskip("vnnlib")


@pytest.mark.parametrize(
    ("second", "first"),
    [
        ("(<= B[0] 0.3)", "(<= Y_0 0.3)"),
        ("(or (<= B[0] -3.0) (>= B[1] 0.0))", "(or (<= Y_0 -3.0) (>= Y_1 0.0))"),
        ("(> (+ (* 2.5 B[0]) B[1] (- A[0,1])) -3.0)", "(> (+ (* 2.5 Y_0) Y_1 (- X_1)) -3.0)"),
        ("(< B[0] (- B[1] 0.5 0.25))", "(< Y_0 (- Y_1 0.5 0.25))"),
        ("(== B[0] 1.5)", "(= Y_0 1.5)"),
        ("(!= B[0] 1.5)", "(or (< Y_0 1.5) (> Y_0 1.5))"),
        (
            "(and (<= B[0] 0.1) (or (<= A[0,0] 0.5) (>= A[0,0] 0.7)))",
            "(and (<= Y_0 0.1) (or (<= X_0 0.5) (>= X_0 0.7)))",
        ),
    ],
)
def test_both_versions_mean_the_same(package, second, first):
    new, old = parse(HEAD + BOX + f"(assert {second})"), parse(ONE + SAME + f"(assert {first})")
    assert (new.inputs, new.outputs) == (old.inputs, old.outputs) == (2, 2)
    assert [q.digest for q in new.queries] == [q.digest for q in old.queries]
    for ours, theirs in zip(new.queries, old.queries, strict=True):
        for a, b in zip(ours.witness_box, theirs.witness_box, strict=True):
            assert a.tolist() == b.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + BOX + "(assert (<= (* B[0] B[1]) 1.0))", "line 5: a product of variables"),
        (HEAD + "(assert (<= B[0] 1.0))", "X_0 has no lower limit"),
        (HEAD + BOX + "(assert (<= C[0] 1.0))", "not VNN-LIB 2.0"),
        (HEAD + BOX + "(assert (<= B[2] 1.0))", "2"),
        (HEAD + BOX + "(assert (<= B[0]", "not VNN-LIB 2.0"),
        (HEAD.replace("float32 [2]", "int32 [2]") + "(assert (<= B[0] 1))", "I32"),
        (HEAD.replace("(declare-output", "(declare-input C float32 [1]) (declare-output") + BOX, "2 inputs"),
    ],
)
def test_what_is_not_supported_is_refused(package, text, message):
    with pytest.raises(InputError, match=message):
        parse(text)
