"""A small trained network on scikit-learn's digits, as a file and as a model, made once per test process."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from saddlepoint.adapters import LoadOptions, load, save_weights
from saddlepoint.adapters.architectures import build
from saddlepoint.data import load as load_data
from saddlepoint.spec import Model
from saddlepoint.training import Standard, Trainer, fresh, train


@cache
def digits_weights() -> Path:
    """`mlp:24` on digits, 20 epochs: a .safetensors with metadata."""
    net = fresh(build("mlp:24", (1, 8, 8), 10), seed=0)
    trained = train(net, load_data("digits:train"), Standard(), Trainer(epochs=20))
    path = Path(mkdtemp(prefix="saddlepoint-test-")) / "digits.safetensors"
    save_weights(path, trained.net, {"arch": "mlp:24", "shape": [1, 8, 8], "classes": 10, "domain": [0.0, 1.0]})
    return path


@cache
def digits_model() -> Model:
    """The same, loaded."""
    return load(str(digits_weights()), LoadOptions())
