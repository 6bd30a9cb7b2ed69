"""Records that the report's tests share."""

from __future__ import annotations

import pytest
from report_example import MemoryRecord, digits_record


@pytest.fixture(scope="session")
def record() -> MemoryRecord:
    """Two networks on digits, ℓ∞ at three sizes and rotation with translation."""
    return digits_record()
