"""Everything about an attack but its update rule: who is asked, who falls, who comes next, what it costs."""

from __future__ import annotations

from saddlepoint.attack.engine.outcome import EngineSettings as EngineSettings
from saddlepoint.attack.engine.outcome import Outcome as Outcome
from saddlepoint.attack.engine.outcome import Progress as Progress
from saddlepoint.attack.engine.run import run as run
