"""One rule per nonlinear operator: which lines enclose it over an interval of its input."""

from saddlepoint.bound.rules.base import Elementwise, Relaxation, Rule
from saddlepoint.bound.rules.registry import rule_of

__all__ = ["Elementwise", "Relaxation", "Rule", "rule_of"]
