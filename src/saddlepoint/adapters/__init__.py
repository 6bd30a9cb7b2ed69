"""From a user's thing (module, file, estimator, function, address) to a spec.Model."""

from saddlepoint.adapters.architectures import build, names
from saddlepoint.adapters.averaged import averaged
from saddlepoint.adapters.backward import with_backward, with_straight_through
from saddlepoint.adapters.callables import from_callable
from saddlepoint.adapters.http import from_http
from saddlepoint.adapters.load import load, register
from saddlepoint.adapters.onnx_file import from_onnx
from saddlepoint.adapters.options import LoadOptions
from saddlepoint.adapters.remedies import remedied
from saddlepoint.adapters.sklearn_model import from_sklearn
from saddlepoint.adapters.suspects import Suspect, suspects
from saddlepoint.adapters.torch_module import Ways, adapt, from_torch
from saddlepoint.adapters.urls import redact
from saddlepoint.adapters.weights import save_weights

__all__ = [
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
    "suspects",
    "with_backward",
    "with_straight_through",
]
