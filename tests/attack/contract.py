"""The contract that every attack keeps, as the test suite runs it: promise by promise (saddlepoint.testing)."""

from __future__ import annotations

from saddlepoint.testing.attacks import PROMISES
from saddlepoint.testing.trial import CLASSES as CLASSES
from saddlepoint.testing.trial import COUNT as COUNT
from saddlepoint.testing.trial import Trial as Trial

promises = PROMISES
