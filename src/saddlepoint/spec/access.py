"""What an adversary may see of a model. Levels are nested: more access includes less."""

from __future__ import annotations

from enum import IntFlag


class Access(IntFlag):
    """LABEL ⊂ SCORES ⊂ GRADIENT ⊂ GRAPH; `level in model.access` asks whether it is allowed.

    >>> Access.SCORES in Access.GRADIENT, Access.GRAPH in Access.GRADIENT
    (True, False)
    """

    LABEL = 1
    SCORES = 3
    GRADIENT = 7
    GRAPH = 15
