"""What to run, and running it: plans, the anytime schedule, resume, workers.

Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saddlepoint.evaluation.evaluating import evaluate as evaluate
    from saddlepoint.evaluation.plan import Plan as Plan
    from saddlepoint.evaluation.plan import plan_named as plan_named
    from saddlepoint.evaluation.request import Prepared as Prepared
    from saddlepoint.evaluation.request import Request as Request
    from saddlepoint.evaluation.request import prepare as prepare
    from saddlepoint.evaluation.running import run as run
    from saddlepoint.evaluation.schedule import Progress as Progress
    from saddlepoint.evaluation.unit import Work as Work

# public name -> the module that defines it, below this one
_HOME = {
    "Plan": "plan",
    "Prepared": "request",
    "Progress": "schedule",
    "Request": "request",
    "Work": "unit",
    "evaluate": "evaluating",
    "plan_named": "plan",
    "prepare": "request",
    "run": "running",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'saddlepoint.evaluation' has no attribute {name!r}.")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
