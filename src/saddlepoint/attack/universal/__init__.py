"""One perturbation for all samples."""

from __future__ import annotations

from saddlepoint.attack.universal.ascent import Universal as Universal
from saddlepoint.attack.universal.find import Shared as Shared
from saddlepoint.attack.universal.find import find_universal as find_universal
from saddlepoint.attack.universal.sequential import find_universal_sequential as find_universal_sequential
