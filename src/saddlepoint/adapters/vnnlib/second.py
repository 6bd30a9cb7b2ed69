"""VNN-LIB 2.0, read by the `vnnlib` package and put into the forms of 1.0.

    X[i, j] of (declare-input X float32 [a, b])   ->   X_{i b + j}        (row-major, as the network flattens it)

The package parses and checks types; what it hands back is rewritten from the numerals as they were typed, so limits and
constants keep their decimals, and goes through the same reader as 1.0. One network with one input and one output;
hidden nodes, several networks, integers and whatever else 2.0 has are refused.
"""

from __future__ import annotations

import math
import re
from typing import Any

from saddlepoint.adapters.vnnlib.tokens import DEPTH, Form, refusal
from saddlepoint.core.errors import InputError
from saddlepoint.core.extras import require

VERSION = re.compile(r"\(\s*vnnlib-version\b")
_ORDER = {"LessEqual": "<=", "GreaterEqual": ">=", "LessThan": "<", "GreaterThan": ">", "Equal": "="}
_SEVERAL = {"And": "and", "Or": "or", "Plus": "+", "Minus": "-", "Multiply": "*", "Negate": "-"}
_FLOATS = ("F16", "F32", "F64", "BF16")


def is_second(text: str) -> bool:
    """Whether the first command states a version, as only 2.0 does."""
    return VERSION.match(re.sub(r"\A(?:\s+|;[^\n]*)+", "", text)) is not None


def forms_of_second(text: str) -> tuple[int, int, list[Form]]:
    """Number of inputs, number of outputs, and the formulas of all assertions, each with its line's offset."""
    package = require("vnnlib")
    try:
        query = package.parse_query_string(text)
    except package.VNNLibException as error:
        raise InputError(f"it is not VNN-LIB 2.0: {' '.join(str(error).split())}.") from error
    if len(query.networks) != 1:
        raise InputError(f"it speaks of {len(query.networks)} networks.", "Only one network is supported.")
    network = query.networks[0]
    if len(network.inputs) != 1 or len(network.outputs) != 1 or len(network.hidden):
        raise InputError(
            f"the network {network.name} has {len(network.inputs)} inputs, {len(network.outputs)} outputs and "
            f"{len(network.hidden)} hidden nodes.",
            "Only one input and one output are supported.",
        )
    ends = network.inputs[0], network.outputs[0]
    for end in ends:
        if end.dtype.name not in _FLOATS:
            raise InputError(f"{end.name} is of type {end.dtype.name}.", "Only floating types are supported.")
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    names = {end.name: (side, list(end.shape)) for side, end in zip("XY", ends, strict=True)}
    writer = _Writer(text, starts, names)
    found = [writer.form(assertion.expr, 0) for assertion in query.assertions]
    return math.prod(ends[0].shape), math.prod(ends[1].shape), found


class _Writer:
    """Rewrites nodes of the package as forms."""

    def __init__(self, text: str, starts: list[int], names: dict[str, tuple[str, list[int]]]) -> None:
        self.text, self.starts, self.names = text, starts, names

    def form(self, node: Any, depth: int) -> Form:
        """A formula or a compound term."""
        at, kind = self._at(node), type(node).__name__
        if depth > DEPTH:
            raise refusal(self.text, at, f"more than {DEPTH} forms are nested")
        if kind == "NotEqual":  # a ≠ b  is  a < b or a > b
            both = [self._item(part, depth) for part in (node.lhs, node.rhs)]
            return Form(at, ["or", Form(at, ["<", *both]), Form(at, [">", *both])])
        if kind in _ORDER:
            return Form(at, [_ORDER[kind], self._item(node.lhs, depth), self._item(node.rhs, depth)])
        if kind in _SEVERAL:
            return Form(at, [_SEVERAL[kind], *(self._item(part, depth) for part in node.children())])
        raise refusal(self.text, at, f"{kind} is not supported")

    def _item(self, node: Any, depth: int) -> str | Form:
        kind = type(node).__name__
        if kind in ("Float", "Int", "Literal"):
            return str(node.lexeme)
        if kind != "Var":
            return self.form(node, depth + 1)
        if node.name not in self.names:
            raise refusal(self.text, self._at(node), f"{node.name} is neither the input nor the output")
        side, shape = self.names[node.name]
        flat = 0
        for index, size in zip(node.indices, shape, strict=True):
            if not 0 <= index < size:
                raise refusal(self.text, self._at(node), f"index {index} of {node.name} is outside of {shape}")
            flat = flat * size + index
        return f"{side}_{flat}"

    def _at(self, node: Any) -> int:
        """Offset of the line on which the first word of a node stands."""
        while not hasattr(node, "line"):
            below = node.children()
            if not below:
                return 0
            node = below[0]
        return self.starts[min(max(int(node.line), 1), len(self.starts)) - 1]
