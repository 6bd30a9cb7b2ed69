"""Which rule bounds which operator."""

from __future__ import annotations

from typing import Any

from saddlepoint.bound.rules.base import Rule
from saddlepoint.bound.rules.clip import ClipRule
from saddlepoint.bound.rules.maxpool import MaxPoolRule
from saddlepoint.bound.rules.relu import ReluRule
from saddlepoint.core.errors import UnsupportedOperator
from saddlepoint.graph.ops import Clip, LeakyRelu, MaxPool2d, Op, Relu

RULES: dict[type[Any], Rule] = {
    Relu: ReluRule(),
    LeakyRelu: ReluRule(),
    Clip: ClipRule(),
    MaxPool2d: MaxPoolRule(),
}


def rule_of(op: Op, node: str) -> Rule:
    """The rule of `op`. Raises UnsupportedOperator with the node's name."""
    rule = RULES.get(type(op))
    if rule is None:
        known = ", ".join(sorted(kind.__name__ for kind in RULES))
        raise UnsupportedOperator(
            f"no bound rule for operator {op.kind} (node {node!r}).",
            f"Rules exist for {known} and every linear operator; a rule is one file in bound/rules.",
        )
    return rule
