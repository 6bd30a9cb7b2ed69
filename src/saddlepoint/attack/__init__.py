"""Upper bounds on the worst margin: one algorithm a file, and the engine that runs them all.

Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saddlepoint.attack.engine import run as run
    from saddlepoint.attack.engine.outcome import EngineSettings as EngineSettings
    from saddlepoint.attack.engine.outcome import Outcome as Outcome
    from saddlepoint.attack.engine.outcome import Progress as Progress
    from saddlepoint.attack.fixed.apgd import APGD as APGD
    from saddlepoint.attack.fixed.apgd_targeted import APGDTargeted as APGDTargeted
    from saddlepoint.attack.fixed.bim import BIM as BIM
    from saddlepoint.attack.fixed.fgsm import FGSM as FGSM
    from saddlepoint.attack.fixed.frank_wolfe import FrankWolfe as FrankWolfe
    from saddlepoint.attack.fixed.grid import Grid as Grid
    from saddlepoint.attack.fixed.mi_fgsm import MIFGSM as MIFGSM
    from saddlepoint.attack.fixed.pgd import PGD as PGD
    from saddlepoint.attack.fixed.pgd_targeted import PGDTargeted as PGDTargeted
    from saddlepoint.attack.fixed.random_search import RandomSearch as RandomSearch
    from saddlepoint.attack.fixed.square import Square as Square
    from saddlepoint.attack.minimum.carlini_wagner import CarliniWagner as CarliniWagner
    from saddlepoint.attack.minimum.ddn import DDN as DDN
    from saddlepoint.attack.minimum.deepfool import DeepFool as DeepFool
    from saddlepoint.attack.minimum.elastic_net import EAD as EAD
    from saddlepoint.attack.minimum.fab import FAB as FAB
    from saddlepoint.attack.minimum.fmn import FMN as FMN
    from saddlepoint.attack.minimum.lbfgs import LBFGS as LBFGS
    from saddlepoint.attack.minimum.pdpgd import PDPGD as PDPGD
    from saddlepoint.attack.minimum.relay import Relay as Relay
    from saddlepoint.attack.minimum.sigma_zero import SigmaZero as SigmaZero
    from saddlepoint.attack.minimum.smallest import Curve as Curve
    from saddlepoint.attack.minimum.smallest import Smallest as Smallest
    from saddlepoint.attack.minimum.smallest import curve as curve
    from saddlepoint.attack.minimum.smallest import smallest as smallest
    from saddlepoint.attack.protocol import Answers as Answers
    from saddlepoint.attack.protocol import Ask as Ask
    from saddlepoint.attack.protocol import Attack as Attack
    from saddlepoint.attack.rows import Rows as Rows
    from saddlepoint.attack.transfer import Diverse as Diverse
    from saddlepoint.attack.transfer import Nesterov as Nesterov
    from saddlepoint.attack.transfer import Scaled as Scaled
    from saddlepoint.attack.transfer import Smoothed as Smoothed
    from saddlepoint.attack.universal import Universal as Universal

# public name -> the module that defines it, below this one
_HOME = {
    "APGD": "fixed.apgd",
    "APGDTargeted": "fixed.apgd_targeted",
    "Answers": "protocol",
    "Ask": "protocol",
    "Attack": "protocol",
    "BIM": "fixed.bim",
    "CarliniWagner": "minimum.carlini_wagner",
    "Curve": "minimum.smallest",
    "DDN": "minimum.ddn",
    "DeepFool": "minimum.deepfool",
    "Diverse": "transfer",
    "EAD": "minimum.elastic_net",
    "EngineSettings": "engine.outcome",
    "FAB": "minimum.fab",
    "FGSM": "fixed.fgsm",
    "FMN": "minimum.fmn",
    "FrankWolfe": "fixed.frank_wolfe",
    "Grid": "fixed.grid",
    "LBFGS": "minimum.lbfgs",
    "MIFGSM": "fixed.mi_fgsm",
    "Nesterov": "transfer",
    "Outcome": "engine.outcome",
    "PDPGD": "minimum.pdpgd",
    "PGD": "fixed.pgd",
    "PGDTargeted": "fixed.pgd_targeted",
    "Progress": "engine.outcome",
    "RandomSearch": "fixed.random_search",
    "Relay": "minimum.relay",
    "Rows": "rows",
    "Scaled": "transfer",
    "SigmaZero": "minimum.sigma_zero",
    "Smallest": "minimum.smallest",
    "Smoothed": "transfer",
    "Square": "fixed.square",
    "Universal": "universal",
    "curve": "minimum.smallest",
    "run": "engine",
    "smallest": "minimum.smallest",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'saddlepoint.attack' has no attribute {name!r}.")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
