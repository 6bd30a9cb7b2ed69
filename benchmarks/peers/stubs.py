"""Modules that the peers import at load time and never call in these comparisons: torchvision, visdom.

`install()` puts an empty stand-in into `sys.modules` for each of them that is missing. A call of anything
in one raises, so that no figure can rest on a stub. Run as a script, it imports every peer and prints its version.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from importlib.metadata import version
from types import ModuleType
from typing import Any

STUBBED = ("torchvision", "visdom")
PEERS = {
    "foolbox": "foolbox",
    "art": "adversarial-robustness-toolbox",
    "torchattacks": "torchattacks",
    "adv_lib": "adv-lib",
}


class _Stub(ModuleType):
    """A module in which every public name is a class that cannot be made."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": _refuse})


def _refuse(*_: object, **__: object) -> None:
    raise RuntimeError("this stands in for a library that is not installed; nothing measured may call it")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the stubbed packages and everything below them."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self.packages = packages

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in self.packages:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Stub(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def install() -> None:
    """Make `import torchvision` and the like succeed where they are not installed."""
    missing = tuple(name for name in STUBBED if name not in sys.modules and importlib.util.find_spec(name) is None)
    if missing:
        sys.meta_path.append(_Finder(missing))


def versions() -> dict[str, str]:
    """The peers' versions."""
    return {package: version(package) for package in PEERS.values()}


if __name__ == "__main__":
    install()
    for module, package in PEERS.items():
        importlib.import_module(module)
        print(f"{package} {version(package)}")
