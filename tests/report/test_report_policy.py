"""policy.toml is read strictly: every mistake is an error that names key and line."""

from __future__ import annotations

import pytest

from saddlepoint.core.errors import InputError
from saddlepoint.report.policy import parse_policy, threat_key

GOOD = """# release policy
[[require]]
threat = "linf:2/255"
metric = "robust_accuracy"
at_least = 0.6
samples = 500
open = "allow"

[[require]]
id = "clean"
metric = "clean_accuracy"
at_least = 0.9

[[require]]
metric = "D3.duplicates"
at_most = 2
"""


def test_a_good_policy():
    first, second, third = parse_policy(GOOD).requirements
    assert (first.id, first.metric, first.threat, first.threshold) == ("R1", "robust_accuracy", "linf:2/255", 0.6)
    assert (first.at_least, first.samples, first.allow_open, first.line) == (True, 500, True, 5)
    assert (second.id, second.threat, second.samples, second.allow_open, second.line) == ("clean", None, 0, False, 12)
    assert (third.metric, third.at_least, third.threshold, third.line) == ("D3.duplicates", False, 2.0, 16)
    assert first.title == "R1: robust_accuracy at linf:2/255 ≥ 0.6"


BASE = '[[require]]\nthreat = "linf:0.1"\nmetric = "robust_accuracy"\nat_least = 0.6\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BASE + "sample = 3\n", ["line 5", "'sample'", "did you mean 'samples'"]),
        ('colour = "red"\n' + BASE, ["line 1", "'colour'"]),
        (BASE + "[other]\nx = 1\n", ["line 5", "'other'"]),
        (BASE.replace("robust_accuracy", "robust_acuracy"), ["line 3", "did you mean 'robust_accuracy'"]),
        (BASE.replace('threat = "linf:0.1"\n', ""), ["line 1", "needs a threat"]),
        (BASE.replace("linf:0.1", "linf"), ["line 2", "without a size"]),
        (BASE + "at_most = 0.7\n", ["2 of at_least and at_most"]),
        (BASE.replace("at_least = 0.6\n", ""), ["0 of at_least and at_most"]),
        (BASE.replace("0.6", "60"), ["line 4", "between 0 and 1"]),
        (BASE.replace("0.6", "nan"), ["line 4", "between 0 and 1"]),
        (BASE.replace("0.6", "true"), ["line 4", "between 0 and 1"]),
        (BASE.replace("0.6", '"0.6"'), ["line 4", "between 0 and 1"]),
        (BASE + "samples = 0\n", ["line 5", "at least 1"]),
        (BASE + "samples = 5.5\n", ["line 5", "whole number"]),
        (BASE + 'open = "maybe"\n', ["line 5", '"fail" or "allow"']),
        (BASE + 'id = ""\n', ["line 5", "not empty"]),
        (BASE + 'id = "a"\n' + BASE + 'id = "a"\n', ["line 10", "used twice"]),
        (BASE + BASE + "openn = 1\n", ["line 9", "'openn'"]),
        ("", ["requires nothing"]),
        ("require = 3\n", ["requires nothing"]),
        ("[[require]\n", ["not TOML", "line 1"]),
        ("[[require]]\nat_least = 0.5\n", ["line 1", "no metric"]),
    ],
)
def test_bad_policies(text, words):
    with pytest.raises(InputError) as error:
        parse_policy(text)
    for word in words:
        assert word in str(error.value)


def test_lines_are_found_in_spite_of_multi_line_strings_and_inline_tables():
    text = 'x = """\n[[require]]\nat_least = 1\n"""\n'
    with pytest.raises(InputError, match="line 1: unknown key 'x'"):
        parse_policy(text + BASE)
    text = BASE.replace('"robust_accuracy"', '"""robust_accuracy"""') + 'id = """a\nat_least = 0.1\n"""\n'
    assert parse_policy(text).requirements[0].line == 4
    inline = 'require = [{metric = "clean_accuracy", at_least = 0.5}]\n'
    assert parse_policy(inline).requirements[0].line == 1


def test_threats_are_compared_by_meaning():
    assert threat_key("linf:2/255") == threat_key(" linf : 4/510 ")
    assert threat_key("linf:0.1") != threat_key("l2:0.1")
    assert threat_key("patch:5x5@any") == threat_key("patch:5x5@ANY")
    assert threat_key("spatial:rot=30,shift=3") != threat_key("spatial:rot=3,shift=30")
