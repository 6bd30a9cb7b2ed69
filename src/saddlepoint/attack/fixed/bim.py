"""The basic iterative method: sign steps of a fixed length from x0, cut back to the set.

    x_{i+1} = P_S(x_i + α ε d(∇ loss(x_i))),   x_0 = x0

PGD (pgd.py) without its random start. Kurakin, Goodfellow & Bengio 2017, §2.2 (there α is one pixel value, and the
number of steps min(ε + 4, 1.25 ε) pixel values); α = 0.2 and 10 steps cross the set twice. Cost: as PGD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from saddlepoint.attack.fixed.pgd import PGD


@dataclass(frozen=True)
class BIM(PGD):
    """PGD from x0. Deterministic: more than one restart repeats the first."""

    name: ClassVar[str] = "bim"
    steps: int = 10
    step_size: float | None = 0.2
    random_start: bool = False
    polish: bool = False
