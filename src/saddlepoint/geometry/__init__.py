"""Δ: the sets of points an adversary may choose from, and their exact maps."""

from saddlepoint.geometry.base import Interval, OnHyperplane, PerturbationSet
from saddlepoint.geometry.box import Box
from saddlepoint.geometry.combine import Intersection, Union
from saddlepoint.geometry.l0 import L0
from saddlepoint.geometry.l1 import L1
from saddlepoint.geometry.l2 import L2
from saddlepoint.geometry.linf import Linf
from saddlepoint.geometry.mask import Mask
from saddlepoint.geometry.patch import Patch
from saddlepoint.geometry.registry import from_canonical
from saddlepoint.geometry.spatial import RotationTranslation

__all__ = [
    "L0",
    "L1",
    "L2",
    "Box",
    "Intersection",
    "Interval",
    "Linf",
    "Mask",
    "OnHyperplane",
    "Patch",
    "PerturbationSet",
    "RotationTranslation",
    "Union",
    "from_canonical",
]
