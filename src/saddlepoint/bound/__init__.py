"""Lower bounds on m*: linear and interval relaxations of the captured graph, with the proof a checker needs."""

from saddlepoint.bound.base import BoundMethod as BoundMethod
from saddlepoint.bound.base import Bounds as Bounds
from saddlepoint.bound.base import Proof as Proof
from saddlepoint.bound.crown import CROWN as CROWN
from saddlepoint.bound.interval import Interval as Interval
