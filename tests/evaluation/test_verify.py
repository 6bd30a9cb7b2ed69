"""What a word needs: `sat` a point the runtime confirms, `unsat` accepted certificates and an importer that agrees."""

import time
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

import saddlepoint.evaluation.verify as verify_module
from onnx_nets import specification, write_mlp
from saddlepoint.adapters.vnnlib import parse
from saddlepoint.attack.property import PropertyAttack
from saddlepoint.bound.search import Found, search
from saddlepoint.check.certificate import Ruling
from saddlepoint.check.counterexample import Dismissed, judge
from saddlepoint.core.errors import InputError, UnsupportedOperator
from saddlepoint.evaluation.verify import Methods, Problem, verify
from saddlepoint.graph.agreement import Runtime
from saddlepoint.graph.onnx_reader import read_onnx

F64 = torch.float64
IDENTITY = [([[1.0]], [0.0])]
ABSOLUTE = [([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0])]  # y = |x|


def finds(*points):
    """A search that hands these points to the caller's check and then claims a violation."""

    def claims(graph, query, /, *, deadline, refute):
        for point in points:
            refute(torch.tensor([point], dtype=F64))
        return Found("violated", -1.0, torch.tensor(points[-1], dtype=F64))

    return claims


@pytest.fixture
def ask(tmp_path):
    """Verify a network against limits and assertions."""

    def asked(layers, limits, *assertions, seconds=20.0, graph=None, **methods):
        path = write_mlp(tmp_path / "net.onnx", layers)
        text = specification(limits, len(layers[-1][1]), *assertions)
        problem = Problem(graph or read_onnx(path), parse(text), lambda: Runtime(path))
        return verify(problem, time.monotonic() + seconds, Methods(**methods))

    return asked


# --- the four words ---
def test_a_property_that_holds_is_unsat_once_its_certificate_is_accepted(ask):
    answer = ask(ABSOLUTE, [("0.5", "1")], "(<= Y_0 0.25)")
    assert (answer.word, len(answer.certificates)) == ("unsat", 1)


def test_a_property_that_fails_is_sat_with_a_point_that_violates_it(ask):
    answer = ask(ABSOLUTE, [("-1", "1")], "(<= Y_0 0.25)")
    assert answer.word == "sat"
    assert abs(float(answer.counterexample.x[0])) == float(answer.counterexample.z[0]) <= 0.25


def test_every_box_of_an_or_is_answered(ask):
    boxes = "(or (and (<= X_0 1)(>= X_0 0.5)(<= Y_0 0.25)) (and (<= X_0 -0.5)(>= X_0 -1)(<= Y_0 {})))"
    answer = ask(ABSOLUTE, [("-5", "5")], boxes.format("0.25"))
    assert (answer.word, len(answer.certificates)) == ("unsat", 2)
    answer = ask(ABSOLUTE, [("-5", "5")], boxes.format("0.75"))
    assert answer.word == "sat"
    assert -0.75 <= float(answer.counterexample.x[0]) <= -0.5


def test_constraints_that_contradict_each_other_are_unsat_without_a_search(ask):
    def never(*args, **more):
        raise AssertionError("there is nothing to search")

    answer = ask(IDENTITY, [("0", "1")], "(>= X_0 2)", search=never)
    assert (answer.word, answer.certificates) == ("unsat", ())


def test_time_that_runs_out_is_a_timeout(ask):
    def sleeps(graph, query, /, *, deadline, refute):
        time.sleep(max(0.0, deadline - time.monotonic()))
        return Found("open", -1.0)

    begun = time.monotonic()
    answer = ask(IDENTITY, [("1", "2")], "(<= Y_0 0)", search=sleeps, seconds=1.0)
    assert answer.word == "timeout"
    assert time.monotonic() - begun < 1.5


def test_boxes_that_their_share_cuts_off_get_what_the_others_leave(ask):
    looks = []

    def slow_at_first(graph, query, /, *, deadline, refute):
        looks.append(float(query.lower[0]))
        if len(looks) == 1:
            time.sleep(max(0.0, deadline - time.monotonic()))
            return Found("open", -1.0)
        return search(graph, query, deadline=deadline, refute=refute)

    boxes = "(or (and (<= X_0 1)(>= X_0 0.5)(<= Y_0 0.25)) (and (<= X_0 -0.5)(>= X_0 -1)(<= Y_0 0.25)))"
    answer = ask(ABSOLUTE, [("-5", "5")], boxes, search=slow_at_first, seconds=6.0)
    assert answer.word == "unsat"
    assert looks == [0.5, -1.0, 0.5]
    assert [float(c.lower[0]) for c in answer.certificates] == [0.5, -1.0]


def test_the_attack_before_the_search_keeps_to_its_part_of_the_time(ask):
    begun, looks = time.monotonic(), []

    def notes(graph, query, /, *, deadline, refute):
        looks.append(time.monotonic() - begun)
        return Found("open", -1.0)

    ask(IDENTITY, [("1", "2")], "(<= Y_0 0)", search=notes, attack=PropertyAttack(steps=10**7), seconds=20.0)
    assert looks[0] < 6.0


def test_a_search_that_gives_up_is_unknown_with_its_bound(ask):
    answer = ask(IDENTITY, [("1", "2")], "(<= Y_0 0)", search=lambda *a, **k: Found("open", -0.5, visited=7))
    assert answer.word == "unknown"
    assert "-0.5 after 7 domains" in answer.reason


# --- what unsat needs ---
def test_without_a_checker_nothing_is_unsat(ask):
    answer = ask(ABSOLUTE, [("0.5", "1")], "(<= Y_0 0.25)", check=None)
    assert answer.word == "unknown"
    assert "no checker" in answer.reason


def test_a_refused_certificate_is_unknown(ask):
    answer = ask(ABSOLUTE, [("0.5", "1")], "(<= Y_0 0.25)", check=lambda *a, **k: Ruling(False, "leaf 3 is below 0"))
    assert answer.word == "unknown"
    assert "leaf 3 is below 0" in answer.reason


def test_a_claim_without_a_certificate_is_unknown(ask):
    answer = ask(ABSOLUTE, [("0.5", "1")], "(<= Y_0 0.25)", search=lambda *a, **k: Found("holds", 1.0))
    assert answer.word == "unknown"
    assert "without a certificate" in answer.reason


def test_the_checker_sees_graph_query_and_certificate_of_every_box(ask):
    seen = []

    def notes(graph, query, certificate, /, *, deadline):
        seen.append((query.digest, certificate.property == query.property, deadline > time.monotonic()))
        return Ruling(True)

    boxes = "(or (and (<= X_0 1)(>= X_0 0.5)(<= Y_0 0.25)) (and (<= X_0 -0.5)(>= X_0 -1)(<= Y_0 0.25)))"
    assert ask(ABSOLUTE, [("-5", "5")], boxes, check=notes).word == "unsat"
    assert len({digest for digest, *_ in seen}) == 2
    assert all(same and early for _, same, early in seen)


def test_an_operator_without_a_bound_leaves_unknown_but_the_attack_still_looks(ask):
    def refuses(graph, query, /, *, deadline, refute):
        raise UnsupportedOperator("Mystery has no rule.")

    assert "Mystery" in ask(ABSOLUTE, [("0.5", "1")], "(<= Y_0 0.25)", search=refuses).reason
    assert ask(ABSOLUTE, [("-1", "1")], "(<= Y_0 0.25)", search=refuses).word == "sat"


def test_many_boxes_are_compared_with_the_runtime_on_some_of_them_and_on_their_hull(ask, monkeypatch):
    compared = []
    monkeypatch.setattr(
        verify_module, "agree_on_box", lambda graph, run, *box: compared.append([float(e) for e in box])
    )
    boxes = " ".join(f"(and (>= X_0 {k}) (<= X_0 {k}.5) (<= Y_0 -1))" for k in range(100))

    answer = ask(ABSOLUTE, [("-5", "500")], f"(or {boxes})", check=lambda *a, **k: Ruling(True))
    assert (answer.word, len(answer.certificates)) == ("unsat", 100)
    assert [0.0, 99.5] in compared
    assert 20 <= len(compared) <= 33


# --- the traps of reference/verification, section 4, by their numbers ---
def test_trap_4_limits_that_float32_cannot_hold(ask):
    """The float64 point keeps the limits with no tolerance; its rounding is what the network sees."""
    answer = ask(IDENTITY, [("0.1", "0.1")], "(<= Y_0 0.2)")
    assert answer.word == "sat"
    assert float(answer.counterexample.x[0]) == 0.1
    assert float(answer.counterexample.z[0]) == float(torch.tensor(0.1)) != 0.1
    # 0.1 in float32 lies above 0.1: no answer may rest on a point outside of the box
    assert ask(IDENTITY, [("0", "0.1")], "(>= Y_0 0.1)", seconds=1.0).word != "sat"


def test_trap_5_a_witness_up_to_a_tolerance_is_none(ask):
    for outside in (-1e-9, 0.0, float("nan")):
        answer = ask(IDENTITY, [("1e-9", "1")], "(<= Y_0 1e-10)", search=finds([outside]))
        assert (answer.word, answer.counterexample) == ("unknown", None)


def test_trap_6_a_claimed_witness_that_does_not_violate_is_dropped(ask):
    answer = ask(IDENTITY, [("0", "1")], "(<= Y_0 -1e-7)", search=finds([0.0], [0.5]))
    assert (answer.word, answer.counterexample) == ("unknown", None)
    assert ask(IDENTITY, [("0", "1")], "(<= Y_0 0)", search=finds([0.0])).word == "sat"


def test_trap_6_a_point_outside_of_the_box_is_dismissed_with_its_coordinate(tmp_path):
    path = write_mlp(tmp_path / "net.onnx", IDENTITY)
    (query,) = parse(specification([("0", "1")], 1, "(<= Y_0 5)")).queries
    verdict = judge(query, torch.tensor([1.0 + 2**-52], dtype=F64), Runtime(path))
    assert isinstance(verdict, Dismissed)
    assert "coordinate 0" in verdict.why


def test_trap_8_outputs_that_are_not_finite_show_nothing(ask, tmp_path):
    huge = [([[3e38]], [0.0]), ([[3e38], [-3e38]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0])]  # ∞ − ∞
    for assertion in ("(<= Y_0 0)", "(>= Y_0 0)"):
        assert ask(huge, [("1", "2")], assertion, seconds=1.0).word in ("unknown", "timeout")
    (query,) = parse(specification([("0", "1")], 1, "(<= Y_0 0)")).queries
    for value in (torch.nan, -torch.inf):
        verdict = judge(query, torch.tensor([0.5], dtype=F64), lambda x, v=value: torch.full((1, 1), v))
        assert isinstance(verdict, Dismissed)
        assert "not finite" in verdict.why


def test_trap_8_a_bound_that_is_nan_proves_nothing(ask):
    answer = ask(IDENTITY, [("1", "2")], "(<= Y_0 0)", search=lambda *a, **k: Found("open", float("nan")))
    assert answer.word == "unknown"


def test_trap_10_strict_and_plain_differ_at_the_boundary(ask):
    assert ask(IDENTITY, [("0", "1")], "(<= Y_0 0)").word == "sat"
    assert ask(IDENTITY, [("0", "1")], "(< Y_0 0)", seconds=1.0).word != "sat"


def test_trap_10_inputs_and_outputs_in_one_constraint(ask):
    # |x| ≥ x always; |x| > −x fails exactly for x ≤ 0
    assert ask(ABSOLUTE, [("1", "2")], "(<= Y_0 (- X_0))").word == "unsat"
    answer = ask(ABSOLUTE, [("-1", "2")], "(<= Y_0 (- X_0))")
    assert answer.word == "sat"
    assert float(answer.counterexample.x[0]) <= 0


def test_trap_10_a_constant_that_no_float_equals_is_compared_exactly(tmp_path):
    path = write_mlp(tmp_path / "net.onnx", IDENTITY)
    single = torch.tensor([float(torch.tensor(0.1))], dtype=F64)  # what float32 makes of 0.1, a little above it
    just_above, just_below = (Fraction(float(single[0])) + Fraction(s, 10**30) for s in (1, -1))

    def asked(value):
        digits = f"{value.numerator * 10**60 // value.denominator:061d}"
        return parse(specification([("0", "1")], 1, f"(>= Y_0 {digits[:-60]}.{digits[-60:]})")).queries[0]

    run = Runtime(path)
    assert isinstance(judge(asked(just_above), single, run), Dismissed)
    assert not isinstance(judge(asked(just_below), single, run), Dismissed)


def test_trap_11_a_graph_that_is_not_the_file_is_never_unsat(ask, tmp_path):
    other = read_onnx(write_mlp(tmp_path / "other.onnx", [([[1.0]], [0.5])]))
    answer = ask(IDENTITY, [("1", "2")], "(<= Y_0 0)", graph=other)
    assert answer.word == "unknown"
    assert "onnxruntime" in answer.reason


def test_trap_11_nor_is_its_witness_believed(ask, tmp_path):
    other = read_onnx(write_mlp(tmp_path / "other.onnx", [([[1.0]], [-5.0])]))
    answer = ask(IDENTITY, [("1", "2")], "(<= Y_0 0)", graph=other, seconds=1.0)
    assert (answer.word, answer.counterexample) == ("timeout", None)
    assert "do not violate the property" in answer.reason


# --- what does not fit ---
def test_sizes_that_do_not_fit_are_refused(ask):
    with pytest.raises(InputError, match="2 inputs and 1 outputs, the network 1 and 1"):
        ask(IDENTITY, [("0", "1"), ("0", "1")], "(<= Y_0 0)")


def test_random_networks_agree_with_dense_sampling(ask):
    """No `unsat` where a grid finds a violation, no `sat` that float64 contradicts."""
    draw = torch.Generator().manual_seed(0)
    words = set()
    for _ in range(12):
        w1, b1 = torch.randn(6, 2, generator=draw), torch.randn(6, generator=draw)
        w2, b2 = torch.randn(2, 6, generator=draw), torch.randn(2, generator=draw)
        layers = [(w1.tolist(), b1.tolist()), (w2.tolist(), b2.tolist())]
        answer = ask(layers, [("-1", "1"), ("-1", "1")], "(<= Y_0 (+ Y_1 X_0))", search=search)
        axis = torch.linspace(-1, 1, 101, dtype=F64)
        x = torch.cartesian_prod(axis, axis)
        z = torch.relu(x @ w1.double().T + b1.double()) @ w2.double().T + b2.double()
        worst = float((z[:, 0] - z[:, 1] - x[:, 0]).min())
        assert answer.word in ("sat", "unsat")
        assert answer.word == "sat" or worst > 0
        words.add(answer.word)
    assert words == {"sat", "unsat"}


def test_answers_are_values(ask):
    answer = ask(ABSOLUTE, [("-1", "1")], "(<= Y_0 0.25)")
    assert replace(answer, word="unknown").word == "unknown"
    assert set(answer.seconds) == {"attack"}
