"""The VNN-LIB reader: what files mean, by an evaluator that shares nothing with it; what is refused, with its line."""

from __future__ import annotations

import gzip
import random
import re
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paths import SHARED
from saddlepoint.adapters.vnnlib import parse, read_vnnlib
from saddlepoint.check.counterexample import violated_exactly
from saddlepoint.core.errors import InputError, RefusedFile, SaddlepointError

ONE = "(declare-const X_0 Real)(declare-const Y_0 Real)"
TWO = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)"
UNIT = "(assert (<= X_0 1))(assert (>= X_0 0))"
SQUARE = UNIT + "(assert (<= X_1 1))(assert (>= X_1 0))"


# --- an evaluator of the text itself: recursive, rational, one assertion after the other ---
def trees(text: str) -> list:
    """Nested lists of words."""
    words = re.findall(r"[()]|[^\s()]+", re.sub(r";.*", "", text))
    stack: list[list] = [[]]
    for word in words:
        if word == "(":
            stack.append([])
        elif word == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(word)
    return stack[0]


def value(tree, point: dict[str, Fraction]):
    """Truth or number of a tree at a point."""
    if isinstance(tree, str):
        return point[tree] if tree[0] in "XY" else Fraction(tree)
    head, parts = tree[0], [value(t, point) for t in tree[1:]]
    if head in ("and", "or"):
        return all(parts) if head == "and" else any(parts)
    if head == "+":
        return sum(parts)
    if head == "-":
        return -parts[0] if len(parts) == 1 else parts[0] - sum(parts[1:])
    if head == "*":
        product = Fraction(1)
        for part in parts:
            product *= part
        return product
    order = {
        "<=": Fraction.__le__,
        ">=": Fraction.__ge__,
        "<": Fraction.__lt__,
        ">": Fraction.__gt__,
        "=": Fraction.__eq__,
    }
    return all(order[head](a, b) for a, b in pairwise(parts))


def reached(forest: list, x: list[float] | list[Fraction], z: list[float]) -> bool:
    """Whether all assertions hold at (x, z)."""
    point = {f"X_{i}": Fraction(v) for i, v in enumerate(x)} | {f"Y_{i}": Fraction(v) for i, v in enumerate(z)}
    return all(value(form[1], point) for form in forest if form[0] == "assert")


def answers(specification, x: list[float], z: list[float]) -> tuple[bool, bool]:
    """(admitted as a witness, within what a proof covers)."""
    row = torch.tensor([x], dtype=torch.float64)
    broken = [violated_exactly(q.property, x, z) for q in specification.queries]
    strict = any(b and bool(q.admits(row)[0]) for q, b in zip(specification.queries, broken, strict=True))
    boxes = [bool(((row >= q.lower) & (row <= q.upper)).all()) for q in specification.queries]
    return strict, any(b and inside for b, inside in zip(broken, boxes, strict=True))


def sandwiched(text: str, x: list[float], z: list[float]) -> None:
    """witness admitted  ⟹  the file holds there  ⟹  a proof would have had to exclude it.

    Where no float64 lies between two limits, the witness is the float64 nearest to them: the file then holds at the
    decimal that this float64 is written as.
    """
    specification = parse(text)
    witness, covered = answers(specification, x, z)
    forest = trees(text)
    truth = reached(forest, x, z)
    ends = [q.witness_box for q in specification.queries]
    pinned = [any(bool(low[i] == high[i]) for low, high in ends) for i in range(len(x))]
    meant = [Fraction(repr(v)) if fixed else Fraction(v) for v, fixed in zip(x, pinned, strict=True)]
    assert not witness or truth or reached(forest, meant, z)
    assert not truth or covered


# --- random specifications ---
numerals = st.sampled_from(["0", "1", "-1", "0.5", "0.1", "-0.3", "2.0", "1e-1", "0.25"])
variables = st.sampled_from(["X_0", "X_1", "Y_0", "Y_1"])
scaled = st.builds("(* {} {})".format, numerals, variables)
sums = st.builds("({} {} {})".format, st.sampled_from("+-"), variables | scaled, variables | numerals | scaled)
terms = variables | numerals | scaled | sums
comparisons = st.builds("({} {} {})".format, st.sampled_from(["<=", ">=", "<", ">", "="]), terms, terms)


def several(parts):
    joined = st.lists(parts, min_size=1, max_size=3).map(" ".join)
    return st.builds("({} {})".format, st.sampled_from(["and", "or"]), joined)


formulas = st.recursive(comparisons, several, max_leaves=6)
specifications = st.lists(formulas, min_size=1, max_size=3).map(
    lambda found: TWO + SQUARE + "".join(f"(assert {f})" for f in found)
)
coordinates = st.sampled_from([0.0, 1.0, 0.5, 0.25, 0.1, 0.30000000000000004, 0.3, -0.1, -0.0, 1e-300])
outputs = st.sampled_from([0.0, 1.0, -1.0, 0.5, 0.1, -0.3, 0.2, 2.0])


@settings(max_examples=150, deadline=None)
@given(specifications, st.lists(coordinates, min_size=2, max_size=2), st.lists(outputs, min_size=2, max_size=2))
def test_random_formulas_mean_what_a_slow_evaluator_says(text, x, z):
    sandwiched(text, x, z)


@settings(max_examples=150, deadline=None)
@given(st.text("()<>=+-*/XY_01. ae;\n", max_size=60) | st.lists(terms | formulas, max_size=4).map(" ".join))
def test_any_text_is_read_or_refused_with_a_typed_error(text):
    for whole in (text, TWO + SQUARE + text, TWO + SQUARE + "(assert " + text + ")"):
        with suppress(SaddlepointError):
            parse(whole)


@pytest.mark.slow
@settings(max_examples=30_000, deadline=None)
@given(st.text('()<>=+-*/XY_01. ae;\n|"', max_size=200) | st.lists(terms | formulas, max_size=6).map(" ".join))
def test_five_minutes_of_texts_are_read_or_refused(text):
    for whole in (text, TWO + SQUARE + "(assert " + text + ")", "(vnnlib-version <2.0>)" + text):
        with suppress(SaddlepointError):
            parse(whole)


# --- the 279 files ---
needs_files = pytest.mark.skipif(
    not (SHARED / "vnnlib").is_dir(), reason="the measuring material is not beside the project"
)
FAMILIES = {  # files, inputs, outputs, most clauses
    "acasxu": (5, {5}, {5}, 4),
    "cgan": (2, {5}, {1}, 2),
    "cifar10_resnet": (8, {3072}, {10}, 9),
    "collins_rul_cnn": (20, {400, 800}, {1}, 2),
    "dist_shift": (18, {792}, {10}, 1),
    "eran": (15, {784}, {10}, 9),
    "mnist_fc": (28, {784}, {10}, 9),
    "oval21": (14, {3072}, {10}, 9),
    "rl_benchmarks": (36, {4, 8}, {2, 4, 8}, 15),
    "safenlp": (38, {30}, {2}, 1),
    "sri_resnet_a": (12, {3072}, {10}, 9),
    "tllverifybench": (6, {2}, {1}, 1),
    "vit": (7, {3072}, {10}, 9),
}


@needs_files
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_files_of_the_benchmarks_are_read(family, every):
    files = sorted((SHARED / "vnnlib" / family / "vnnlib").iterdir())
    count, inputs, classes, clauses = FAMILIES[family]
    assert len(files) == count
    read = [read_vnnlib(file) for file in (files if every else files[:3])]
    assert {s.inputs for s in read} <= inputs
    assert {s.outputs for s in read} <= classes
    assert all(len(s.queries) == 1 for s in read)
    most = max(len(s.queries[0].property.clauses) for s in read)
    assert most == clauses if every else most <= clauses


@needs_files
@pytest.mark.parametrize("family", FAMILIES)
def test_files_mean_what_a_slow_evaluator_says(family):
    draw = random.Random(family)
    file = draw.choice(sorted((SHARED / "vnnlib" / family / "vnnlib").iterdir()))
    raw = file.read_bytes()
    text = (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode()
    specification, forest = read_vnnlib(file), trees(text)
    query = specification.queries[0]
    lower, upper = query.witness_box
    constants = [float(a.b) for clause in query.property.clauses for a in clause] + [0.0]
    seen = set()
    for _ in range(6):
        mix = torch.tensor([draw.choice((0.0, 1.0, draw.random())) for _ in range(specification.inputs)])
        x = torch.minimum(torch.maximum(lower + mix.double() * (upper - lower), lower), upper)
        z = [
            draw.choice([draw.choice(constants), -draw.choice(constants), draw.gauss(0, 5)])
            for _ in range(specification.outputs)
        ]
        witness, covered = answers(specification, x.tolist(), z)
        # limits that no float64 meets are missed by every point, by less than one unit in the last place
        truth = reached([f for f in forest if "Y" in str(f)], x.tolist(), z)
        assert witness == covered == truth
        seen.add(truth)
    outside = torch.nextafter(query.lower, torch.full_like(query.lower, -torch.inf)).tolist()
    assert not reached(forest, outside, z)
    assert answers(specification, outside, z) == (False, False)


# --- limits ---
def test_the_box_never_shrinks_and_a_witness_stays_within_the_decimals():
    query = parse(ONE + "(assert (>= X_0 0.1))(assert (<= X_0 0.3))").queries[0]
    (lower, upper), (inner_lower, inner_upper) = (query.lower, query.upper), query.witness_box
    assert Fraction(float(lower)) < Fraction(1, 10) < Fraction(float(inner_lower))
    assert Fraction(float(inner_upper)) < Fraction(3, 10) < Fraction(float(upper))


@settings(max_examples=100, deadline=None)
@given(
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-1000, max_value=1000),
    st.sampled_from(["<=", ">=", "<", ">"]),
)
def test_limits_are_rounded_outwards_for_proofs_and_inwards_for_witnesses(decimal, op):
    text = f"{decimal:f}"[:60]
    other = "(assert (<= X_0 2000))" if op in (">=", ">") else "(assert (>= X_0 -2000))"
    for form in (f"(assert ({op} X_0 {text}))", f"(assert ({op} (+ X_0 0) {text}))"):
        query = parse(ONE + form + other).queries[0]
        side = 0 if op in (">=", ">") else 1
        outer, inner = float((query.lower, query.upper)[side]), float(query.witness_box[side])
        exact = Fraction(text)
        direction = -1 if side else 1
        assert direction * (exact - Fraction(outer)) >= 0
        assert direction * (Fraction(inner) - exact) > 0 or (inner == exact and op in ("<=", ">="))
        assert abs(Fraction(outer) - Fraction(inner)) <= Fraction(abs(inner)) / 2**51 + Fraction(1, 2**1070)


def test_a_limit_that_no_float64_meets_is_read_as_the_nearest_one():
    query = parse(ONE + "(assert (= X_0 0.1))").queries[0]
    assert float(query.lower) < 0.1 == float(query.upper)  # 0.1 means the float64 above one tenth
    assert [float(side) for side in query.witness_box] == [0.1, 0.1]


def test_the_tightest_of_several_limits_counts():
    text = ONE + UNIT + "(assert (<= X_0 0.5))(assert (<= (* 2 X_0) 0.5))(assert (<= 0.125 X_0))"
    query = parse(text).queries[0]
    assert (float(query.lower), float(query.upper)) == (0.125, 0.25)


def test_a_strict_limit_leaves_its_own_value_to_no_witness():
    query = parse(ONE + UNIT + "(assert (< X_0 0.5))").queries[0]
    assert float(query.upper) == 0.5
    assert not query.admits(torch.tensor([[0.5]], dtype=torch.float64))[0]


# --- the shape of formulas ---
def test_several_boxes_in_one_or_become_queries():
    text = TWO + (
        "(assert (or (and (<= X_0 1)(>= X_0 0)(<= X_1 1)(>= X_1 0)(<= Y_0 Y_1))"
        "(and (<= X_0 5)(>= X_0 4)(<= X_1 1)(>= X_1 0)(<= Y_0 0))"
        "(and (<= X_0 1)(>= X_0 0)(<= X_1 1)(>= X_1 0)(>= Y_0 9))))"
    )
    queries = parse(text).queries
    assert [len(q.property.clauses) for q in queries] == [2, 1]
    assert [q.lower.tolist() for q in queries] == [[0.0, 0.0], [4.0, 0.0]]


def test_constraints_that_mix_inputs_and_outputs_are_atoms():
    query = parse(TWO + SQUARE + "(assert (>= Y_0 (+ X_0 (* 2 X_1) 0.5)))").queries[0]
    ((atom,),) = query.property.clauses
    assert (atom.x, atom.z, atom.b, atom.strict) == ((1.0, 2.0), (-1.0, 0.0), 0.5, False)


def test_coefficients_that_no_float64_equals_are_made_whole():
    ((atom,),) = parse(TWO + SQUARE + "(assert (< (* 0.1 Y_0) (+ (* 0.3 X_0) 0.7)))").queries[0].property.clauses
    assert (atom.x, atom.z, atom.b, atom.exact, atom.strict) == ((-3.0, 0.0), (1.0, 0.0), -7.0, None, True)


def test_constants_that_no_float64_equals_are_kept_exactly_and_rounded_down():
    ((atom,),) = parse(ONE + UNIT + "(assert (>= Y_0 3.991125645861615))").queries[0].property.clauses
    assert atom.exact == Fraction("3.991125645861615")
    assert Fraction(atom.b) < atom.exact


def test_chained_comparisons_and_equalities():
    text = ONE + UNIT + "(assert (<= 0 Y_0 1))(assert (= Y_0 0.5))"
    forest = trees(text)
    for z in (0.5, 0.25, 2.0):
        assert answers(parse(text), [0.5], [z])[0] == reached(forest, [0.5], [z])


def test_an_assertion_that_is_false_leaves_nothing_to_reach_and_one_that_is_true_everything():
    assert parse(ONE + UNIT + "(assert (<= 1 0))").queries == ()
    assert parse(ONE + UNIT + "(assert (< X_0 X_0))").queries == ()
    assert parse(ONE + UNIT + "(assert (>= X_0 2))").queries == ()
    ((atom,),) = parse(ONE + UNIT + "(assert (<= 0 1))").queries[0].property.clauses
    assert atom.b < 0  # every point of the box is asked for


def test_comments_line_ends_declare_fun_and_silent_commands():
    text = (
        "; a file\r\n(set-logic QF_LRA)\n(declare-fun X_0 () Real)(declare-const Y_0 Real)\n"
        + UNIT
        + "(assert (<= Y_0 0))(check-sat)"
    )
    assert len(parse(text).queries) == 1


# --- what is refused ---
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE + UNIT + "\n\n(assert (<= Y_1 0))", r"line 3: 'Y_1' is neither a number nor declared"),
        (ONE + "\n(assert (<= X_1 0))", r"line 2: 'X_1' is not declared"),
        (ONE + "(assert (<= X_0 1))(assert (<= Y_0 0))", "X_0 has no lower limit"),
        (ONE + "(assert (<= X_0 1))(assert (or (>= X_0 0) (<= Y_0 0)))", "X_0 has no lower limit"),
        (ONE + UNIT + "(assert (<= (* Y_0 X_0) 1))", "product of variables is not linear"),
        (ONE + UNIT + "(assert (<= (/ 1 Y_0) 1))", "division by a variable"),
        (ONE + UNIT + "(assert (<= (/ Y_0 0) 1))", "division by zero"),
        (ONE + UNIT + "(assert (not (<= Y_0 1)))", "'not' is not supported"),
        (ONE + UNIT + "(assert (=> (<= Y_0 1) (<= X_0 1)))", "'=>' is not supported"),
        (ONE + UNIT + "(assert (<= (sin Y_0) 1))", "'sin' is not a term"),
        (ONE + UNIT + "(assert (<= Y_0))", "compares two terms, here are 1"),
        (ONE + UNIT + "(assert (<= Y_0 1) (<= Y_0 2))", "assert takes one formula, here are 2"),
        (ONE + UNIT + "(assert Y_0)", "'Y_0' is not a formula"),
        (ONE + UNIT + "(push 1)", "the command 'push' is not supported"),
        (ONE + UNIT + "(assert (<= Y_0 1)", "never closed"),
        (ONE + UNIT + "(assert (<= Y_0 1)))", "never opened"),
        (ONE + UNIT + "stray", "'stray' stands outside"),
        (ONE + UNIT + '(assert (<= Y_0 "1"))', "has no meaning"),
        (ONE + UNIT + "(assert (<= Y_0 1e999))", "leaves the range"),
        (ONE + "(assert (<= X_0 1e999))", "leaves the range"),
        (ONE + "(assert (<= X_0 1e308))(assert (>= X_0 (* 10 (- 1e308))))", "exceeds the largest float64"),
        (ONE + UNIT + "(assert (<= Y_0 nan))", "'nan' is neither a number nor declared"),
        (ONE + ONE, "declared twice"),
        ("(declare-const X_0 Int)", r"a declaration is"),
        ("(declare-const H_0 Real)", "neither an input X_i nor an output"),
        ("(declare-const X_00 Real)", "neither an input X_i nor an output"),
        ("(declare-const X_0 Real)(declare-const X_2 Real)(declare-const Y_0 Real)", "X_1 is not declared"),
        ("(declare-const X_0 Real)", "Y_0 is not declared"),
        ("", "X_0 is not declared"),
        (ONE + UNIT + "(check-sat)(assert (<= Y_0 0))", "follows check-sat"),
        (ONE + UNIT + "(assert " + "(and " * 300 + "(<= Y_0 0)" + ")" * 301, "more than 200 forms are nested"),
        (ONE + UNIT + "(assert (and " + "(or (<= Y_0 0) (>= Y_0 1))" * 20 + "))", "branches"),
        (ONE + UNIT + "(assert ((<= Y_0 0)))", "a formula must begin with"),
        (ONE + UNIT + "(assert ())", "a formula must begin with"),
        (ONE + UNIT + "(assert (<= (+) 0))", "nothing to work on"),
        (ONE + UNIT + "(assert (<= (* 0.1000000000000000000001 Y_0) (* 0.3 X_0)))", "more than 53 bits"),
        ("(" + ONE + ")", "a command stands inside another form"),
    ],
)
def test_what_is_not_understood_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse(text)


def test_damaged_and_missing_files_are_refused(tmp_path):
    with pytest.raises(RefusedFile, match="does not exist"):
        read_vnnlib(tmp_path / "none.vnnlib")
    (tmp_path / "cut.vnnlib.gz").write_bytes(gzip.compress(ONE.encode())[:-12])
    with pytest.raises(RefusedFile, match="cannot be read"):
        read_vnnlib(tmp_path / "cut.vnnlib.gz")
    (tmp_path / "binary.vnnlib").write_bytes(b"\x08\x07\xff\xfe")
    with pytest.raises(RefusedFile, match="not a text file"):
        read_vnnlib(tmp_path / "binary.vnnlib")
    (tmp_path / "bad.vnnlib").write_text(ONE + "\n(what)")
    with pytest.raises(InputError, match=r"bad\.vnnlib, line 2: the command 'what'"):
        read_vnnlib(tmp_path / "bad.vnnlib")


def test_a_gzipped_file_is_read_as_it_is(tmp_path):
    text = ONE + UNIT + "(assert (<= Y_0 0))"
    (tmp_path / "a.vnnlib").write_text(text)
    (tmp_path / "a.vnnlib.gz").write_bytes(gzip.compress(text.encode()))
    plain, zipped = (read_vnnlib(tmp_path / name) for name in ("a.vnnlib", "a.vnnlib.gz"))
    assert plain.queries[0].digest == zipped.queries[0].digest
