"""Which rule bounds which operator."""

from __future__ import annotations

from typing import Any

from saddlepoint.bound.rules.base import Rule
from saddlepoint.bound.rules.clip import ClipRule
from saddlepoint.bound.rules.curves import CURVES, CurveRule
from saddlepoint.bound.rules.maxpool import MaxPoolRule
from saddlepoint.bound.rules.product import ProductRule
from saddlepoint.bound.rules.relu import ReluRule
from saddlepoint.bound.rules.render import RenderRule
from saddlepoint.bound.rules.steps import StepRule
from saddlepoint.core.errors import UnsupportedOperator
from saddlepoint.graph.ops import (
    Clip,
    Elementwise,
    Exp,
    LeakyRelu,
    MatrixProduct,
    MaxPool2d,
    Op,
    Power,
    Product,
    Relu,
    Render,
    Sigmoid,
    Tanh,
)

RULES: dict[type[Any], Rule] = {
    Relu: ReluRule(),
    LeakyRelu: ReluRule(),
    Clip: ClipRule(),
    MaxPool2d: MaxPoolRule(),
    Product: ProductRule(),
    MatrixProduct: ProductRule(),
    Render: RenderRule(),
    **dict.fromkeys((Sigmoid, Tanh, Exp, Power), CurveRule()),
}
FUNCTIONS: dict[str, Rule] = {
    **dict.fromkeys(CURVES, CurveRule()),
    **dict.fromkeys(("Sign", "Floor", "Ceil", "Round"), StepRule()),
}


def rule_of(op: Op, node: str) -> Rule:
    """The rule of `op`. Raises UnsupportedOperator with the node's name."""
    rule = FUNCTIONS.get(op.function) if isinstance(op, Elementwise) else RULES.get(type(op))
    if rule is None:
        known = ", ".join(sorted({*(kind.__name__ for kind in RULES), *FUNCTIONS}))
        raise UnsupportedOperator(
            f"no bound rule for operator {op.kind} (node {node!r}).",
            f"Rules exist for {known}, what decompose() makes of others, and every linear operator.",
        )
    return rule
