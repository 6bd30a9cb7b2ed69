"""Δ: the sets of points an adversary may choose from, and their exact maps."""

from saddlepoint.geometry.base import Interval, OnHyperplane, PerturbationSet
from saddlepoint.geometry.box import Box
from saddlepoint.geometry.linf import Linf

__all__ = ["Box", "Interval", "Linf", "OnHyperplane", "PerturbationSet"]
