"""Saddlepoint: worst-case machine learning, with evidence.

    min over θ  E over (x, y)  max over δ in Δ(x)  loss(f_θ(x + δ), y)

The public names are loaded when they are first used (PEP 562), so `import saddlepoint` is
instant and imports no torch.

>>> import saddlepoint as sp
>>> sp.Linf("8/255").size
Fraction(8, 255)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saddlepoint import attack as attack
    from saddlepoint import bound as bound
    from saddlepoint import data as data
    from saddlepoint import geometry as geometry
    from saddlepoint import testing as testing
    from saddlepoint import training as training
    from saddlepoint.adapters import from_callable as from_callable
    from saddlepoint.adapters import from_onnx as from_onnx
    from saddlepoint.adapters import from_sklearn as from_sklearn
    from saddlepoint.adapters import from_torch as from_torch
    from saddlepoint.data import from_arrays as from_arrays
    from saddlepoint.evaluation import evaluate as evaluate
    from saddlepoint.geometry import L0 as L0
    from saddlepoint.geometry import L1 as L1
    from saddlepoint.geometry import L2 as L2
    from saddlepoint.geometry import Box as Box
    from saddlepoint.geometry import Linf as Linf
    from saddlepoint.geometry import Mask as Mask
    from saddlepoint.geometry import Patch as Patch
    from saddlepoint.geometry import RotationTranslation as RotationTranslation
    from saddlepoint.ledger import Ledger as Ledger
    from saddlepoint.spec import Model as Model
    from saddlepoint.spec import Targeted as Targeted
    from saddlepoint.spec import Threat as Threat
    from saddlepoint.spec import Untargeted as Untargeted
    from saddlepoint.training import train as train

__version__ = "0.1.0"

# public name -> the room that defines it; a name that is its own room is the room itself
_HOME = {
    "Box": "geometry",
    "L0": "geometry",
    "L1": "geometry",
    "L2": "geometry",
    "Ledger": "ledger",
    "Linf": "geometry",
    "Mask": "geometry",
    "Model": "spec",
    "Patch": "geometry",
    "RotationTranslation": "geometry",
    "Targeted": "spec",
    "Threat": "spec",
    "Untargeted": "spec",
    "attack": "attack",
    "bound": "bound",
    "data": "data",
    "evaluate": "evaluation",
    "from_arrays": "data",
    "from_callable": "adapters",
    "from_onnx": "adapters",
    "from_sklearn": "adapters",
    "from_torch": "adapters",
    "geometry": "geometry",
    "testing": "testing",
    "train": "training",
    "training": "training",
}

__all__ = [
    "L0",
    "L1",
    "L2",
    "Box",
    "Ledger",
    "Linf",
    "Mask",
    "Model",
    "Patch",
    "RotationTranslation",
    "Targeted",
    "Threat",
    "Untargeted",
    "__version__",
    "attack",
    "bound",
    "data",
    "evaluate",
    "from_arrays",
    "from_callable",
    "from_onnx",
    "from_sklearn",
    "from_torch",
    "geometry",
    "testing",
    "train",
    "training",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'saddlepoint' has no attribute {name!r}. Public names: {', '.join(_HOME)}.")
    module = import_module(f"saddlepoint.{home}")
    value = module if name == home else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
