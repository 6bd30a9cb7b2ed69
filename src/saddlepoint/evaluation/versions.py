"""What a number depends on beside seeds: the versions in use."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("saddlepoint", "torch", "numpy", "scipy", "scikit-learn", "onnx", "onnxruntime")


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that compute."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            found[name] = "not installed"
    return found
