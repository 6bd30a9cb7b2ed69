"""Lower bounds on m*: linear and interval relaxations of the captured graph, with the proof a checker needs.

Methods that need more than torch are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from saddlepoint.bound.base import BoundMethod as BoundMethod
from saddlepoint.bound.base import Bounds as Bounds
from saddlepoint.bound.base import Proof as Proof
from saddlepoint.bound.crown import CROWN as CROWN
from saddlepoint.bound.interval import Interval as Interval

if TYPE_CHECKING:
    from saddlepoint.bound.alpha import AlphaCROWN as AlphaCROWN
    from saddlepoint.bound.lipschitz import Lipschitz as Lipschitz
    from saddlepoint.bound.lp import LP as LP
    from saddlepoint.bound.milp import MILP as MILP
    from saddlepoint.bound.radius import Certified as Certified
    from saddlepoint.bound.radius import certified_radius as certified_radius
    from saddlepoint.bound.smoothing import RandomizedSmoothing as RandomizedSmoothing
    from saddlepoint.bound.wong_kolter import WongKolter as WongKolter

# public name -> the file that defines it
_HOME = {
    "AlphaCROWN": "alpha",
    "Certified": "radius",
    "LP": "lp",
    "Lipschitz": "lipschitz",
    "MILP": "milp",
    "RandomizedSmoothing": "smoothing",
    "WongKolter": "wong_kolter",
    "certified_radius": "radius",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'saddlepoint.bound' has no attribute {name!r}.")
    return getattr(import_module(f"saddlepoint.bound.{home}"), name)
