"""`package.module:name`: an object by its import path, looked up in the current folder too."""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any

from saddlepoint.core.errors import InputError

_PATH = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)")


def is_import_path(spec: str) -> bool:
    """Whether the text looks like package.module:name."""
    return _PATH.fullmatch(spec) is not None


def import_object(path: str) -> Any:
    """The object named by package.module:name. Raises InputError with what is missing."""
    found = _PATH.fullmatch(path)
    if found is None:
        raise InputError(f"{path!r} is no import path.", "Write package.module:name.")
    module_name, name = found[1], found[2]
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)  # `python -m` does the same; a console script does not
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"The module {module_name!r} cannot be imported ({error}).",
            "Run in the folder that holds it, or install it.",
        ) from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            there = [n for n in vars(value) if not n.startswith("_")] if hasattr(value, "__dict__") else []
            raise InputError(f"{module_name!r} has no {name!r}.", f"It has: {', '.join(there[:12])}.")
        value = getattr(value, part)
    return value
