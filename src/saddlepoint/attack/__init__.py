"""Upper bounds on the worst margin: one algorithm a file, and the engine that runs them all."""

from __future__ import annotations

from saddlepoint.attack.apgd import APGD as APGD
from saddlepoint.attack.apgd_targeted import APGDTargeted as APGDTargeted
from saddlepoint.attack.engine import run as run
from saddlepoint.attack.grid import Grid as Grid
from saddlepoint.attack.outcome import EngineSettings as EngineSettings
from saddlepoint.attack.outcome import Outcome as Outcome
from saddlepoint.attack.outcome import Progress as Progress
from saddlepoint.attack.pgd import PGD as PGD
from saddlepoint.attack.protocol import Answers as Answers
from saddlepoint.attack.protocol import Ask as Ask
from saddlepoint.attack.protocol import Attack as Attack
from saddlepoint.attack.random_search import RandomSearch as RandomSearch
from saddlepoint.attack.rows import Rows as Rows
