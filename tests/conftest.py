"""Every test runs with shapes and types checked: jaxtyping's import hook puts beartype on the package.

graph/ is left out: torch.export traces its functions and must not meet the checks; cli/ has nothing to gain, and
testing/ is made to be given what is wrong.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from paths import SHARED

_CHECKED = (
    "saddlepoint.core",
    "saddlepoint.geometry",
    "saddlepoint.spec",
    "saddlepoint.attack",
    "saddlepoint.bound",
    "saddlepoint.check",
    "saddlepoint.adapters",
    "saddlepoint.data",
    "saddlepoint.training",
    "saddlepoint.ledger",
    "saddlepoint.evaluation",
    "saddlepoint.report",
)
_early = [name for name in sys.modules if name.startswith("saddlepoint.")]
if _early:
    raise pytest.UsageError(f"imported before the type checks could be put on: {_early}")
install_import_hook(_CHECKED, "typecheck.checked")

import torch  # noqa: E402  # after the hook

# deadline: a first call compiles and caches, which says nothing about the code under test
settings.register_profile("here", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")

torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    return (yield from _skipping_without_material())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    return (yield from _skipping_without_material())


def _skipping_without_material() -> Generator[None, None, None]:
    """Where no measuring material lies beside the checkout, tests that reach for it are skipped, and say so."""
    try:
        return (yield)
    except Exception as error:
        if SHARED.exists() or str(SHARED) not in f"{error}":
            raise
        pytest.skip(f"the measuring material ({SHARED.relative_to(SHARED.parents[1])}) is not beside the project")
