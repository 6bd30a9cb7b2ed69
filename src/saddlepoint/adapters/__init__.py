"""From a user's thing (module, file, estimator, function, address) to a spec.Model, and from a file to queries.

Names are loaded when they are first used, so that whoever needs one adapter does not wait for the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saddlepoint.adapters.architectures import build as build
    from saddlepoint.adapters.architectures import names as names
    from saddlepoint.adapters.averaging import averaged as averaged
    from saddlepoint.adapters.backward import with_backward as with_backward
    from saddlepoint.adapters.backward import with_straight_through as with_straight_through
    from saddlepoint.adapters.callables import from_callable as from_callable
    from saddlepoint.adapters.http import from_http as from_http
    from saddlepoint.adapters.loading import load as load
    from saddlepoint.adapters.loading import register as register
    from saddlepoint.adapters.onnx_file import from_onnx as from_onnx
    from saddlepoint.adapters.options import LoadOptions as LoadOptions
    from saddlepoint.adapters.remedies import remedied as remedied
    from saddlepoint.adapters.sklearn_model import from_sklearn as from_sklearn
    from saddlepoint.adapters.smoothing import Counting as Counting
    from saddlepoint.adapters.smoothing import smoothed as smoothed
    from saddlepoint.adapters.suspicion import Suspect as Suspect
    from saddlepoint.adapters.suspicion import suspects as suspects
    from saddlepoint.adapters.torch_module import Ways as Ways
    from saddlepoint.adapters.torch_module import adapt as adapt
    from saddlepoint.adapters.torch_module import from_torch as from_torch
    from saddlepoint.adapters.urls import redact as redact
    from saddlepoint.adapters.weights import save_weights as save_weights

# public name -> the file that defines it
_HOME = {
    "Counting": "smoothing",
    "LoadOptions": "options",
    "Suspect": "suspicion",
    "Ways": "torch_module",
    "adapt": "torch_module",
    "averaged": "averaging",
    "build": "architectures",
    "from_callable": "callables",
    "from_http": "http",
    "from_onnx": "onnx_file",
    "from_sklearn": "sklearn_model",
    "from_torch": "torch_module",
    "load": "loading",
    "names": "architectures",
    "redact": "urls",
    "register": "loading",
    "remedied": "remedies",
    "save_weights": "weights",
    "smoothed": "smoothing",
    "suspects": "suspicion",
    "with_backward": "backward",
    "with_straight_through": "backward",
}

__all__ = [
    "Counting",
    "LoadOptions",
    "Suspect",
    "Ways",
    "adapt",
    "averaged",
    "build",
    "from_callable",
    "from_http",
    "from_onnx",
    "from_sklearn",
    "from_torch",
    "load",
    "names",
    "redact",
    "register",
    "remedied",
    "save_weights",
    "smoothed",
    "suspects",
    "with_backward",
    "with_straight_through",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'saddlepoint.adapters' has no attribute {name!r}.")
    return getattr(import_module(f"saddlepoint.adapters.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
