"""The one door to optional packages."""

from __future__ import annotations

import importlib
from types import ModuleType

from saddlepoint.core.errors import MissingExtra

# import name -> the extra of this project that brings it
_EXTRA = {"accelerate": "accelerate", "ray": "ray", "httpx": "http", "timm": "hf", "skops": "skops", "vnnlib": "vnnlib"}


def require(name: str) -> ModuleType:
    """Import an optional package, or say how to install it.

    Raises:
        MissingExtra: the package is not installed.

    >>> require("json").__name__
    'json'
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # a package that is there but lacks a dependency of its own must say so itself
        if error.name is None or error.name.split(".")[0] != name.split(".")[0]:
            raise
        extra = _EXTRA.get(name.split(".")[0])
        remedy = f'Install it with: pip install "saddlepoint[{extra}]"' if extra else f"Install {name}."
        raise MissingExtra(f"{name} is not installed.", remedy) from error
